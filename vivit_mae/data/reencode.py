"""Videos made again for training: smaller pictures, key frames close together.

Reading a clip costs what decoding from the last key frame costs. Each frame is
kept with its time; sound is dropped, rotation is applied to the pixels, and the
colours' tags are kept. The same video gives the same bytes.
"""

import dataclasses
import fractions
import io
import itertools
import math
from collections.abc import Iterator

import av
import av.container
import av.error
import numpy as np
from etils import epath
from jaxtyping import Int, UInt8

from vivit_mae.data import container, decode, frames, planar
from vivit_mae.data.loss import Judge, Loss
from vivit_mae.data.video import VideoError, VideoInfo

PRESETS = (
  *('ultrafast', 'superfast', 'veryfast', 'faster', 'fast', 'medium', 'slow'),
  *('slower', 'veryslow'),
)
TUNES = ('fastdecode', 'film', 'grain', 'animation', 'none')


@dataclasses.dataclass(frozen=True)
class Settings:
  """How videos are encoded.

  Attributes:
    short_side: What the shorter side is scaled to, where it is longer; None
      keeps the size. Sides become even in any case.
    gop: Greatest distance of key frames, in frames.
    crf: x264's quality: 0 loses nothing, 51 is worst.
    preset: x264's trade of time against size.
    tune: What x264 is tuned for; 'fastdecode' leaves out what is slow to
      decode, 'none' tunes for nothing.
  """

  short_side: int | None = None
  gop: int = 32
  crf: int = 23
  preset: str = 'medium'
  tune: str = 'fastdecode'

  def __post_init__(self):
    side = self.short_side
    if side is not None and (side < 2 or side % 2):
      raise ValueError(f'short_side is {side}; it is even and at least 2.')
    if self.gop < 1:
      raise ValueError(f'gop is {self.gop}; it is at least 1.')
    if not 0 <= self.crf <= 51:
      raise ValueError(f'crf is {self.crf}; it is from 0 (lossless) to 51.')
    for field, known in (('preset', PRESETS), ('tune', TUNES)):
      if getattr(self, field) not in known:
        raise ValueError(
          f'{field} is {getattr(self, field)!r}; known are {", ".join(known)}.'
        )


class EncodingError(ValueError):
  """A video whose frames could not be kept one for one."""


@dataclasses.dataclass(frozen=True)
class Encoded:
  """A video made again.

  Attributes:
    video: The MP4 file's bytes.
    num_frames: Its frames, as many as before.
    duration: Its length in seconds.
    loss: What has changed.
  """

  video: bytes
  num_frames: int
  duration: float
  loss: Loss


def reencode(
  source: decode.Source,
  settings: Settings,
  name: str = '',
  segment: decode.Segment = None,
) -> Encoded:
  """Encodes a video as H.264 (yuv420p, MP4), with one thread.

  Frames are decoded, scaled and encoded one after the other: memory does not
  grow with the video's length. What was encoded is decoded again and compared.

  Args:
    source: The file's bytes, or its path, or stored pictures.
    settings: How.
    name: What to call it in errors; a path names itself.
    segment: Start and end in seconds of the part that is meant; None for all.

  Returns:
    The new video.

  Raises:
    VideoError: a frame of the source is missing or faulty.
    EncodingError: the new video has not the frames and times of the source.
  """
  size = None
  try:
    if isinstance(source, frames.Frames):
      source = counted = _Counted(source)
      info, shown = frames.decode_all(source, name, segment)
      encoded = _encode(info, map(_picture, shown), settings, name)
      size = counted.size
    else:
      with decode.opened(source, name, segment) as (info, shown):
        encoded = _encode(info, shown, settings, name)
      if isinstance(source, bytes):
        size = len(source) if segment is None else None
      elif segment is None:
        size = epath.Path(source).stat().length
  except av.error.FFmpegError as error:
    reason = container.reason(error)
    raise EncodingError(f'{name}: it cannot be encoded: {reason}') from None
  loss = dataclasses.replace(encoded.loss, bytes_before=size)
  return dataclasses.replace(encoded, loss=loss)


class _Counted:
  """Pictures, and the bytes that were read of them."""

  def __init__(self, pictures: frames.Frames):
    self._pictures = pictures
    self.size = 0

  @property
  def fps(self) -> float | int:
    return self._pictures.fps

  def __len__(self) -> int:
    return len(self._pictures)

  def read(self, i: int) -> bytes:
    picture = self._pictures.read(i)
    self.size += len(picture)
    return picture

  def title(self, i: int) -> str:
    return self._pictures.title(i)


