"""Which frames make a clip: functions of the video's length and a position.

Random sampling draws where a clip lies; for evaluation, views are spread over
the video (one view: the middle). `SAMPLINGS` names the published ways. Clips of
short videos repeat frames, and never fail.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

# MAE-ST counts its stride in frames of a video of this rate.
MAE_ST_FPS = 30.0


def videomae_frames(
  num_frames: int, length: int, stride: int, position: float | int
) -> Int[np.ndarray, 't']:
  """VideoMAE's pretraining clip: every `stride`-th frame from a start.

  The start is uniform over the frames that leave room for `length * stride`;
  0 when there is no room. A short video repeats the last frame reached. As in
  the original, which counts from 1 and compares with "less than", the walk
  stops short of the very last frame (`kinetics.py`, VideoMAE V1).

  Args:
    num_frames: Frames in the video.
    length: Frames in the clip.
    stride: Distance of consecutive frames of the clip, in frames.
    position: Where in the room the clip starts, in [0, 1).

  Returns:
    Indices from 0, not descending.
  """
  room = num_frames - length * stride + 1
  start = int(position * room) if room > 0 else 0
  # The last step that is taken leads to a frame before the last one.
  steps = max(0, -(-(num_frames - 1 - start) // stride) - 1)
  return start + stride * np.minimum(np.arange(length), steps)


def mae_st_frames(
  num_frames: int,
  length: int,
  stride: float | int,
  position: float | int,
  fps: float | int,
) -> Int[np.ndarray, 't']:
  """MAE-ST's clip: a span of time, cut into equal steps.

  The span is `length * stride` frames at 30 fps, whatever the video's rate;
  the start is a real number; `length` points are spread over the span with
  both ends included, rounded down (`mae_st/util/decoder/decoder.py`).

  Args:
    num_frames: Frames in the video.
    length: Frames in the clip.
    stride: Nominal distance of frames at 30 fps.
    position: Where in the room the clip starts, in [0, 1).
    fps: The video's frames per second.

  Returns:
    Indices from 0, not descending.
  """
  span = length * stride / MAE_ST_FPS * fps
  start = position * max(num_frames - span, 0.0)
  return _span_frames(num_frames, length, span, start)


def _span_frames(num_frames, length, span, start):
  points = np.linspace(start, start + span - 1, length)
  return np.clip(points, 0, num_frames - 1).astype(np.int64)


def timed_frames(
  timestamps: Float[np.ndarray, 'n'],
  duration: float | int,
  length: int,
  stride_seconds: float | int,
  position: float | int,
) -> Int[np.ndarray, 't']:
  """A clip at equal steps of time, for any and for variable frame rates.

  Takes the frame that is on screen at each moment. The start is uniform over
  the moments that leave room for `length * stride_seconds`; a short video
  repeats its last frame.

  Args:
    timestamps: When each frame appears, in seconds, ascending.
    duration: Length of the video, in seconds.
    length: Frames in the clip.
    stride_seconds: Distance of consecutive frames of the clip, in seconds.
    position: Where in the room the clip starts, in [0, 1).

  Returns:
    Indices from 0, not descending.
  """
  room = max(duration - length * stride_seconds, 0.0)
  moments = timestamps[0] + position * room
  moments = moments + stride_seconds * np.arange(length)
  # A nanosecond's grace: 3 * .04 is more than .12, and names the same frame.
  shown = np.searchsorted(timestamps, moments + 1e-9, side='right') - 1
  return np.clip(shown, 0, len(timestamps) - 1).astype(np.int64)


def spread_frames(
  num_frames: int, length: int, stride: int, position: float | int
) -> Int[np.ndarray, 't']:
  """VideoMAE's fine-tuning clip: a window, cut into equal steps.

  The window is `length * stride` frames long and starts anywhere. `length`
  points are spread over it with both ends included, rounded down; the last is
  the window's last frame. A video that is shorter than the window gives its
  whole length, and repeats its last frame (`kinetics.py`, VideoMAE V1).

  Args:
    num_frames: Frames in the video.
    length: Frames in the clip.
    stride: Nominal distance of frames.
    position: Where in the room the clip starts, in [0, 1).

  Returns:
    Indices from 0, not descending.
  """
  span = length * stride
  if num_frames > span:
    start = int(position * (num_frames - span))
    points = np.linspace(start, start + span, length)
    return np.clip(points, start, start + span - 1).astype(np.int64)
  points = np.linspace(0, num_frames, num_frames // stride)
  points = np.append(points, np.full(length - len(points), num_frames))
  return np.clip(points, 0, num_frames - 1).astype(np.int64)


def spread_view(
  num_frames: int, length: int, stride: int, view: int, count: int
) -> Int[np.ndarray, 't']:
  """VideoMAE's test clip: consecutive ones of every `stride`-th frame.

  The first view begins with the video, the last one ends with it; one alone
  lies in the middle. A short video repeats its last frame (`kinetics.py`,
  VideoMAE V1, where one alone is an error).

  Args:
    num_frames: Frames in the video.
    length: Frames in the clip.
    stride: Distance of frames.
    view: Which view, from 0.
    count: How many there are.

  Returns:
    Indices from 0, not descending.
  """
  last = (num_frames - 1) // stride
  room = max(last + 1 - length, 0)
  start = int(view * (room / (count - 1))) if count > 1 else room // 2
  return stride * np.minimum(start + np.arange(length), last)


def looped_frames(
  num_frames: int, length: int, stride: int, start: int
) -> Int[np.ndarray, 't']:
  """ViViT's clip: every `stride`-th frame; a short video starts over again.

  Follows DMVR's `sample_sequence` (processors.py), which Scenic reads with.

  Args:
    num_frames: Frames in the video.
    length: Frames in the clip.
    stride: Distance of frames.
    start: The first frame.

  Returns:
    Indices from 0.
  """
  return (start + stride * np.arange(length)) % num_frames


def segment_frames(
  num_frames: int,
  length: int,
  positions: Float[np.ndarray, 't'] | float | int,
) -> Int[np.ndarray, 't']:
  """One frame of each of `length` equal parts of the video.

  Temporal segment networks (Wang et al., 2016), as VideoMAE reads
  Something-Something (`ssv2.py`); the parts are as long in training as in its
  test, where they reach to the end of the video, and those of a short video
  repeat frames.

  Args:
    num_frames: Frames in the video.
    length: Frames in the clip.
    positions: Which moment of its part a frame is taken from, in [0, 1); one
      for each part, or the same for all.

  Returns:
    Indices from 0, not descending.
  """
  points = (np.arange(length) + positions) * (num_frames / length)
  return np.minimum(points, num_frames - 1).astype(np.int64)


class Sampling(NamedTuple):
  """One way to choose the frames of a clip.

  Both functions take the number of frames of the video, of the clip, the
  stride, and the video's frames per second, by name; they give indices.

  Attributes:
    draw: Chooses them at random, with `rng`.
    view: Chooses those of view `view` of `count`.
  """

  draw: Callable[..., Int[np.ndarray, 't']]
  view: Callable[..., Int[np.ndarray, 't']]


def _part(view: int, count: int) -> float:
  """Where view `view` of `count` lies: from 0, the start, to 1, the end."""
  return view / (count - 1) if count > 1 else 0.5


def _stride_view(num_frames, length, stride, view, count, **_):
  if count == 1:
    return videomae_frames(num_frames, length, stride, 0.5)
  return spread_view(num_frames, length, stride, view, count)


def _mae_st_view(num_frames, length, stride, fps, view, count, **_):
  if count == 1:
    return mae_st_frames(num_frames, length, stride, 0.5, fps)
  span = length * stride / MAE_ST_FPS * fps
  # The distance of two starts is a whole number of frames, rounded down.
  step = max(num_frames - span, 0.0) // (count - 1)
  return _span_frames(num_frames, length, span, view * step)


def _vivit_draw(num_frames, length, stride, rng, **_):
  room = max(num_frames - (length - 1) * stride, 1)
  return looped_frames(num_frames, length, stride, int(rng.integers(room)))


def _vivit_view(num_frames, length, stride, view, count, **_):
  room = max(num_frames - length * stride, 0)
  start = int(_part(view, count) * room)
  return looped_frames(num_frames, length, stride, start)


def _segments_view(num_frames, length, view, count, **_):
  # The views' frames interleave; the first view's are the starts of the parts.
  return segment_frames(num_frames, length, view / count if count > 1 else 0.5)


SAMPLINGS: dict[str, Sampling] = {
  # VideoMAE's pretraining.
  'stride': Sampling(
    lambda num_frames, length, stride, rng, **_: videomae_frames(
      num_frames, length, stride, rng.random()
    ),
    _stride_view,
  ),
  # VideoMAE's fine-tuning.
  'dense': Sampling(
    lambda num_frames, length, stride, rng, **_: spread_frames(
      num_frames, length, stride, rng.random()
    ),
    lambda num_frames, length, stride, view, count, **_: spread_view(
      num_frames, length, stride, view, count
    ),
  ),
  # VideoMAE's fine-tuning on Something-Something. It needs no stride.
  'segments': Sampling(
    lambda num_frames, length, rng, **_: segment_frames(
      num_frames, length, rng.random(length)
    ),
    _segments_view,
  ),
  'mae_st': Sampling(
    lambda num_frames, length, stride, fps, rng, **_: mae_st_frames(
      num_frames, length, stride, rng.random(), fps
    ),
    _mae_st_view,
  ),
  'vivit': Sampling(_vivit_draw, _vivit_view),
}


def sample_clips(
  num_frames: int,
  length: int,
  *,
  stride: int | None = None,
  stride_seconds: float | int | None = None,
  sampling: str = 'stride',
  count: int = 1,
  rng: np.random.Generator | None = None,
  fps: float | int = MAE_ST_FPS,
  timestamps: Float[np.ndarray, 'n'] | None = None,
  duration: float | int | None = None,
) -> list[Int[np.ndarray, 't']]:
  """Chooses the frames of `count` clips of one video.

  Args:
    num_frames: Frames in the video.
    length: Frames in a clip.
    stride: Distance of frames, in frames; or
    stride_seconds: in seconds, by the video's timestamps. Exactly one is set.
    sampling: How a stride in frames is understood, a key of `SAMPLINGS`.
    count: Number of clips.
    rng: Source of the draws, independent for each clip; None gives the views
      for evaluation, spread over the video.
    fps: The video's frames per second ('mae_st').
    timestamps: When each frame appears, in seconds (`stride_seconds`).
    duration: Length of the video, in seconds (`stride_seconds`).

  Returns:
    One array of frame indices per clip.

  Raises:
    ValueError: an argument is impossible; says which.
  """
  if (stride is None) == (stride_seconds is None):
    raise ValueError(
      f'exactly one of stride ({stride}) and stride_seconds '
      f'({stride_seconds}) must be set'
    )
  for field, value in (
    ('num_frames', num_frames),
    ('length', length),
    ('count', count),
    ('stride', 1 if stride is None else stride),
  ):
    if value < 1:
      raise ValueError(f'{field}={value}: must be 1 or more')
  if sampling not in SAMPLINGS:
    raise ValueError(
      f'sampling={sampling!r} is unknown; choose from {sorted(SAMPLINGS)}'
    )
  if stride_seconds is None:
    rule = SAMPLINGS[sampling]
    fixed = dict(num_frames=num_frames, length=length, stride=stride, fps=fps)
    if rng is None:
      return [rule.view(**fixed, view=k, count=count) for k in range(count)]
    return [rule.draw(**fixed, rng=rng) for _ in range(count)]
  if sampling != 'stride':
    raise ValueError(
      f"stride_seconds={stride_seconds} goes with sampling 'stride', not "
      f'{sampling!r}'
    )
  if stride_seconds <= 0:
    raise ValueError(f'stride_seconds={stride_seconds}: must be above 0')
  if timestamps is None or duration is None or len(timestamps) != num_frames:
    raise ValueError(
      'stride_seconds needs the timestamps of all frames and the duration'
    )
  return [
    timed_frames(
      timestamps,
      duration,
      length,
      stride_seconds,
      _part(k, count) if rng is None else rng.random(),
    )
    for k in range(count)
  ]
