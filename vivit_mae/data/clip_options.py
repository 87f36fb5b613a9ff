"""What is cut out of a video: the fields of `config.data` about clips."""

import dataclasses
import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from vivit_mae.data import augment, decode, sampling, transforms
from vivit_mae.data.datasets import SOURCE_FIELDS

REPEATS = ('crops', 'windows')


@dataclasses.dataclass(frozen=True)
class ClipOptions:
  """What is cut out of a video: the fields of `config.data` about clips.

  Attributes:
    stride: Distance of consecutive frames of a clip, in frames.
    stride_seconds: The same in seconds, instead of `stride`.
    sampling: How frames are chosen, a key of `sampling.SAMPLINGS`.
    crop: A key of `CROPS`.
    crop_scale: For 'random_resized': least and greatest part of the area.
    crop_ratio: For 'random_resized': least and greatest width over height.
    crop_jitter: For 'jittered': least and greatest factor of a side.
    short_side: For 'jittered', 'center' and in evaluation: what the shorter
      side of a frame is resized to before the cut; None = the crop just fits.
    flip: Whether half of the clips are mirrored left to right.
    rand_augment: A policy, such as 'rand-m7-n4-mstd0.5-inc1'; '' = none. It
      changes the frames after the crop, as timm does it for images, while
      VideoMAE has it before: then most of its work would be cut away. What
      moves in from outside is grey either way.
    rand_augment_interpolation: 'bicubic' or 'bilinear', where it turns frames.
    pixels: 'rgb', or 'yuv420': planes as videos store them, half the bytes and
      less work here; the device makes RGB of them. Crops then begin and end at
      even pixels.
    repeats: Clips of one decoded video.
    repeat: 'crops' gives them the same frames and new crops (VideoMAE V2),
      'windows' also new frames (MAE-ST).
    num_workers: Processes that decode; 0 decodes in this one: a crash inside
      FFmpeg then ends it, where it would cost no more than a worker.
    read_buffer: Batches read ahead, in each process.
    device_prefetch: Batches on the devices ahead of the step that takes them;
      0 fetches each when it is due.
    video_timeout: Seconds until a worker gives up on one video, all tries
      included, and on its own life; 0 = never.
    max_bad_fraction: The greatest share of unreadable videos to bear with.
  """

  stride: int = 4
  stride_seconds: int | float | None = None
  sampling: str = 'stride'
  crop: str = 'multi_scale'
  crop_scale: Sequence[int | float] = (0.5, 1.0)
  crop_ratio: Sequence[int | float] = (3 / 4, 4 / 3)
  crop_jitter: Sequence[int | float] = (0.9, 1.33)
  short_side: int | None = None
  flip: bool = False
  rand_augment: str = ''
  rand_augment_interpolation: str = 'bicubic'
  pixels: str = 'rgb'
  repeats: int = 1
  repeat: str = 'crops'
  num_workers: int = 0
  read_buffer: int = 1
  device_prefetch: int = 2
  video_timeout: int | float = 120.0
  max_bad_fraction: int | float = 0.25

  def __post_init__(self):
    for field, choices in (
      ('sampling', tuple(sampling.SAMPLINGS)),
      ('crop', tuple(CROPS)),
      ('pixels', decode.PIXELS),
      ('repeat', REPEATS),
    ):
      if getattr(self, field) not in choices:
        raise ValueError(
          f'data.{field} is {getattr(self, field)!r}; known are '
          f'{", ".join(map(repr, choices))}.'
        )
    for field, least in (
      ('stride', 1),
      ('repeats', 1),
      ('num_workers', 0),
      ('read_buffer', 1),
      ('device_prefetch', 0),
      ('video_timeout', 0),
    ):
      if getattr(self, field) < least:
        raise ValueError(
          f'data.{field} is {getattr(self, field)}; it is at least {least}.'
        )
    if self.stride_seconds is not None and self.stride_seconds <= 0:
      raise ValueError(
        f'data.stride_seconds is {self.stride_seconds}; it is above 0.'
      )
    if self.stride_seconds is not None and self.sampling != 'stride':
      raise ValueError(
        f'data.stride_seconds is {self.stride_seconds}; with data.sampling '
        f"{self.sampling!r} it is None: it goes with 'stride'."
      )
    if not 0 <= self.max_bad_fraction <= 1:
      raise ValueError(
        f'data.max_bad_fraction is {self.max_bad_fraction}; it is a share, '
        'from 0 to 1.'
      )
    if self.rand_augment and self.pixels != 'rgb':
      raise ValueError(
        f'data.rand_augment is {self.rand_augment!r}, which changes RGB '
        f"pixels; data.pixels is {self.pixels!r} and has to be 'rgb'."
      )
    self.policy()  # a slip of the pen is an error from the start

  def policy(self) -> augment.RandAugment | None:
    """What `rand_augment` says; None = nothing."""
    if not self.rand_augment:
      return None
    return augment.RandAugment.parse(
      self.rand_augment, self.rand_augment_interpolation
    )

  @classmethod
  def from_data(cls, data: Mapping[str, Any]) -> 'ClipOptions':
    """Takes what is about clips out of a config's `data` section.

    Args:
      data: The section. Fields that say where the videos are
        (`datasets.SOURCE_FIELDS`) are left to `datasets.source_from`.

    Returns:
      The options.

    Raises:
      ValueError: If a field is unknown, with the nearest known one.
    """
    known = [field.name for field in dataclasses.fields(cls)]
    for name in data:
      if name not in known and name not in SOURCE_FIELDS:
        near = difflib.get_close_matches(name, [*known, *SOURCE_FIELDS], 1)
        hint = f' Did you mean data.{near[0]}?' if near else ''
        raise ValueError(f'Unknown field data.{name}.{hint}')
    return cls(**{name: data[name] for name in known if name in data})


def _multi_scale(height, width, size, options, rng):
  del options
  return transforms.multi_scale_crop(height, width, size, rng)


def _random_resized(height, width, size, options, rng):
  return transforms.random_resized_crop(
    height, width, rng, tuple(options.crop_scale), tuple(options.crop_ratio)
  )


def _jittered(height, width, size, options, rng):
  return transforms.jittered_crop(
    *(height, width, size, rng),
    options.short_side,
    tuple(options.crop_jitter),
  )


def _center(height, width, size, options, rng):
  del rng
  return transforms.center_crop(height, width, size, options.short_side)


# name -> (box of a frame, whether shrinking averages): MAE-ST's, fine-tuning's
# and ViViT's crops resize without averaging, VideoMAE's pretraining with.
CROPS: dict[str, tuple[Callable[..., transforms.Box], bool]] = {
  'multi_scale': (_multi_scale, True),
  'random_resized': (_random_resized, False),
  'jittered': (_jittered, False),
  'center': (_center, True),
}


def sample_frames(
  info: decode.VideoInfo, num_frames: int, options: ClipOptions, **asked: Any
) -> list[Int[np.ndarray, 't']]:
  """Chooses the frames of some clips of a video.

  Args:
    info: What the video holds.
    num_frames: Frames of a clip.
    options: How they are chosen.
    **asked: `count` and `rng`, see `sampling.sample_clips`.

  Returns:
    One array of frame indices per clip.
  """
  timed = options.stride_seconds is not None
  return sampling.sample_clips(
    info.num_frames,
    num_frames,
    stride=None if timed else options.stride,
    stride_seconds=options.stride_seconds,
    sampling=options.sampling,
    fps=info.fps,
    timestamps=info.timestamps,
    duration=info.duration,
    **asked,
  )
