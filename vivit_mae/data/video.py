"""What is known of a video, what is asked of it, and what can be wrong."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from vivit_mae.data import colour, transforms

KINDS = {
  'missing': 'there is no such file',
  'empty': 'the file holds no bytes',
  'unreadable': 'it cannot be opened',
  'no_video': 'it holds no video stream',
  'unsupported': 'there is nothing here to decode it with',
  'too_large': 'its frames are too large',
  'no_frames': 'not one frame decodes',
  'truncated': 'its end is missing',
  'corrupt': 'frames in it do not decode',
  'timeout': 'reading it takes too long',
  'crashed': 'reading it ends its process',
}


class VideoError(ValueError):
  """A video that cannot be read.

  Attributes:
    kind: What is wrong, a key of `KINDS`.
    name: The video's path or id.
    detail: What was found, in a few words; may be empty.
  """

  def __init__(self, kind: str, name: str, detail: str = ''):
    super().__init__(kind, name, detail)
    self.kind, self.name, self.detail = kind, name, detail

  def __str__(self):
    detail = f': {self.detail}' if self.detail else ''
    return f'{self.name or "video"}: {self.kind} ({KINDS[self.kind]}{detail})'


@dataclasses.dataclass(frozen=True, eq=False)
class VideoInfo:
  """What a video holds, as it is shown.

  Attributes:
    num_frames: Frames that decoding gives.
    duration: Seconds from the first frame's start to the last one's end.
    fps: Frames per second, on average.
    width: Columns, after rotation.
    height: Rows, after rotation.
    rotation: Degrees (0, 90, 180, 270) the stored frames are turned clockwise.
    codec: FFmpeg's name of the decoder.
    pixel_format: FFmpeg's name of the stored pixels' format.
    variable_frame_rate: Whether frames are not evenly spaced.
    timestamps: Seconds at which each frame appears; the first is 0.
    to_rgb: What makes RGB of the planes of its `yuv420` clips; see
      `colour.yuv_to_rgb`.
  """

  num_frames: int
  duration: float
  fps: float
  width: int
  height: int
  rotation: int
  codec: str
  pixel_format: str
  variable_frame_rate: bool
  timestamps: Float[np.ndarray, 'n']
  to_rgb: Float[np.ndarray, '3 4'] = dataclasses.field(
    default_factory=colour.yuv_to_rgb
  )


# How the pixels of a clip are laid out.
PIXELS = ('rgb', 'yuv420')


@dataclasses.dataclass(frozen=True, eq=False)
class Clip:
  """Which pixels of which frames to read.

  Attributes:
    frames: Indices of frames; any order, repeats allowed.
    size: (height, width) of the result.
    box: What to cut out, in pixels as shown; None takes all.
    flip: Mirror left to right.
    antialias: How to shrink; see `transforms.crop_and_resize`.
    pixels: 'rgb', or 'yuv420' for luma and, below it, both colour differences
      at half the height and width: half the bytes, and no conversion here. The
      box is then moved to even pixels, on which the colours lie.

  Raises:
    ValueError: `pixels` is unknown, or needs even sides.
  """

  frames: Int[np.ndarray, 't']
  size: tuple[int, int]
  box: transforms.Box | None = None
  flip: bool = False
  antialias: bool = True
  pixels: str = 'rgb'

  def __post_init__(self):
    if self.pixels not in PIXELS:
      raise ValueError(
        f'pixels is {self.pixels!r}; known are {", ".join(map(repr, PIXELS))}.'
      )
    if self.pixels == 'yuv420' and (self.size[0] % 2 or self.size[1] % 2):
      raise ValueError(
        f"a clip of {self.size[0]}x{self.size[1]} with pixels 'yuv420' needs "
        'even sides, as its colours have half of them'
      )

  @property
  def shape(self) -> tuple[int, ...]:
    """Of the array that holds it."""
    if self.pixels == 'yuv420':
      return (len(self.frames), self.size[0] * 3 // 2, self.size[1])
    return (len(self.frames), *self.size, 3)


@dataclasses.dataclass(frozen=True, eq=False)
class Timing:
  """When the frames of a video are shown: the timed fields of `VideoInfo`."""

  duration: float
  fps: float
  variable_frame_rate: bool
  timestamps: Float[np.ndarray, 'n']

  @classmethod
  def of(
    cls, ticks: Sequence[int | None], tick: float, rate: float | None
  ) -> 'Timing':
    """Reads the timing off presentation times.

    Args:
      ticks: Presentation time of each frame, in order; None where unknown.
      tick: Length of a tick, in seconds.
      rate: Frames per second by the header, None if it does not say: used for
        single frames, and where the times are unknown or out of order.

    Returns:
      The timing. The last frame is taken to last as long as is usual.
    """
    n = len(ticks)
    rate = rate or 25.0
    times = np.arange(n) / rate
    if None not in ticks:
      known = np.asarray(ticks, np.int64)
      if np.all(known[1:] > known[:-1]):
        times = (known - known[0]) * tick
    steps = np.diff(times)
    usual = 1 / rate
    if n > 1:  # the median, which numpy's own function takes long for
      ordered = np.sort(steps)
      usual = float(ordered[(n - 2) // 2] + ordered[(n - 1) // 2]) / 2
    # Containers round times to ticks, some to whole milliseconds.
    slack = max(1.5 * tick, 0.01 * usual)
    return cls(
      duration=float(times[-1]) + usual,
      fps=(n - 1) / float(times[-1]) if n > 1 else rate,
      variable_frame_rate=bool(np.any(np.abs(steps - usual) > slack)),
      timestamps=times,
    )
