"""What is known of one video file, and what is odd about it."""

import dataclasses
import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from etils import epath

from vivit_mae.data import container, decode
from vivit_mae.data.frames import Frames
from vivit_mae.data.isolation import Failure
from vivit_mae.data.listing import Segment
from vivit_mae.data.video import VideoInfo

# FFmpeg's names that say more than anybody asks.
_CONTAINERS = {
  'mov,mp4,m4a,3gp,3g2,mj2': 'mp4/mov',
  'matroska,webm': 'mkv/webm',
}

_CODECS = {'libdav1d': 'av1', 'libvpx': 'vp8', 'libvpx-vp9': 'vp9'}

# Ordinary videos keep within these.
_RATES = (5, 240)  # frames a second
_LEAST_SIDE = 64  # pixels
_GREATEST_ASPECT = 4
_LONGEST = 3600  # seconds
_LEAST_SHARE = 0.5  # of the frames that length and rate ask for

# Slack of a segment's borders, as containers round times to milliseconds.
_SLACK = 5e-4


@dataclasses.dataclass(frozen=True)
class Header:
  """What the header of a file says.

  Attributes:
    container: Name of the container.
    num_streams: Video streams, without cover art.
    num_frames: Frames of the stream that is read; 0 = it does not say.
    duration: Seconds, the longest stream's; None = it does not say.
    fps: Frames per second; 0 = it does not say.
  """

  container: str
  num_streams: int = 1
  num_frames: int = 0
  duration: float | None = None
  fps: float = 0.0


@dataclasses.dataclass(frozen=True)
class Facts:
  """What is known of one video, or of the segment of it that is meant.

  Attributes:
    container: Name of the container; 'pictures' for one file for each frame.
    codec: Name of the codec.
    pixel_format: FFmpeg's name of the stored pixels' format.
    width: Columns, after rotation.
    height: Rows, after rotation.
    rotation: Degrees the stored frames are turned clockwise.
    fps: Frames per second.
    num_frames: Frames.
    duration: Seconds.
    variable_frame_rate: Whether frames are not evenly spaced.
    num_bytes: Size of the whole file; None for pictures.
    digest: SHA-256 of the content where it was at hand, else ''.
    oddities: (kind, reason) of what is odd about the file; with several
      segments of one file, the first has them.
  """

  container: str
  codec: str
  pixel_format: str
  width: int
  height: int
  rotation: int
  fps: float
  num_frames: int
  duration: float
  variable_frame_rate: bool
  num_bytes: int | None
  digest: str = ''
  oddities: tuple[tuple[str, str], ...] = ()


@dataclasses.dataclass(frozen=True)
class Job:
  """One file to read.

  Attributes:
    video: As in `listing.Example`.
    name: What to call it.
    segments: The parts of it that are meant; None for all of it.
    full: Whether to decode every frame, strictly.
  """

  video: Any
  name: str
  segments: tuple[Segment | None, ...] = (None,)
  full: bool = False


def read(job: Job) -> tuple[Facts | Failure, ...]:
  """Reads one file.

  Args:
    job: What to read.

  Returns:
    For each segment what is known of it, or why it cannot be read.
  """
  video = job.video
  try:
    header, size, digest = Header('pictures'), None, ''
    if isinstance(video, bytes):
      size, digest = len(video), hashlib.sha256(video).hexdigest()
    if isinstance(video, (bytes, str)):
      header = _read_header(video, job.name)
    if isinstance(video, str):
      size = epath.Path(video).stat().length
    info = decode.probe(video, job.name, decode=job.full)
    if job.full and isinstance(video, Frames):
      decode.read_clips(video, _every_frame, job.name)
  except decode.VideoError as error:
    return (Failure(error.kind, error.detail),) * len(job.segments)
  oddities = tuple(find_oddities(info, header))
  results = []
  for segment in job.segments:
    num_frames, duration = _measure(info, segment)
    if not num_frames and segment:
      detail = (
        f'none from {segment[0]:g} to {segment[1]:g} s; it lasts '
        f'{info.duration:.2f} s'
      )
      results.append(Failure('no_frames', detail))
      continue
    facts = Facts(
      container=header.container,
      codec=_CODECS.get(info.codec, info.codec),
      pixel_format=info.pixel_format,
      width=info.width,
      height=info.height,
      rotation=info.rotation,
      fps=info.fps,
      num_frames=num_frames,
      duration=duration,
      variable_frame_rate=info.variable_frame_rate,
      num_bytes=size,
      digest=digest,
      oddities=oddities,
    )
    results.append(facts)
    oddities = ()
  return tuple(results)


