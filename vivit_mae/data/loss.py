"""What encoding loses: sizes, and how far the pixels are from those before."""

import dataclasses
import math
from collections.abc import Sequence

import av
import cv2
import numpy as np
from jaxtyping import UInt8

from vivit_mae.data import planar


@dataclasses.dataclass(frozen=True)
class Loss:
  """What encoding anew has changed, of one video or of several.

  Luma (0 to 255) is compared with that of the source, scaled alike.

  Attributes:
    bytes_before: Size of what the videos came from, sound included; None if
      that was a part of something longer.
    bytes_after: Size of the new ones.
    pixels: Pixels of all frames.
    squared_error: Sum of the squared distances over all pixels.
    worst: The mean squared error of the worst frame.
    worst_id: The video it is in.
  """

  bytes_before: int | None
  bytes_after: int
  pixels: int
  squared_error: int
  worst: float
  worst_id: str

  @classmethod
  def of_all(cls, losses: Sequence['Loss']) -> 'Loss':
    """Sums up at least one."""
    before = [loss.bytes_before for loss in losses]
    known = [size for size in before if size is not None]
    worst = max(losses, key=lambda loss: loss.worst)
    return cls(
      sum(known) if len(known) == len(before) else None,
      sum(loss.bytes_after for loss in losses),
      sum(loss.pixels for loss in losses),
      sum(loss.squared_error for loss in losses),
      worst.worst,
      worst.worst_id,
    )

  def psnr(self) -> tuple[float, float]:
    """Peak signal-to-noise ratio in dB: of all pixels, of the worst frame."""
    return _psnr(self.squared_error / self.pixels), _psnr(self.worst)


class Judge:
  """Decodes what was encoded, and measures how far it is from the pictures.

  Attributes:
    waiting: Luma by time of the pictures that have not come back.
    squared_error: Sum over all pixels.
    worst: The greatest sum over the pixels of one frame.
  """

  def __init__(self, header: bytes | None):
    """Takes the header that the encoder has made."""
    self._decoder = av.VideoCodecContext.create('h264', 'r')
    self._decoder.extradata = header
    self._decoder.thread_count = 1
    self.waiting: dict[int, UInt8[np.ndarray, 'h w']] = {}
    self.squared_error = 0
    self.worst = 0

  def expect(self, time: int, picture: av.VideoFrame) -> None:
    """Remembers a picture that is about to be encoded."""
    self.waiting[time] = planar.planes(picture)[0]

  def take(self, packet: av.Packet | None) -> None:
    """Decodes a packet; None: there are no more."""
    for frame in self._decoder.decode(packet):
      if frame.pts in self.waiting:
        before = self.waiting.pop(frame.pts)
        error = round(cv2.norm(before, planar.planes(frame)[0], cv2.NORM_L2SQR))
        self.squared_error += error
        self.worst = max(self.worst, error)


def _psnr(mean_squared_error: float | int) -> float:
  if not mean_squared_error:
    return math.inf
  return 10 * math.log10(255**2 / mean_squared_error)
