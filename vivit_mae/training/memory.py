"""How the C library hands memory to training on a CPU."""

import ctypes
import sys

# Parameters of mallopt(3), glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def keep_freed() -> bool:
  """Makes glibc keep freed memory for the next step instead of returning it.

  XLA's CPU client allocates the activations anew in every step. By default
  each large block comes from the kernel, zeroed page by page, and goes back: a
  tenth of a ViT-S step (`docs/performance.md`). Call it before jax starts its
  threads; later it helps only those threads that have not allocated yet.

  Returns:
    Whether there was a glibc to tell.
  """
  if not sys.platform.startswith('linux'):
    return False
  mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
  if mallopt is None:
    return False
  # Threads of other arenas take large blocks from the kernel whatever the
  # other two parameters say.
  return all(
    (
      mallopt(_M_ARENA_MAX, 1),
      mallopt(_M_MMAP_MAX, 0),
      mallopt(_M_TRIM_THRESHOLD, 2**31 - 1),
    )
  )
