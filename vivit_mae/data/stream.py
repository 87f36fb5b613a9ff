"""Batches read by Grain, in this process or in workers that may end."""

import dataclasses
import functools
import os
import weakref
from collections.abc import Iterator
from typing import Any

import grain
import numpy as np
from absl import flags

from vivit_mae.data import handover, processes, workers
from vivit_mae.data.clip_options import ClipOptions
from vivit_mae.data.loading import Loader
from vivit_mae.data.views import ViewLoader

# Batches that wait in the queue of each worker.
_QUEUE = 1


class Stream(Iterator[dict[str, Any]]):
  """The batches of a loader, in order, some of them read ahead.

  A worker that ends, by a fault in a decoder or because a video takes too long,
  stops nothing: the workers start again from the batch that is due, and refuse
  the video that was to blame. What they return is what they would have returned
  had it been refused from the start.
  """

  def __init__(
    self,
    rows: grain.MapDataset,
    loader: Loader | ViewLoader,
    share: slice,
    options: ClipOptions,
  ):
    """Prepares the stream; nothing is read yet.

    Args:
      rows: What the loader takes, for each batch.
      loader: Makes the batches.
      share: The rows of each batch that are this process's.
      options: How many workers there are, and how far they read ahead.
    """
    self._rows = rows
    self._loader = loader
    self._share = share
    self._options = options
    self._blame = workers.Blame(loader.source.name, options.video_timeout)
    self._done = 0
    # What is open; none while the stream is closed.
    self._opened: list[_Opened] = []
    # For those who forget to close: Grain's iterators end badly with Python.
    weakref.finalize(self, _close, self._opened)

  def __next__(self) -> dict[str, Any]:
    while True:
      try:
        batch = self._read()
      except RuntimeError as error:
        board = self._board
        death = board and workers.Death.of(error, board)
        if not death:
          raise
        self.close()
        self._blame.add(death)
        continue
      self._done += 1
      self._blame.calm()
      return {key: self._owned(value) for key, value in batch.items()}

  @property
  def _board(self) -> workers.Board | None:
    return self._opened[0].board if self._opened else None

  def _read(self) -> dict[str, Any]:
    if self._opened:
      return next(self._opened[0].batches)
    board = slots = None
    if self._options.num_workers:
      board = workers.Board(self._options.num_workers)
      # One that is filled, those that wait, and one that is copied.
      slots = handover.Handover(
        self._options.num_workers, self._options.read_buffer + _QUEUE + 1
      )
    batches = iter(self._open(board, slots))
    self._opened.append(_Opened(batches, board, slots))
    with processes.without_ctrl_c():
      return next(batches)  # starts the workers

  def _owned(self, value: Any) -> Any:
    """Copies what came from a worker, in memory that is shared with it."""
    slots = self._opened[0].slots
    if slots is not None and isinstance(value, handover.Lent):
      return slots.take(value)
    # Such an array that is still alive when Python ends makes it print errors.
    if type(value) is not np.ndarray and isinstance(value, np.ndarray):
      return np.array(value)
    return value

  def _open(
    self, board: workers.Board | None, slots: handover.Handover | None
  ) -> grain.IterDataset:
    """Grain's stream, from the batch that is due."""
    options = self._options
    loader = dataclasses.replace(self._loader, refused=dict(self._blame.videos))
    batches = self._rows[self._done :].map(_Load(loader, self._share, slots))
    stream = batches.to_iter_dataset(
      grain.ReadOptions(num_threads=1, prefetch_buffer_size=options.read_buffer)
    )
    if board is None:
      return stream
    if not flags.FLAGS.is_parsed():
      flags.FLAGS.mark_as_parsed()  # Grain reads flags to start workers.
    return stream.mp_prefetch(
      grain.MultiprocessingOptions(
        num_workers=options.num_workers, per_worker_buffer_size=_QUEUE
      ),
      worker_init_fn=functools.partial(
        workers.start,
        os.getpid(),
        board,
        float(options.video_timeout),
      ),
    )

  def describe(self) -> str:
    """What the processes use, in one line; '' where nobody says so."""
    options = self._options
    ours = workers.memory(os.getpid())
    entries = self._board.entries() if self._board else []
    theirs = [workers.memory(entry.process) for entry in entries]
    if ours is None or None in theirs:
      return ''
    # One more than it reads ahead waits to be put into a worker's queue.
    ahead = max(1, len(theirs)) * options.read_buffer
    ahead += len(theirs) * (_QUEUE + 1)
    used = [size for size in theirs if size is not None]
    workers_use = (
      f'{len(used)} x {max(used) / 1e6:.0f} MB in workers, ' if used else ''
    )
    return f'{workers_use}{ours / 1e6:.0f} MB here; up to {ahead} batches ahead'

  def close(self) -> None:
    """Stops the workers. The next batch would start new ones."""
    _close(self._opened)


@dataclasses.dataclass(frozen=True)
class _Opened:
  """Grain's iterator and, with workers, what they share with this process."""

  batches: Any
  board: workers.Board | None
  slots: handover.Handover | None


def _close(opened: list[_Opened]) -> None:
  while opened:
    found = opened.pop()
    for part in (found.batches, found.board, found.slots):
      if part is not None:
        part.close()


class _Load:
  """Loads this process's rows of a batch. Picklable."""

  def __init__(
    self,
    loader: Loader | ViewLoader,
    share: slice,
    slots: handover.Handover | None,
  ):
    self._loader = loader
    self._share = share
    self._slots = slots

  def __call__(self, rows: np.ndarray) -> dict[str, Any]:
    batch = self._loader(rows[self._share])
    worker = workers.number()
    if self._slots is not None and worker is not None:
      batch['video'] = self._slots.lend(worker, batch['video'])
    return batch
