"""Frames in, H.264 or a moving GIF out; the same frames give the same bytes."""

import fractions
import io
import uuid
from collections.abc import Iterable

import av
import av.video.reformatter
import numpy as np
from etils import epath
from jaxtyping import UInt8
from PIL import Image


def write_video(
  path: epath.PathLike | None,
  frames: Iterable[UInt8[np.ndarray, 'h w 3']],
  fps: float | int,
  *,
  crf: int = 20,
  gop: int = 32,
  preset: str = 'veryfast',
) -> bytes:
  """Encodes frames as H.264 in MP4 (yuv420p, BT.601), with one thread.

  Args:
    path: Where to write; remote paths too. The file appears complete or not
      at all. None only returns the bytes.
    frames: RGB frames of one size, whose sides are even.
    fps: Frames per second.
    crf: Quality: 0 is lossless but for the colours, 51 is worst.
    gop: Greatest distance of key frames, in frames; short groups are quick to
      read from anywhere.
    preset: x264's trade of time against size.

  Returns:
    The file's bytes.

  Raises:
    ValueError: there are no frames, or their sizes are odd or differ.
  """
  if fps <= 0:
    raise ValueError(f'fps={fps}: must be above 0')
  buffer = io.BytesIO()
  scaler = av.video.reformatter.VideoReformatter()
  size: tuple[int, int] | None = None
  with av.open(buffer, 'w', format='mp4') as container:
    rate = fractions.Fraction(fps).limit_denominator(1001)
    stream = container.add_stream(
      'libx264',
      rate=rate,
      options={
        'crf': str(crf),
        'preset': preset,
        # Its macroblock tree reads memory that it never wrote: with it, one
        # run in six gives other bytes (x264 of PyAV 18.1, B-frames).
        'x264-params': 'mbtree=0',
      },
    )
    stream.pix_fmt = 'yuv420p'
    stream.codec_context.gop_size = gop
    stream.codec_context.thread_count = 1
    for number, frame in enumerate(frames):
      height, width = frame.shape[:2]
      if size is None:
        size = (height, width)
        _check_size(height, width)
        stream.height, stream.width = size
      if (height, width) != size:
        raise ValueError(
          f'frame {number} is {height}x{width}, the first one '
          f'{size[0]}x{size[1]}: all must have one size'
        )
      picture = av.VideoFrame.from_ndarray(
        np.ascontiguousarray(frame), format='rgb24'
      )
      picture = scaler.reformat(picture, format='yuv420p', threads=1)
      picture.pts = number
      picture.time_base = 1 / rate
      container.mux(stream.encode(picture))
    if size is None:
      raise ValueError('there are no frames to encode')
    container.mux(stream.encode(None))
  return _deliver(path, buffer)


def write_gif(
  path: epath.PathLike | None,
  frames: Iterable[UInt8[np.ndarray, 'h w 3']],
  fps: float | int,
) -> bytes:
  """Makes a moving GIF that repeats for ever, with one palette per frame.

  Args:
    path: Where to write, as for `write_video`; None only returns the bytes.
    frames: RGB frames of one size.
    fps: Frames per second; GIF rounds each frame's time to 1/100 s, and most
      browsers show none for less than 1/50 s.

  Returns:
    The file's bytes.

  Raises:
    ValueError: there are no frames, or `fps` is outside (0, 50].
  """
  if not 0 < fps <= 50:
    raise ValueError(f'fps={fps}: a GIF shows above 0 and up to 50')
  # A palette for each keeps the colours; PIL's own choice shares the first.
  pictures = [
    Image.fromarray(frame).quantize(dither=Image.Dither.NONE)
    for frame in frames
  ]
  if not pictures:
    raise ValueError('there are no frames to encode')
  buffer = io.BytesIO()
  pictures[0].save(
    buffer,
    'gif',
    save_all=True,
    append_images=pictures[1:],
    duration=round(1000 / fps),
    loop=0,
  )
  return _deliver(path, buffer)


def _check_size(height: int, width: int) -> None:
  if height < 2 or width < 2 or height % 2 or width % 2:
    raise ValueError(
      f'frames of {height}x{width} (height x width): H.264 with colours at '
      'half resolution needs even sides of 2 or more'
    )


def _deliver(path: epath.PathLike | None, buffer: io.BytesIO) -> bytes:
  """Returns the bytes, written to `path` by way of a temporary name."""
  encoded = buffer.getvalue()
  if path is not None:
    target = epath.Path(path)
    draft = target.with_name(f'.{target.name}.{uuid.uuid4().hex}')
    try:
      draft.write_bytes(encoded)
      draft.replace(target)
    finally:
      draft.unlink(missing_ok=True)
  return encoded
