"""Worker processes: how they start, what each reads, and what ended one.

A fault inside a decoder ends the process it happens in. So a worker notes which
video it turns to on a board that outlives it; from there the process that
started it learns what to leave out.
"""

import contextlib
import dataclasses
import faulthandler
import logging
import multiprocessing
import os
import re
import signal
import struct
import time
from collections.abc import Callable, Iterator
from multiprocessing import shared_memory

import cv2

from vivit_mae.data import processes
from vivit_mae.data.video import VideoError

_log = logging.getLogger(__name__)

# Deaths in a row that no video explains, until a run stops; batches after which
# they are forgotten.
_MAX_UNEXPLAINED = 3
_CALM = 100

# What others send, so that the video a worker reads may have no part in it. The
# system itself sends SIGKILL when memory runs out, SIGBUS when shared memory
# does.
_FROM_OUTSIDE = (
  -signal.SIGTERM,
  -getattr(signal, 'SIGKILL', 9),
  -getattr(signal, 'SIGBUS', 7),
)

# Process, row of the source, time, name. 255 bytes of a name are kept.
_ENTRY = struct.Struct('=qqd256p')

_STDERR = 2


class WorkersError(ValueError):
  """Workers end again and again, and no video is to blame."""


@dataclasses.dataclass(frozen=True)
class Entry:
  """What one worker does.

  Attributes:
    process: Its number; 0 = it has not started yet.
    index: The row of the source that it reads, -1 = none.
    since: When it began, in seconds of `time.monotonic`.
    name: The video's id, '' while it is not known.
  """

  process: int = 0
  index: int = -1
  since: float = 0.0
  name: str = ''


class Board:
  """What each worker does, in memory that they share. Picklable."""

  def __init__(self, num_workers: int):
    self._memory = shared_memory.SharedMemory(
      create=True, size=_ENTRY.size * num_workers
    )
    self._num_workers = num_workers
    for worker in range(num_workers):
      self.put(worker, Entry())

  @property
  def _buffer(self) -> memoryview:
    assert self._memory.buf is not None
    return self._memory.buf

  def put(self, worker: int, entry: Entry) -> None:
    """Replaces the entry of a worker."""
    _ENTRY.pack_into(
      self._buffer,
      worker * _ENTRY.size,
      entry.process,
      entry.index,
      entry.since,
      entry.name.encode(errors='surrogateescape'),
    )

  def entries(self) -> list[Entry]:
    """The entries of all workers."""
    size = _ENTRY.size
    return [
      Entry(process, index, since, name.decode(errors='replace'))
      for process, index, since, name in (
        _ENTRY.unpack_from(self._buffer, worker * size)
        for worker in range(self._num_workers)
      )
    ]

  def close(self) -> None:
    """Frees the memory; for the process that made it."""
    self._memory.close()
    self._memory.unlink()


@dataclasses.dataclass
class _Here:
  """Which worker this process is."""

  board: Board
  worker: int
  timeout: float


_here: _Here | None = None


def start(
  parent: int, board: Board, timeout: float, worker: int, num_workers: int
) -> None:
  """Prepares a worker process: one thread, and no life after its parent.

  Ctrl-C reaches every process of a terminal; what it means is for the parent
  to decide, so a worker ignores it. A fault, and a video that takes too long,
  leave a stack trace on stderr.

  Args:
    parent: The process that must stay alive.
    board: Where this worker notes what it does.
    timeout: Seconds until it ends itself because of one video; 0 = never.
    worker: Number of this worker.
    num_workers: How many there are; not used.
  """
  global _here
  del num_workers
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  faulthandler.enable(_STDERR, all_threads=False)
  cv2.setNumThreads(1)
  board.put(worker, Entry(os.getpid()))
  _here = _Here(board, worker, timeout)
  processes.end_with(parent)


def number() -> int | None:
  """Which worker this process is; None if it is none."""
  return None if _here is None else _here.worker


@contextlib.contextmanager
def reading(index: int) -> Iterator[Callable[[str], None]]:
  """Notes that this process reads a video inside, if it is a worker.

  Args:
    index: The video's row in its source.

  Yields:
    A function that notes the video's id, once that is known.
  """
  here = _here
  if here is None:
    yield lambda name: None
    return
  began = Entry(os.getpid(), index, time.monotonic())
  here.board.put(here.worker, began)
  if here.timeout:
    # Ends the process from a thread that needs no lock of Python's.
    faulthandler.dump_traceback_later(here.timeout, exit=True, file=_STDERR)
  try:
    yield lambda name: here.board.put(
      here.worker, dataclasses.replace(began, name=name)
    )
  finally:
    if here.timeout:
      faulthandler.cancel_dump_traceback_later()
    here.board.put(here.worker, Entry(os.getpid()))


