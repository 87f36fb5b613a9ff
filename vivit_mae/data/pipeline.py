"""Batches for training and evaluation: Grain over encoded videos.

The stream is a function of the seed, the data and the batch size. Videos are
shuffled anew in every epoch by index, and batched before workers or hosts share
the work, so their numbers change nothing; where the stream stands is one count.
"""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import grain
import numpy as np
from etils import epath

from vivit_mae.data import labels
from vivit_mae.data.bad_videos import BadVideos, BadVideosError
from vivit_mae.data.clip_options import ClipOptions
from vivit_mae.data.datasets import Source
from vivit_mae.data.loading import Loader
from vivit_mae.data.stream import Stream
from vivit_mae.data.views import ViewLoader

_log = logging.getLogger(__name__)

__all__ = [
  'BadVideosError',
  'TrainIterator',
  'eval_iterator',
  'multiview_iterator',
  'train_iterator',
]

# Videos until the stream ends. Grain's own endless repetition is longer, but
# overflows in batches of one.
_ENDLESS = 2**53

# Batches after which the memory of the processes has its usual size.
_SETTLED = 10


class TrainIterator(Iterator[dict[str, np.ndarray]]):
  """The endless stream of training batches, from `train_iterator`.

  Each batch holds `video` uint8 [rows, t, h, w, 3], `index` int32 [rows] (the
  video's row in its source), `valid` bool [rows] and, if the source has
  classes, `label`: int32 [rows] (-1 = none), multi-hot float32 [rows, classes]
  for multi-label data (-1 throughout = none), or a dict of the former for
  several heads. Rows are this process's share of the videos times `repeats`;
  the clips of one video are consecutive.
  """

  def __init__(
    self,
    loader: Loader,
    seed: int,
    batch_size: int,
    process_index: int,
    process_count: int,
    report: epath.Path | None = None,
  ):
    self._loader = loader
    self._seed = seed
    self._batch_size = batch_size
    self._share = _share(batch_size, process_index, process_count)
    self._bad = BadVideos(
      len(loader.source),
      loader.options.max_bad_fraction,
      loader.source.name,
      report,
    )
    self._row = self._batches_read = 0
    self._stream: Stream | None = None

  @property
  def bad(self) -> list[tuple[str, str]]:
    """(id, reason) of each video found unreadable so far."""
    return self._bad.found

  def __next__(self) -> dict[str, np.ndarray]:
    if self._stream is None:
      self._stream = self._start()
    batch = next(self._stream)
    self._bad.add(batch.pop('attempts'))
    self._row += self._batch_size
    self._batches_read += 1
    if self._batches_read == _SETTLED and (used := self._stream.describe()):
      _log.info('data: %s, of %.3g MB', used, batch['video'].nbytes / 1e6)
    labels.nest(batch)
    return batch

  def get_state(self) -> dict[str, int]:
    """Where the stream stands.

    Returns:
      `{'row': n}`: n videos have been consumed, over all processes.
    """
    return {'row': self._row}

  def set_state(self, state: Mapping[str, int]) -> None:
    """Goes on where another iterator, with whatever workers, stood.

    Args:
      state: From `get_state`.

    Raises:
      ValueError: If it is no such state.
    """
    if set(state) != {'row'} or int(state['row']) < 0:
      raise ValueError(
        f"The state of the data is {{'row': videos consumed}}; got {state}."
      )
    self.close()
    self._row = int(state['row'])

  def close(self) -> None:
    """Stops the workers. The next batch would start new ones."""
    if self._stream is not None:
      self._stream.close()
      self._stream = None
    self._bad.summarise()

  def _start(self) -> Stream:
    count = len(self._loader.source)
    order = (
      grain.MapDataset.range(count)
      .seed(self._seed)
      .shuffle()
      .repeat(_ENDLESS // count)
      .map_with_index(_with_position)
    )
    rows = order[self._row :].batch(self._batch_size)
    return Stream(rows, self._loader, self._share, self._loader.options)


def train_iterator(
  source: Source,
  data: Mapping[str, Any],
  *,
  num_frames: int,
  image_size: tuple[int, int],
  batch_size: int,
  seed: int,
  process_index: int = 0,
  process_count: int = 1,
  report_dir: epath.PathLike | None = None,
) -> TrainIterator:
  """Random clips of all videos, each once in an epoch, for ever.

  Args:
    source: The videos.
    data: The config's `data` section; see `clip_options.ClipOptions`.
    num_frames: Frames of a clip.
    image_size: (height, width) of a clip.
    batch_size: Videos of a batch, over all processes.
    seed: Decides the order and all random choices.
    process_index: Which part of each batch is this process's.
    process_count: Into how many parts batches are split.
    report_dir: A folder for the list of the videos that can't be read,
      `bad_videos.csv`, or one for each of several processes; None = no list.

  Returns:
    The stream, at its start.

  Raises:
    ValueError: If a field of `data` or the seed is unknown or impossible, or if
      the batch does not split evenly.
  """
  if not 0 <= seed < 2**32:
    raise ValueError(f'seed is {seed}; it is from 0 to 2**32 - 1.')
  loader = Loader(
    source,
    ClipOptions.from_data(data),
    num_frames,
    (int(image_size[0]), int(image_size[1])),
    seed,
  )
  report = None
  if report_dir is not None:
    which = f'-{process_index}' if process_count > 1 else ''
    report = epath.Path(report_dir) / f'bad_videos{which}.csv'
  return TrainIterator(
    loader, seed, batch_size, process_index, process_count, report
  )


def eval_iterator(
  source: Source,
  data: Mapping[str, Any],
  *,
  num_frames: int,
  image_size: tuple[int, int],
  batch_size: int,
  process_index: int = 0,
  process_count: int = 1,
) -> Iterator[dict[str, np.ndarray]]:
  """One clip from the middle of each video, its centre, in order, once.

  Args:
    source: The videos.
    data: The config's `data` section; strides, workers and the share of bad
      videos are used, random crops, flips and repeats are not.
    num_frames: Frames of a clip.
    image_size: (height, width) of a clip.
    batch_size: Videos of a batch, over all processes.
    process_index: Which part of each batch is this process's.
    process_count: Into how many parts batches are split.

  Yields:
    Batches as in training, all of one size: the rows that fill up the last one,
    and those of videos that can't be read, have `valid` False, index -1.

  Raises:
    ValueError: As in `train_iterator`, and if too many videos are bad.
  """
  batches = multiview_iterator(
    source,
    data,
    num_frames=num_frames,
    image_size=image_size,
    batch_size=batch_size,
    process_index=process_index,
    process_count=process_count,
  )
  for batch in batches:
    del batch['view']
    yield batch


def multiview_iterator(
  source: Source,
  data: Mapping[str, Any],
  *,
  num_frames: int,
  image_size: tuple[int, int],
  batch_size: int,
  num_segments: int = 1,
  num_crops: int = 1,
  process_index: int = 0,
  process_count: int = 1,
) -> Iterator[dict[str, np.ndarray]]:
  """All views of all videos, in order, each once.

  `data.sampling` says where the segments lie: spread over the video from its
  start to its end, or, for 'segments', interleaved. The crops are spread over
  the longer side of the frame, from one end to the other. One segment is the
  middle of the video and one crop the centre, as in `eval_iterator`.

  Args:
    source: The videos.
    data: The config's `data` section; how frames are chosen, `short_side`,
      workers and the share of bad videos are used, what is random is not.
    num_frames: Frames of a clip.
    image_size: (height, width) of a clip.
    batch_size: Views of a batch, over all processes.
    num_segments: Stretches of time of each video.
    num_crops: Places of the picture for each of them.
    process_index: Which part of each batch is this process's.
    process_count: Into how many parts batches are split.

  Yields:
    Batches as in training, all of one size, and `view` int32 [rows]: segment x
    num_crops + crop. The rows that fill up the last batch, and those of videos
    that can't be read, have `valid` False, `index` and `view` -1. Views of one
    video are consecutive, and decoded together where they share a batch.

  Raises:
    ValueError: As in `train_iterator`, if a number of views is impossible, and
      if too many videos are bad.
  """
  options = ClipOptions.from_data(data)
  size = (int(image_size[0]), int(image_size[1]))
  loader = ViewLoader(
    source, options, num_frames, size, num_segments, num_crops
  )
  share = _share(batch_size, process_index, process_count)
  pairs = loader.pairs(batch_size)
  rows = grain.MapDataset.range(len(pairs)).map(pairs).batch(batch_size)
  bad = BadVideos(len(source), options.max_bad_fraction, source.name)
  with contextlib.closing(Stream(rows, loader, share, options)) as stream:
    for batch in stream:
      bad.add(batch.pop('attempts'))
      labels.nest(batch)
      yield batch
  bad.summarise()


def _share(batch_size: int, process_index: int, process_count: int) -> slice:
  """The rows of every batch that one process loads."""
  if batch_size < 1 or batch_size % process_count:
    raise ValueError(
      f'batch_size is {batch_size}; it must be a multiple of the number of '
      f'processes, {process_count}.'
    )
  rows = batch_size // process_count
  return slice(process_index * rows, (process_index + 1) * rows)


def _with_position(position: int, index: int) -> np.ndarray:
  return np.asarray([position, index], np.int64)
