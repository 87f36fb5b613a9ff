"""One batch of videos in, clips out: the work that a data worker does.

What a row of the stream holds depends on the seed and on the row's position in
the stream alone. Workers, hosts and earlier rows have no part in it.
"""

import copy
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from vivit_mae.data import (
  augment,
  decode,
  labels,
  reading,
  transforms,
)
from vivit_mae.data.clip_options import CROPS, ClipOptions, sample_frames
from vivit_mae.data.datasets import Source
from vivit_mae.data.listing import Example

# Draws of another video for a row whose own can't be read. If a quarter of all
# videos are bad, that many failures in a row happen once in 10^19.
_MAX_TRIES = 32


def row_rng(seed: int, position: int, attempt: int = 0) -> np.random.Generator:
  """The random numbers of one row of the stream.

  Args:
    seed: The run's seed.
    position: Videos before this one, from the start of training.
    attempt: Counts up when a row needs fresh numbers; attempts never overlap.

  Returns:
    A generator that depends on nothing but the arguments.
  """
  return np.random.Generator(
    np.random.Philox(key=[seed, position], counter=[0, 0, 0, attempt])
  )


@dataclasses.dataclass(frozen=True)
class Attempts:
  """Which videos a batch has tried, for the process that counts failures.

  Attributes:
    tried: Indices of all videos that were opened.
    bad: (index, id, reason) of those that could not be read.
    failed: Whether a training row found no readable video at all.
  """

  tried: tuple[int, ...]
  bad: tuple[tuple[int, str, str], ...]
  failed: bool


def blank_batch(
  source: Source,
  rows: int,
  num_frames: int,
  image_size: tuple[int, int],
  pixels: str = 'rgb',
) -> dict[str, Any]:
  """A batch whose rows are all padding.

  Args:
    source: Where the videos come from; says which labels there are.
    rows: Rows of the batch.
    num_frames: Frames of a clip.
    image_size: (height, width) of a clip.
    pixels: See `ClipOptions`.

  Returns:
    `video` black, `index` and labels -1, `valid` False; for 'yuv420' also
    `to_rgb` [rows, 3, 4], see `colour.yuv_to_rgb`.

  Raises:
    ValueError: `pixels` is 'yuv420' and a side of the clip odd.
  """
  clip = decode.Clip(np.zeros(num_frames, int), image_size, pixels=pixels)
  planar = pixels != 'rgb'
  return {
    'video': np.zeros((rows, *clip.shape), np.uint8),
    **({'to_rgb': np.zeros((rows, 3, 4), np.float32)} if planar else {}),
    'index': np.full(rows, -1, np.int32),
    'valid': np.zeros(rows, bool),
    **labels.blank(rows, source.class_names, source.multi_label),
  }


def read_pixels(
  example: Example,
  plan: Callable[[decode.VideoInfo], Sequence[decode.Clip]],
) -> dict[str, Any]:
  """Decodes clips of a video: what `blank_batch` has of pixels.

  Args:
    example: The video.
    plan: See `decode.read_clips`; all clips have the same kind of pixels.

  Returns:
    `video`: an array for each clip; for 'yuv420' also `to_rgb` [3, 4].
  """
  found: dict[str, Any] = {}

  def noting(info: decode.VideoInfo) -> Sequence[decode.Clip]:
    clips = plan(info)
    if any(clip.pixels != 'rgb' for clip in clips):
      found['to_rgb'] = info.to_rgb
    return clips

  found['video'] = decode.read_clips(
    example.video, noting, example.id, segment=example.segment
  )
  return found


@dataclasses.dataclass(frozen=True)
class Loader:
  """Turns positions of the stream into random clips. Picklable.

  Attributes:
    source: The videos.
    options: What to cut out of them.
    num_frames: Frames of a clip.
    image_size: (height, width) of a clip.
    seed: The run's seed.
    refused: Videos that are not to be opened, by index, and why.
  """

  source: Source
  options: ClipOptions
  num_frames: int
  image_size: tuple[int, int]
  seed: int
  refused: Mapping[int, decode.VideoError] = dataclasses.field(
    default_factory=dict
  )

  def __call__(self, rows: Int[np.ndarray, 'v 2']) -> dict[str, Any]:
    """Loads a batch.

    Args:
      rows: Places in the stream, and rows of the videos in the source.

    Returns:
      `video`, `index`, `valid`, what `labels.blank` says, and `attempts`. Clips
      of one video are consecutive. Another video takes the place of one that
      can't be read.
    """
    repeats = self.options.repeats
    batch = blank_batch(
      self.source,
      len(rows) * repeats,
      self.num_frames,
      self.image_size,
      self.options.pixels,
    )
    tried: dict[int, None] = {}
    bad: dict[int, tuple[int, str, str]] = {}
    failed = False
    for row, (position, index) in enumerate(rows.tolist()):
      for attempt in range(_MAX_TRIES):
        rng = row_rng(self.seed, position, attempt)
        if attempt:
          index = int(rng.integers(len(self.source)))
        tried[index] = None
        try:
          example, pixels = reading.read(
            self.source,
            index,
            functools.partial(self._clips, rng),
            self.refused,
          )
        except decode.VideoError as error:
          bad[index] = (index, error.name, str(error))
          continue
        here = slice(row * repeats, (row + 1) * repeats)
        for name, array in pixels.items():
          batch[name][here] = array
        batch['index'][here] = index
        batch['valid'][here] = True
        labels.put(batch, here, example.label)
        break
      else:
        failed = True
    batch['attempts'] = Attempts(tuple(tried), tuple(bad.values()), failed)
    return batch

  def _clips(
    self, rng: np.random.Generator, example: Example
  ) -> dict[str, Any]:
    """Decodes one video once, for all of its clips; see `read_pixels`."""
    rng = copy.deepcopy(rng)  # a second try draws the same numbers
    options = self.options
    crop, antialias = CROPS[options.crop]
    windows = options.repeats if options.repeat == 'windows' else 1

    def plan(info: decode.VideoInfo) -> list[decode.Clip]:
      frames = sample_frames(
        info, self.num_frames, options, count=windows, rng=rng
      )
      return [
        decode.Clip(
          frames=frames[k % windows],
          size=self.image_size,
          box=crop(info.height, info.width, self.image_size, options, rng),
          flip=options.flip and transforms.draw_flip(rng),
          antialias=antialias,
          pixels=options.pixels,
        )
        for k in range(options.repeats)
      ]

    pixels = read_pixels(example, plan)
    policy = options.policy()
    if policy is not None:
      pixels['video'] = [
        augment.rand_augment(clip, policy, rng) for clip in pixels['video']
      ]
    return pixels
