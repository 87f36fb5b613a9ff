"""What a collection of videos holds, and what is odd about it.

Every video is opened in a process of its own that may crash or hang: one bad
file is named, and the others are read.
"""

import collections
import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from vivit_mae.data import container, decode, isolation
from vivit_mae.data.isolation import Failure
from vivit_mae.data.labels import Label
from vivit_mae.data.listing import Example, Examples
from vivit_mae.data.video import KINDS as BROKEN_KINDS
from vivit_mae.data.video import VideoInfo

Segment = tuple[float | int, float | int]

# What can be found, by group: kind -> what it means.
KINDS: dict[str, dict[str, str]] = {
  'broken': {
    'crashed': 'reading it ends the process',
    'timeout': 'reading it takes too long',
    **BROKEN_KINDS,
  },
  'suspicious': {
    'variable_frame_rate': 'its frames are not evenly spaced in time',
    'frame_rate': 'its frame rate is hard to believe',
    'duration': 'its header says that it lasts no time',
    'frame_count': 'its header counts other frames',
    'gaps': 'it has far fewer frames than its length and rate ask for',
    'long': 'it is longer than an hour',
    'small': 'its frames are very small',
    'aspect': 'its frames are very narrow',
    'streams': 'it holds several video streams; FFmpeg takes the best',
  },
  'short': {'short': 'a clip repeats frames of it'},
  'rotated': {'rotated': 'it is turned when it is read, as its tag says'},
  'duplicate': {
    'other_split': 'another split has the same video',
    'other_label': 'the same video has another label elsewhere',
    'same_content': 'another file has the same content',
    'listed_twice': 'it is in the list more than once',
  },
}

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
_HASH_BLOCK = 2**20


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


@dataclasses.dataclass(frozen=True)
class Row:
  """One example, and what was found.

  Attributes:
    split: The name of its split.
    id: See `listing.Example`.
    label: Likewise.
    place: The path of its file; '' if it has none.
    segment: The part of the file that is meant; None for all.
    result: What is known of it, or why it cannot be read.
  """

  split: str
  id: str
  label: Label
  place: str
  segment: Segment | None
  result: Facts | Failure


@dataclasses.dataclass(frozen=True)
class Finding:
  """Something to know about one video.

  Attributes:
    group: A key of `KINDS`.
    kind: A key of `KINDS[group]`.
    split: The name of its split.
    id: Which video.
    reason: What was found; may be empty where the kind says it all.
  """

  group: str
  kind: str
  split: str
  id: str
  reason: str


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


def gather(
  splits: Mapping[str, Examples],
  *,
  full: bool = False,
  num_workers: int = 1,
  timeout: int | float = 60,
  probe=read,
  progress=lambda rows: None,
) -> list[Row]:
  """Reads all videos.

  Args:
    splits: Examples by split. Each is asked for once, in order.
    full: Whether to decode every frame, strictly; else packets are counted.
    num_workers: Processes that read.
    timeout: Seconds for each file.
    probe: What reads a file: as `read`, and like it found by its name.
    progress: Called with the number of videos after each file.

  Returns:
    One row for each example, in order.
  """
  found: dict[int, list[Row]] = {}
  waiting: dict[int, list[tuple[str, Example]]] = {}

  def jobs() -> Iterator[Job]:
    for number, group in enumerate(_files(splits)):
      # Bytes are not kept: a dataset is larger than memory.
      waiting[number] = [
        (split, e if isinstance(e.video, str) else _without_video(e))
        for split, e in group
      ]
      video = group[0][1]
      segments = tuple(example.segment for _, example in group)
      yield Job(video.video, video.id, segments, full)

  with isolation.Pool(probe, num_workers, timeout) as pool:
    for number, results in pool.run(jobs()):
      group = waiting.pop(number)
      if isinstance(results, Failure):
        results = (results,) * len(group)
      found[number] = [
        Row(split, e.id, e.label, str(e.video), e.segment, result)
        for (split, e), result in zip(group, results, strict=True)
      ]
      progress(len(group))
  return [row for number in sorted(found) for row in found[number]]


