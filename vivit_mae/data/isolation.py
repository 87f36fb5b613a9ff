"""Work in processes that may crash or hang, without the caller doing so.

Python's own pools break as a whole when one process of theirs dies, and bear
with one that hangs for ever.
"""

import contextlib
import dataclasses
import functools
import itertools
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import connection
from typing import Any

from vivit_mae.data import processes


@dataclasses.dataclass(frozen=True)
class Failure:
  """Why a job gave no result.

  Attributes:
    kind: 'crashed' or 'timeout'.
    detail: What was seen of it, in a few words.
  """

  kind: str
  detail: str


@dataclasses.dataclass(eq=False)
class _Worker:
  """A process, and what it is at.

  Attributes:
    process: The process.
    pipe: Our end of the line to it.
    job: Number and content of its job; None when it has none.
    ready: Whether it has come up; before that no job is to blame.
    deadline: When its time is up.
  """

  process: Any
  pipe: connection.Connection
  job: tuple[int, Any] | None = None
  ready: bool = False
  deadline: float = float('inf')


class Pool:
  """Processes that call a function, once at a time each; a context manager.

  One that dies or takes too long is replaced, and its job counts as failed.
  """

  def __init__(
    self,
    function: Callable[[Any], Any],
    num_workers: int,
    timeout: int | float,
  ):
    """Starts nothing yet.

    Args:
      function: What to do; defined in a module, so that processes can find it.
      num_workers: How many processes, at most.
      timeout: Seconds for each job.

    Raises:
      ValueError: If one of them is not positive.
    """
    if num_workers < 1:
      raise ValueError(f'There are {num_workers} workers; 1 is the least.')
    if not timeout > 0:
      raise ValueError(f'The time limit is {timeout} s; it is above 0.')
    self._function = function
    self._num_workers = num_workers
    self._timeout = timeout
    self._context = multiprocessing.get_context('spawn')
    self._workers: list[_Worker] = []

  def __enter__(self) -> 'Pool':
    return self

  def __exit__(self, *error):
    for worker in list(self._workers):
      self._end(worker)

  def run(self, jobs: Iterable[Any]) -> Iterator[tuple[int, Any]]:
    """Calls the function for each job, several at a time.

    Args:
      jobs: Its arguments, taken one by one as processes become free.

    Yields:
      Number and result of each job, in the order in which they are done. The
      result is a `Failure` where the function raised, or the process died or
      took too long.

    Raises:
      RuntimeError: If a process dies before it has begun to work.
    """
    waiting = enumerate(jobs)
    while True:
      free = self._num_workers - len(self._busy())
      for job in itertools.islice(waiting, free):
        idle = (worker for worker in self._workers if worker.job is None)
        worker = next(idle, None) or self._start()
        yield from self._begin(worker, job)
      if not self._busy():
        return
      yield from self._collect()

  def _busy(self) -> list[_Worker]:
    return [worker for worker in self._workers if worker.job is not None]

  def _start(self) -> _Worker:
    ours, theirs = self._context.Pipe()
    process = self._context.Process(
      target=_work,
      args=(self._function, theirs, os.getpid()),
      daemon=True,
    )
    with processes.without_ctrl_c():
      process.start()
    theirs.close()
    worker = _Worker(process, ours)
    self._workers.append(worker)
    return worker

  def _begin(
    self, worker: _Worker, job: tuple[int, Any]
  ) -> Iterator[tuple[int, Any]]:
    """Gives a worker a job, as soon as it is ready."""
    worker.job = job
    if not worker.ready:
      return
    worker.deadline = time.monotonic() + self._timeout
    try:
      worker.pipe.send(job[1])
    except OSError:
      yield self._lose(worker)

  def _collect(self) -> Iterator[tuple[int, Any]]:
    """Waits until something happens, and yields the jobs that are over."""
    busy = self._busy()
    first = min(worker.deadline for worker in busy)
    wait = None if first == float('inf') else max(0, first - time.monotonic())
    talking = connection.wait([worker.pipe for worker in busy], wait)
    for worker in busy:
      assert worker.job is not None
      if worker.pipe not in talking:
        if time.monotonic() > worker.deadline:
          number = worker.job[0]
          self._end(worker)
          detail = f'not done within {self._timeout:g} s'
          yield number, Failure('timeout', detail)
        continue
      try:
        result = worker.pipe.recv()
      except (EOFError, OSError):
        yield self._lose(worker)
        continue
      if not worker.ready:
        worker.ready = True
        yield from self._begin(worker, worker.job)
        continue
      number = worker.job[0]
      worker.job, worker.deadline = None, float('inf')
      yield number, result

  def _lose(self, worker: _Worker) -> tuple[int, Failure]:
    """Clears up after a process that died."""
    assert worker.job is not None
    worker.process.join(1)
    code = worker.process.exitcode
    self._end(worker)
    if not worker.ready:
      raise RuntimeError(
        f'A worker process ended before it began to work (exit status {code}).'
      )
    return worker.job[0], Failure('crashed', f'its process {_cause(code)}')

  def _end(self, worker: _Worker) -> None:
    worker.process.kill()
    worker.process.join()
    worker.process.close()
    worker.pipe.close()
    self._workers.remove(worker)


class Calls:
  """A function that is called in other processes; a context manager.

  Several threads may call it at a time, each call in a process of its own.
  """

  def __init__(self, function: Callable[[Any], Any]):
    """Starts nothing yet; see `Pool`. Calls may take for ever."""
    self._function = function
    self._lock = threading.Lock()
    self._idle: list[Pool] = []

  def __enter__(self) -> 'Calls':
    return self

  def __exit__(self, *error):
    for pool in self._idle:
      pool.__exit__(*error)

  def __call__(self, job: Any) -> Any:
    """What the function returns; a `Failure` if its process ended instead.

    What it raises is raised here.
    """
    with self._lock:
      pool = self._idle.pop() if self._idle else self._new()
    try:
      ((_, result),) = pool.run([job])
    finally:
      with self._lock:
        self._idle.append(pool)
    if isinstance(result, _Raised):
      raise result.error
    return result

  def _new(self) -> Pool:
    function = functools.partial(_catch, self._function)
    return Pool(function, num_workers=1, timeout=math.inf)


@dataclasses.dataclass(frozen=True)
class _Raised:
  """What a function has raised."""

  error: Exception


def _catch(function: Callable[[Any], Any], job: Any) -> Any:
  try:
    return function(job)
  except Exception as error:
    return _Raised(error)


def _cause(code: int | None) -> str:
  """How a process ended."""
  if code is not None and code < 0:
    with contextlib.suppress(ValueError):
      return f'was ended by {signal.Signals(-code).name}'
  return f'ended with exit status {code}'


def _work(
  function: Callable[[Any], Any], pipe: connection.Connection, parent: int
) -> None:
  """Does jobs until the pipe is closed, and no longer than the parent lives."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  processes.end_with(parent)
  pipe.send(None)
  while True:
    try:
      job = pipe.recv()
    except EOFError:
      return
    try:
      result = function(job)
    except Exception as error:
      result = Failure('crashed', f'{type(error).__name__}: {error}')
    pipe.send(result)