def find_oddities(info: VideoInfo, header: Header) -> Iterator[tuple[str, str]]:
  """What is odd about a file that can be read.

  Args:
    info: What decoding gives.
    header: What the header says.

  Yields:
    (kind, reason), with kinds of the groups 'suspicious' and 'rotated'.
  """
  if info.variable_frame_rate:
    steps = np.diff(info.timestamps)
    yield (
      'variable_frame_rate',
      f'frames follow each other by {1000 * steps.min():.0f} to '
      f'{1000 * steps.max():.0f} ms',
    )
  least, most = _RATES
  for source, fps in (('it has', info.fps), ('its header says', header.fps)):
    if fps and not least <= fps <= most:
      yield 'frame_rate', f'{source} {fps:.4g} frames a second'
      break
  if header.duration is not None and header.duration <= 0:
    yield 'duration', ''
  if header.num_frames not in (0, info.num_frames):
    yield (
      'frame_count',
      f'its header counts {header.num_frames} frames, {info.num_frames} are '
      'shown',
    )
  asked = (header.duration or info.duration) * (header.fps or info.fps)
  if info.num_frames < _LEAST_SHARE * asked:
    yield (
      'gaps',
      f'{info.num_frames} frames; {header.duration or info.duration:.2f} s at '
      f'{header.fps or info.fps:.4g} a second would be {asked:.0f}',
    )
  if info.duration > _LONGEST:
    yield 'long', f'{info.duration / 3600:.1f} hours'
  size = f'{info.width}x{info.height}'
  if min(info.width, info.height) < _LEAST_SIDE:
    yield 'small', f'{size} pixels'
  longer, shorter = sorted((info.width, info.height), reverse=True)
  if longer > _GREATEST_ASPECT * shorter:
    yield 'aspect', f'{size} pixels'
  if header.num_streams > 1:
    yield 'streams', f'{header.num_streams} video streams; {size} is read'
  if info.rotation:
    yield 'rotated', f'by {info.rotation} degrees clockwise, to {size}'


def _every_frame(info: VideoInfo) -> list[decode.Clip]:
  """All frames, in a size that takes no memory."""
  return [decode.Clip(np.arange(info.num_frames), (2, 2))]


def _read_header(video: bytes | str, name: str) -> Header:
  """What the header says; raises VideoError."""
  with container.VideoFile(video, name) as file:
    opened, stream = file.container, file.stream
    rate = stream.average_rate or stream.guessed_rate
    pictures = [
      s
      for s in opened.streams.video
      if not s.disposition & s.disposition.attached_pic
    ]
    return Header(
      container=_CONTAINERS.get(opened.format.name, opened.format.name),
      num_streams=len(pictures),
      num_frames=stream.frames,
      duration=None if opened.duration is None else opened.duration / 1e6,
      fps=float(rate) if rate else 0.0,
    )


def _measure(info: VideoInfo, segment: Segment | None) -> tuple[int, float]:
  """Frames and seconds of a video, or of a segment of it."""
  if segment is None:
    return info.num_frames, info.duration
  begin, end = np.searchsorted(
    info.timestamps, np.asarray(segment, np.float64) - _SLACK
  ).tolist()
  times = np.append(info.timestamps, info.duration)
  return end - begin, float(times[end] - times[begin])