def find(
  rows: Sequence[Row],
  span: int,
  *,
  num_workers: int = 1,
  timeout: int | float = 60,
) -> list[Finding]:
  """Names what is broken, suspicious, short, rotated, or there twice.

  Args:
    rows: From `gather`.
    span: Frames that a clip spans; a video with fewer is short.
    num_workers: Processes that compare files of equal size.
    timeout: Seconds for each file; one that takes longer is not compared.

  Returns:
    The findings, in the order of `KINDS`, then that of the rows.
  """
  digests = _hash_equal_sizes(rows, num_workers, timeout)
  findings = [*_find_duplicates(rows, digests)]
  for row in rows:
    if isinstance(row.result, Failure):
      found = [('broken', row.result.kind, row.result.detail)]
    else:
      found = [
        ('rotated' if kind == 'rotated' else 'suspicious', kind, reason)
        for kind, reason in row.result.oddities
      ]
      if row.result.num_frames < span:
        count = row.result.num_frames
        found.append(('short', 'short', f'{count} frame{"s"[: count > 1]}'))
    findings += [Finding(g, k, row.split, row.id, r) for g, k, r in found]
  ranks = [(group, kind) for group, kinds in KINDS.items() for kind in kinds]
  return sorted(findings, key=lambda f: ranks.index((f.group, f.kind)))


def _files(
  splits: Mapping[str, Examples],
) -> Iterator[list[tuple[str, Example]]]:
  """Examples by file: those of one file that follow each other go together."""
  every = (
    (split, examples[i])
    for split, examples in splits.items()
    for i in range(len(examples))
  )
  group: list[tuple[str, Example]] = []
  for split, example in every:
    if group and not (
      isinstance(example.video, str) and example.video == group[0][1].video
    ):
      yield group
      group = []
    group.append((split, example))
  if group:
    yield group


def _without_video(example: Example) -> Example:
  return dataclasses.replace(example, video='')


def _read_header(video: bytes | str, name: str) -> Header:
  """What the header says; raises VideoError."""
  with container.VideoFile(video, name).open() as (opened, stream):
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


def _hash(path: str) -> str:
  """SHA-256 of a file; '' if it cannot be read any more."""
  digest = hashlib.sha256()
  try:
    with epath.Path(path).open('rb') as file:
      while block := file.read(_HASH_BLOCK):
        digest.update(block)
  except OSError:
    return ''
  return digest.hexdigest()


def _hash_equal_sizes(
  rows: Sequence[Row], num_workers: int, timeout: int | float
) -> dict[str, str]:
  """SHA-256 of the files whose size another one has too, by path."""
  sizes: dict[int | None, dict[str, None]] = collections.defaultdict(dict)
  for row in rows:
    if isinstance(row.result, Facts) and row.place:
      sizes[row.result.num_bytes][row.place] = None
  equal = [path for paths in sizes.values() if len(paths) > 1 for path in paths]
  with isolation.Pool(_hash, num_workers, timeout) as pool:
    return {
      equal[number]: digest
      for number, digest in pool.run(equal)
      if isinstance(digest, str)
    }


def _find_duplicates(
  rows: Iterable[Row], digests: Mapping[str, str]
) -> Iterator[Finding]:
  """Names each row that an earlier one has the video of."""
  first: dict[tuple[Any, ...], Row] = {}
  for row in rows:
    if isinstance(row.result, Failure):
      continue
    content = row.result.digest or digests.get(row.place) or row.place
    if not content:
      continue
    other = first.setdefault((content, row.segment), row)
    if other is row:
      continue
    kind = 'same_content'
    if row.split != other.split:
      kind = 'other_split'
    elif row.label != other.label:
      kind = 'other_label'
    elif row.place and row.place == other.place:
      kind = 'listed_twice'
    where = '' if row.split == other.split else f' in {other.split}'
    what = '' if row.label == other.label else ', labelled otherwise'
    yield Finding(
      'duplicate', kind, row.split, row.id, f'as {other.id}{where}{what}'
    )