@dataclasses.dataclass(frozen=True)
class Death:
  """The end of one worker, or of several at once.

  Attributes:
    code: Of the process: a status, or minus the number of a signal.
    time: When it was noticed, in seconds of `time.monotonic`.
    entries: What those that ended were doing; none if it had not started.
  """

  code: int
  time: float
  entries: tuple[Entry, ...]

  @classmethod
  def of(cls, error: RuntimeError, board: Board) -> 'Death | None':
    """What Grain's error says, if it is about a worker that ended."""
    # Grain has no class for it, nor does it say which worker it was.
    found = re.search(
      r'terminated unexpectedly with exit code (-?\d+)', str(error)
    )
    if found is None:
      return None
    alive = {process.pid for process in multiprocessing.active_children()}
    return cls(
      int(found[1]),
      time.monotonic(),
      tuple(e for e in board.entries() if e.process and e.process not in alive),
    )

  @property
  def cause(self) -> str:
    """The code in words."""
    if self.code >= 0:
      return f'exit status {self.code}'
    try:
      return signal.Signals(-self.code).name
    except ValueError:
      return f'signal {-self.code}'


class Blame:
  """Finds out which videos of a source end workers.

  Attributes:
    videos: The error of each, by its row in the source.
  """

  def __init__(self, where: str, timeout: int | float):
    self._where, self._timeout = where, timeout
    self._unexplained = self._calm = 0
    self._spared: set[int] = set()
    self.videos: dict[int, VideoError] = {}

  def calm(self) -> None:
    """Notes that a batch has come."""
    self._calm += 1
    if self._calm >= _CALM:
      self._unexplained = 0

  def add(self, death: Death) -> None:
    """Blames the videos that were being read.

    One that was read while somebody else ended the worker, as the system does
    when memory runs out, is blamed the second time.

    Args:
      death: What happened.

    Raises:
      WorkersError: It happened too often without a video to blame, or before a
        worker had started.
    """
    if not death.entries:
      raise WorkersError(
        f'A data worker ended ({death.cause}) before it had started. Python '
        'runs the main script again in each: what starts training must stand '
        "below `if __name__ == '__main__':`. With data.num_workers=0 there are "
        'none.'
      )
    blamed = []
    for entry in death.entries:
      if entry.index < 0 or entry.index in self.videos:
        continue
      if death.code in _FROM_OUTSIDE and entry.index not in self._spared:
        self._spared.add(entry.index)
        continue
      error = self._error(entry, death)
      self.videos[entry.index] = error
      blamed.append(error)
    for error in blamed:
      _log.warning(
        'A data worker has ended; the workers start again without %s', error
      )
    self._calm = 0
    if blamed:
      return
    self._unexplained += 1
    if self._unexplained > _MAX_UNEXPLAINED:
      raise WorkersError(
        f'Data workers ended {self._unexplained} times in a row, the last by '
        f'{death.cause}, and no video explains it. SIGKILL comes from the '
        'system when memory runs out, SIGBUS when shared memory does '
        '(/dev/shm): data.num_workers and data.read_buffer decide how much '
        'is used. What else they said stands above.'
      )
    _log.warning('A data worker has ended (%s) and starts again', death.cause)

  def _error(self, entry: Entry, death: Death) -> VideoError:
    name = entry.name or f'video {entry.index} of {self._where}'
    took = death.time - entry.since
    if self._timeout and death.code == 1 and took >= self._timeout:
      return VideoError('timeout', name, f'over {self._timeout:g} s')
    return VideoError('crashed', name, death.cause)


def memory(process: int) -> int | None:
  """Bytes of memory that a process holds; None where nobody says so.

  What it shares with others counts in parts, where the system can tell.

  Args:
    process: Its number.
  """
  folder = f'/proc/{process}'
  try:
    with open(f'{folder}/smaps_rollup') as file:
      for line in file:
        if line.startswith('Pss:'):
          return int(line.split()[1]) * 1024
  except OSError:
    pass
  try:
    with open(f'{folder}/statm') as file:
      return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')
  except OSError:
    return None
