"""Small videos of every make, for tests."""

import io
import tempfile
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
  pixel_format: str = 'yuv420p',
  rotation: int = 0,
  movflags: str = '',
  **options: str,
) -> bytes:
  """A moving texture; each frame has its number written into its pixels."""
  height, width = size
  y, x = np.mgrid[:height, :width]
  # The same frames give the same bytes.
  exact = {'fflags': '+bitexact'} | ({'movflags': movflags} if movflags else {})
  with (
    tempfile.NamedTemporaryFile() as file,
    av.open(file.name, 'w', format=kind, options=exact) as opened,
  ):
    stream = cast(
      av.VideoStream, opened.add_stream(codec, rate=25, options=options)
    )
    stream.height, stream.width, stream.pix_fmt = height, width, pixel_format
    if rotation:
      stream.set_display_rotation(rotation)
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
    opened.close()
    return file.read()


def cut_at_second_key(video: bytes) -> bytes:
  """Matroska without the first group; its leading pictures cannot decode."""
  buffer = io.BytesIO()
  with av.open(io.BytesIO(video), 'r') as source:
    stream = source.streams.video[0]
    with av.open(buffer, 'w', format='matroska') as copy:
      target = copy.add_stream_from_template(stream)
      seen = 0
      for packet in source.demux(stream):
        seen += packet.is_keyframe
        if seen < 2 or not packet.size:
          continue
        packet.stream = target
        copy.mux(packet)
  return buffer.getvalue()


def hide_start(video: bytes, hidden: int) -> bytes:
  """MP4 whose edit list hides some frames, that others may refer to."""
  buffer = io.BytesIO()
  with av.open(io.BytesIO(video), 'r') as source:
    stream = source.streams.video[0]
    # Frames before time 0 stay in the file.
    keep = {'avoid_negative_ts': 'disabled'}
    with av.open(buffer, 'w', format='mp4', options=keep) as copy:
      target = copy.add_stream_from_template(stream)
      for packet in source.demux(stream):
        if packet.size and packet.pts is not None and packet.dts is not None:
          shift = int(hidden / 25 / packet.time_base)
          packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
          packet.stream = target
          copy.mux(packet)
  return buffer.getvalue()
