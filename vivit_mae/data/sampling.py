"""Which frames make a clip: functions of the video's length and a position.

A style turns a position in [0, 1) along the video into frame indices; random
sampling draws the position, deterministic sampling spaces positions evenly
(one clip: the middle). Clips of short videos repeat frames, and never fail.
"""

from collections.abc import Callable

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


STYLES: dict[str, Callable[..., Int[np.ndarray, 't']]] = {
  'videomae': lambda n, length, stride, position, fps: videomae_frames(
    n, length, stride, position
  ),
  'mae_st': mae_st_frames,
}


def sample_clips(
  num_frames: int,
  length: int,
  *,
  stride: int | None = None,
  stride_seconds: float | int | None = None,
  style: str = 'videomae',
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
    style: How a stride in frames is walked, a key of `STYLES`.
    count: Number of clips, drawn independently.
    rng: Source of the draws; None spaces the clips evenly over the video, one
      clip in the middle.
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
  if rng is None:
    positions = (np.arange(count) + 0.5) / count
  else:
    positions = rng.random(count)
  if stride_seconds is None:
    if style not in STYLES:
      raise ValueError(
        f'style={style!r} is unknown; choose from {sorted(STYLES)}'
      )
    return [
      STYLES[style](num_frames, length, stride, float(position), fps)
      for position in positions
    ]
  if stride_seconds <= 0:
    raise ValueError(f'stride_seconds={stride_seconds}: must be above 0')
  if timestamps is None or duration is None or len(timestamps) != num_frames:
    raise ValueError(
      'stride_seconds needs the timestamps of all frames and the duration'
    )
  return [
    timed_frames(timestamps, duration, length, stride_seconds, float(position))
    for position in positions
  ]
