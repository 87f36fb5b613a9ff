"""Small videos of every make, for tests."""

import io
from collections.abc import Sequence
from fractions import Fraction
from typing import cast

import av
import numpy as np


MILLISECOND = Fraction(1, 1000)


def encode(
  n: int = 60,
  size: tuple[int, int] = (64, 80),
  pts: Sequence[int] | None = None,
  codec: str = 'libx264',
  kind: str = 'mp4',
  time_base: Fraction = Fraction(1, 600),
  **options: str,
) -> bytes:
  """A moving texture; each frame has its number written into its pixels."""
  height, width = size
  y, x = np.mgrid[:height, :width]
  buffer = io.BytesIO()
  with av.open(buffer, 'w', format=kind) as opened:
    stream = cast(
      av.VideoStream, opened.add_stream(codec, rate=25, options=options)
    )
    stream.height, stream.width, stream.pix_fmt = height, width, 'yuv420p'
    stream.codec_context.time_base = time_base
    stream.codec_context.thread_count = 1
    for i in range(n):
      wave = 128 + 90 * np.sin(x / 7 + i / 3) * np.cos(y / 9 - i / 5)
      rgb = np.stack([wave, 255 - wave, np.full_like(wave, 4 * i % 256)], -1)
      frame = av.VideoFrame.from_ndarray(rgb.astype(np.uint8), format='rgb24')
      frame.pts = pts[i] if pts is not None else i * 24
      frame.time_base = time_base
      opened.mux(stream.encode(frame))
    opened.mux(stream.encode(None))
  return buffer.getvalue()