def _picture(rgb: UInt8[np.ndarray, 'h w 3']) -> av.VideoFrame:
  return av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format='rgb24')


def _encode(
  info: VideoInfo,
  shown: Iterator[av.VideoFrame],
  settings: Settings,
  name: str,
) -> Encoded:
  first = next(shown, None)
  if first is None:
    raise VideoError('no_frames', name)
  scale = planar.Scaler(info, settings.short_side)
  tick, pts = _ticks(info, first.time_base)
  lasts = np.append(np.diff(pts), _usual(pts))
  buffer = io.BytesIO()
  # A finer clock would show the rounding of times as an uneven rate.
  clock = {'video_track_timescale': str(tick.denominator)}
  with av.open(buffer, 'w', format='mp4', options=clock) as opened:
    stream = _add_stream(opened, first, info, settings)
    stream.height, stream.width = scale.size
    stream.codec_context.time_base = tick
    stream.codec_context.open()
    judge = Judge(stream.codec_context.extradata)
    count = 0
    for frame in itertools.chain([first], shown):
      if count < info.num_frames:
        picture = scale(frame)
        picture.pts, picture.time_base = int(pts[count]), tick
        picture.duration = int(lasts[count])
        judge.expect(picture.pts, picture)
        for packet in stream.encode(picture):
          judge.take(packet)
          opened.mux(packet)
      count += 1
    if count != info.num_frames:
      raise VideoError(
        'truncated' if count < info.num_frames else 'corrupt',
        name,
        f'{info.num_frames} frames are declared, {count} decode',
      )
    for packet in stream.encode(None):
      judge.take(packet)
      opened.mux(packet)
    judge.take(None)
  encoded = buffer.getvalue()
  written = decode.probe(encoded, name)
  if judge.waiting or written.num_frames != info.num_frames:
    raise EncodingError(
      f'{name}: of {info.num_frames} frames, {written.num_frames} are in the '
      f'encoded video and {info.num_frames - len(judge.waiting)} decode'
    )
  shift = np.abs(written.timestamps - info.timestamps).max()
  if shift > 1e-3:
    raise EncodingError(f'{name}: frames are shifted by up to {shift:.3f} s')
  return Encoded(
    encoded,
    info.num_frames,
    written.duration,
    Loss(
      bytes_before=None,
      bytes_after=len(encoded),
      pixels=math.prod(scale.size) * info.num_frames,
      squared_error=judge.squared_error,
      worst=judge.worst / math.prod(scale.size),
      worst_id=name,
    ),
  )


def _add_stream(
  opened: av.container.OutputContainer,
  frame: av.VideoFrame,
  info: VideoInfo,
  settings: Settings,
) -> av.VideoStream:
  """A stream with the settings, and with the colours' tags of a frame."""
  options = {
    'crf': str(settings.crf),
    'preset': settings.preset,
    # As in `encode`: with it, bytes differ from run to run.
    'x264-params': 'mbtree=0',
  }
  if settings.tune != 'none':
    options['tune'] = settings.tune
  stream = opened.add_stream('libx264', rate=_rate(info), options=options)
  stream.pix_fmt = 'yuv420p'
  target = stream.codec_context
  target.gop_size = settings.gop
  target.thread_count = 1
  planar.keep_colours(target, frame)
  return stream


def _ticks(
  info: VideoInfo, tick: fractions.Fraction | None
) -> tuple[fractions.Fraction, Int[np.ndarray, 'n']]:
  """The times of a video's frames as whole numbers of ticks.

  Args:
    info: The video.
    tick: The source's own, used where its times are whole numbers of it.

  Returns:
    The tick in seconds, and the times.
  """
  times = info.timestamps
  for each in (tick, 1 / _rate(info)):
    if each:
      ticks = np.rint(times / float(each)).astype(np.int64)
      if np.allclose(ticks * float(each), times, rtol=0, atol=1e-6):
        return each, ticks
  each = fractions.Fraction(1, 90_000)
  return each, np.rint(times / float(each)).astype(np.int64)


def _rate(info: VideoInfo) -> fractions.Fraction:
  """Frames per second, as 30000/1001 is one."""
  least = fractions.Fraction(1, 1001)
  return max(least, fractions.Fraction(info.fps).limit_denominator(1001))


def _usual(pts: Int[np.ndarray, 'n']) -> int:
  """How long a last frame is shown: as long as most."""
  return max(1, round(float(np.median(np.diff(pts))))) if len(pts) > 1 else 1
