"""Evaluation clips: the same views of every video, whenever they are asked for.

A view is one stretch of time and one crop. Views of a video are decoded
together, as far as they are asked for together.
"""

import dataclasses
import functools
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Int

from vivit_mae.data import decode, labels, loading, reading, transforms
from vivit_mae.data.clip_options import ClipOptions, sample_frames
from vivit_mae.data.datasets import Source
from vivit_mae.data.listing import Example
from vivit_mae.data.loading import Attempts


@dataclasses.dataclass(frozen=True)
class ViewLoader:
  """Turns (video, view) pairs into clips. Picklable.

  View v shows segment v // num_crops of the time, cropped at place
  v % num_crops.

  Attributes:
    source: The videos.
    options: How frames are chosen; random crops and changes are not used.
    num_frames: Frames of a clip.
    image_size: (height, width) of a clip.
    num_segments: Stretches of time, as `data.sampling` spreads them; one alone
      is the middle.
    num_crops: Places along the longer side; one alone is the centre.
    refused: Videos that are not to be opened, by index, and why.
  """

  source: Source
  options: ClipOptions
  num_frames: int
  image_size: tuple[int, int]
  num_segments: int = 1
  num_crops: int = 1
  refused: Mapping[int, decode.VideoError] = dataclasses.field(
    default_factory=dict
  )

  def __post_init__(self):
    for field in ('num_segments', 'num_crops'):
      if getattr(self, field) < 1:
        raise ValueError(
          f'{field} is {getattr(self, field)}; it is at least 1.'
        )

  @property
  def num_views(self) -> int:
    """Views of each video."""
    return self.num_segments * self.num_crops

  def pairs(self, batch_size: int) -> 'ViewPairs':
    """All (video, view) pairs, and padding up to whole batches."""
    return ViewPairs(len(self.source), self.num_views, batch_size)

  def __call__(self, rows: Int[np.ndarray, 'v 2']) -> dict[str, Any]:
    """Loads a batch.

    Args:
      rows: The video's row in the source, -1 = padding, and the view.

    Returns:
      `video`, `index`, `view`, `valid`, what `labels.blank` says, and
      `attempts`. Padding, and a video that can't be read, leave rows that are
      not valid: black, all numbers -1.
    """
    batch = loading.blank_batch(
      self.source,
      len(rows),
      self.num_frames,
      self.image_size,
      self.options.pixels,
    )
    batch['view'] = np.full(len(rows), -1, np.int32)
    tried, bad = [], []
    groups = itertools.groupby(enumerate(rows[:, 0].tolist()), lambda r: r[1])
    for index, group in groups:
      if index < 0:
        continue
      first, count = next(group)[0], 1 + sum(1 for _ in group)
      here = slice(first, first + count)
      views = rows[here, 1]
      tried.append(index)
      try:
        example, pixels = reading.read(
          self.source,
          index,
          functools.partial(self._clips, views.tolist()),
          self.refused,
        )
      except decode.VideoError as error:
        bad.append((index, error.name, str(error)))
        continue
      for name, array in pixels.items():
        batch[name][here] = array
      batch['index'][here] = index
      batch['view'][here] = views
      batch['valid'][here] = True
      labels.put(batch, here, example.label)
    batch['attempts'] = Attempts(tuple(tried), tuple(bad), False)
    return batch

  def _clips(self, views: list[int], example: Example) -> dict[str, Any]:
    """Decodes one video once, for some of its views."""

    def plan(info: decode.VideoInfo) -> list[decode.Clip]:
      segments = sample_frames(
        info, self.num_frames, self.options, count=self.num_segments, rng=None
      )
      return [
        decode.Clip(
          frames=segments[view // self.num_crops],
          size=self.image_size,
          box=transforms.spread_crop(
            info.height,
            info.width,
            self.image_size,
            view % self.num_crops,
            self.num_crops,
            self.options.short_side,
          ),
          flip=False,
          antialias=True,
          pixels=self.options.pixels,
        )
        for view in views
      ]

    return loading.read_pixels(example, plan)


@dataclasses.dataclass(frozen=True)
class ViewPairs:
  """Row of the stream -> (video or -1, view): video by video. Picklable.

  Attributes:
    num_videos: Videos in the source.
    num_views: Views of each.
    batch_size: Rows of a batch, over all processes.
  """

  num_videos: int
  num_views: int
  batch_size: int

  def __len__(self) -> int:
    rows = self.num_videos * self.num_views
    return -(-rows // self.batch_size) * self.batch_size

  def __call__(self, row: int) -> Int[np.ndarray, '2']:
    """The pair of a row."""
    video, view = divmod(row, self.num_views)
    return np.asarray(
      [video if video < self.num_videos else -1, view], np.int64
    )
