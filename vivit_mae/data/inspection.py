"""What a collection of videos holds, and what is odd about it.

Every video is opened in a process of its own that may crash or hang: one bad
file is named, and the others are read.
"""

import collections
import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any

from etils import epath

from vivit_mae.data import isolation
from vivit_mae.data.facts import Facts, Job, read
from vivit_mae.data.isolation import Failure
from vivit_mae.data.labels import Label
from vivit_mae.data.listing import Example, Examples, Segment
from vivit_mae.data.video import KINDS as BROKEN_KINDS

# What can be found, by group: kind -> what it means.
KINDS: dict[str, dict[str, str]] = {
  'broken': BROKEN_KINDS,
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

_HASH_BLOCK = 2**20


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
  rows: Sequence[Row], span: int, *, num_workers: int = 1
) -> list[Finding]:
  """Names what is broken, suspicious, short, rotated, or there twice.

  Args:
    rows: From `gather`.
    span: Frames that a clip spans; a video with fewer is short.
    num_workers: How many files of equal size are read at a time.

  Returns:
    The findings, in the order of `KINDS`, then that of the rows.
  """
  digests = _hash_equal_sizes(rows, num_workers)
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


def _hash_equal_sizes(rows: Sequence[Row], num_workers: int) -> dict[str, str]:
  """SHA-256 of the files whose size another one has too, by path."""
  sizes: dict[int | None, dict[str, None]] = collections.defaultdict(dict)
  for row in rows:
    if isinstance(row.result, Facts) and row.place and row.result.num_bytes:
      sizes[row.result.num_bytes][row.place] = None
  equal = [path for paths in sizes.values() if len(paths) > 1 for path in paths]
  with futures.ThreadPoolExecutor(num_workers) as pool:
    return dict(zip(equal, pool.map(_hash, equal), strict=True))


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
