"""Frames as they are encoded: scaled, upright, of even sides, in yuv420p."""

from typing import Any, cast

import av
import av.video.reformatter
import numpy as np
from jaxtyping import UInt8

from vivit_mae.data.video import VideoInfo

# Bytes then do not depend on which instructions the processor has.
_SCALING = (
  av.video.reformatter.Interpolation.BICUBIC
  | av.video.reformatter.Interpolation.ACCURATE_RND
  | av.video.reformatter.Interpolation.BITEXACT
)
_FULL_RANGE = av.video.reformatter.ColorRange.JPEG
_LIMITED_RANGE = av.video.reformatter.ColorRange.MPEG
# What untagged video is read as, and so what RGB pictures become.
_BT601 = av.video.reformatter.Colorspace.ITU601


class Scaler:
  """Makes the pictures to encode of the frames of one video.

  Luma keeps its range, and colours keep their matrix; RGB becomes BT.601.

  Attributes:
    size: Their (height, width).
  """

  def __init__(self, info: VideoInfo, short_side: int | None):
    """Decides the size.

    Args:
      info: What the video is.
      short_side: What the shorter side is scaled to, where it is longer.
    """
    self._turns = info.rotation // 90
    sides = info.height, info.width
    if self._turns % 2:
      sides = sides[::-1]
    short = min(sides)
    target = max(2, min(short, short_side or short))
    if target != short:
      sides = tuple(max(2, 2 * round(s * target / short / 2)) for s in sides)
    # A last odd row or column is cut off: scaling by so little blurs.
    self._scaled = sides
    height, width = self._even = tuple(s // 2 * 2 for s in sides)
    self.size = (width, height) if self._turns % 2 else (height, width)
    self._scaler = av.video.reformatter.VideoReformatter()

  def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
    """A picture out of a frame as it was decoded."""
    height, width = self._scaled
    rgb = _is_rgb(frame)
    full = not rgb and _is_full(frame)
    scaled = self._scaler.reformat(
      frame,
      width,
      height,
      'yuv420p',
      dst_colorspace=_BT601 if rgb else None,
      interpolation=_SCALING,
      src_color_range=_FULL_RANGE if full or rgb else _LIMITED_RANGE,
      dst_color_range=_FULL_RANGE if full else _LIMITED_RANGE,
      threads=1,
    )
    parts = []
    for plane, share in zip(planes(scaled), (1, 2, 2), strict=True):
      even = plane[: self._even[0] // share, : self._even[1] // share]
      parts.append(np.rot90(even, -self._turns).reshape(-1))
    height, width = self.size
    return av.VideoFrame.from_ndarray(
      np.concatenate(parts).reshape(height * 3 // 2, width), format='yuv420p'
    )


def planes(frame: av.VideoFrame) -> list[UInt8[np.ndarray, 'h w']]:
  """The planes of a frame of 8 bits, without the padding of their rows."""
  return [
    np.asarray(memoryview(cast(Any, plane))).reshape(-1, plane.line_size)[
      : plane.height, : plane.width
    ]
    for plane in frame.planes
  ]


def keep_colours(target: av.VideoCodecContext, frame: av.VideoFrame) -> None:
  """Tags what is encoded as a frame is, which `Scaler` leaves true."""
  target.color_primaries = frame.color_primaries
  target.color_trc = frame.color_trc
  if _is_rgb(frame):
    target.colorspace, target.color_range = _BT601, _LIMITED_RANGE
  else:
    target.colorspace = frame.colorspace
    target.color_range = _FULL_RANGE if _is_full(frame) else frame.color_range


def _is_rgb(frame: av.VideoFrame) -> bool:
  return frame.format.is_rgb or frame.format.has_palette


def _is_full(frame: av.VideoFrame) -> bool:
  """Whether luma uses all of 0 to 255; old names of formats say so too."""
  old = frame.format.name.startswith('yuvj')
  return old or frame.color_range == _FULL_RANGE
