"""How the C library hands memory to training on a CPU."""

import ctypes
import os
import sys

# Parameters of mallopt(3) and madvise(2), from glibc's malloc.h and mman.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
_MADV_HUGEPAGE = 14


def keep_freed() -> bool:
  """Makes glibc keep freed memory for the next step instead of returning it.

  XLA's CPU client allocates the activations anew in every step. By default
  each large block comes from the kernel, zeroed page by page, and goes back: a
  tenth of a ViT-S step (`docs/performance.md`). Call it before jax starts its
  threads; later it helps only those threads that have not allocated yet.

  The heap's addresses, up to half of the machine's memory, are marked for pages
  of 2 MiB, where the kernel offers them; none is taken before it is used.

  Returns:
    Whether there was a glibc to tell.
  """
  if not sys.platform.startswith('linux'):
    return False
  libc = ctypes.CDLL(None)
  if not hasattr(libc, 'mallopt'):
    return False
  # Threads of other arenas take large blocks from the kernel whatever the
  # other two parameters say.
  told = all(
    (
      libc.mallopt(_M_ARENA_MAX, 1),
      libc.mallopt(_M_MMAP_MAX, 0),
      libc.mallopt(_M_TRIM_THRESHOLD, -1),
    )
  )
  _advise_huge_pages(libc)
  return told


def _advise_huge_pages(libc: ctypes.CDLL) -> None:
  """Marks what malloc will hand out: as one block, which is freed again."""
  libc.malloc.restype = ctypes.c_void_p
  page = os.sysconf('SC_PAGE_SIZE')
  length = os.sysconf('SC_PHYS_PAGES') // 2 * page
  block = libc.malloc(ctypes.c_size_t(length))
  if block is None:
    return
  start = -(-block // page) * page
  libc.madvise(
    ctypes.c_void_p(start), ctypes.c_size_t(length - page), _MADV_HUGEPAGE
  )
  libc.free(ctypes.c_void_p(block))
