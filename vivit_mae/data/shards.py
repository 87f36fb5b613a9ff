"""One file of a dataset: the videos that it holds, opened, checked, written.

A file gets its name when it is complete. Of one that is not, the videos that
have been encoded anew are kept in a hidden folder beside it.
"""

import contextlib
import dataclasses
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath

from vivit_mae.data import decode, directory, reencode
from vivit_mae.data.directory import Rejected
from vivit_mae.data.frames import Frames
from vivit_mae.data.labels import ClassNames
from vivit_mae.data.listing import Example, Examples
from vivit_mae.data.loss import Loss

# Protocol buffers, which hold the examples, end at 2 GiB; the rest needs a bit.
MAX_BYTES = 2**31 - 2**20
CHECKS = ('packets', 'full')


@dataclasses.dataclass(frozen=True)
class Shard:
  """A file to be written.

  Attributes:
    path: Where.
    split: What it is a part of.
    examples: All or some examples of the split.
    part: Which of the examples it holds.
  """

  path: str
  split: str
  examples: Examples
  part: range


@dataclasses.dataclass(frozen=True)
class Recipe:
  """What is the same for all shards; see `writer.write_dataset`."""

  class_names: ClassNames = ()
  multi_label: bool = False
  boxes: bool = False
  check: str = 'packets'
  encoding: reencode.Settings | None = None

  def __post_init__(self):
    if self.check not in CHECKS:
      raise ValueError(
        f'check is {self.check!r}; known are {", ".join(CHECKS)}.'
      )

  def features(self) -> tfds.features.FeaturesDict:
    """What a record holds."""
    return directory.features(self.class_names, self.multi_label, self.boxes)


def write_shard(shard: Shard, recipe: Recipe, num_threads: int = 1) -> None:
  """Writes one shard, unless it is complete.

  Args:
    shard: Which.
    recipe: How.
    num_threads: Videos opened at the same time.

  Raises:
    ValueError: If a video needs an encoding, and there is none.
  """
  with futures.ThreadPoolExecutor(num_threads) as pool:
    write(shard, recipe, pool, num_threads, lambda videos: None)


def write(
  shard: Shard,
  recipe: Recipe,
  pool: futures.Executor,
  ahead: int,
  advance: Callable[[int], Any],
) -> None:
  """Writes one shard, unless it is complete.

  Args:
    shard: Which.
    recipe: How.
    pool: Opens the videos.
    ahead: How many more than the one that is due.
    advance: Told of each number of videos that are done.

  Raises:
    ValueError: If a video needs an encoding, and there is none.
  """
  if finished(shard) is None:
    _write_records(shard, recipe, _load(shard, recipe, pool, ahead), advance)
  else:
    advance(len(shard.part))
  drafts = _draft(shard, 0).parent
  if recipe.encoding is not None and drafts.exists():
    drafts.rmtree()


def _sidecar(shard: Shard) -> epath.Path:
  return epath.Path(f'{shard.path}.json')


def finished(shard: Shard) -> dict[str, Any] | None:
  """The statistics of a shard if it is complete."""
  if not (epath.Path(shard.path).exists() and _sidecar(shard).exists()):
    return None
  return json.loads(_sidecar(shard).read_text())


@dataclasses.dataclass(frozen=True)
class _Record:
  """A video as it is written.

  Attributes:
    example: Where it is from.
    video: Its bytes.
    num_frames: Its frames.
    duration: Its length in seconds.
    loss: What encoding it anew has changed; None if it was not.
  """

  example: Example
  video: bytes
  num_frames: int
  duration: float
  loss: Loss | None = None


def _load(
  shard: Shard, recipe: Recipe, pool: futures.Executor, ahead: int
) -> Iterator[_Record | Rejected]:
  """Opens videos, a few ahead of the one that is written, in order."""

  def open_one(i: int) -> _Record | Rejected:
    example = shard.examples[i]
    try:
      if recipe.encoding is None:
        record = _copy(example, recipe.check)
      else:
        record = _encode(example, recipe.encoding, _draft(shard, i))
    except decode.VideoError as error:
      return Rejected(shard.split, example.id, error.kind, str(error))
    except reencode.EncodingError as error:
      return Rejected(shard.split, example.id, 'encoding', str(error))
    if (size := len(record.video)) > MAX_BYTES:
      reason = f'{example.id}: too_large ({size} bytes; cut it in parts)'
      return Rejected(shard.split, example.id, 'too_large', reason)
    return record

  waiting: list[futures.Future[_Record | Rejected]] = []
  try:
    for i in shard.part:
      waiting.append(pool.submit(open_one, i))
      if len(waiting) > ahead:
        yield waiting.pop(0).result()
    for future in waiting:
      yield future.result()
  finally:
    for future in waiting:
      future.cancel()


def _copy(example: Example, check: str) -> _Record:
  """A video's own bytes, checked."""
  for is_so, what in (
    (isinstance(example.video, Frames), 'is stored as pictures'),
    (example.segment is not None, 'is a part of a longer video'),
  ):
    if is_so:
      raise ValueError(
        f'{example.id} {what}: there are no bytes of its own to copy. Encode '
        'it anew, or train from where it lies.'
      )
  assert isinstance(example.video, bytes | str)
  if isinstance(example.video, bytes):
    video = example.video
  else:
    try:
      video = epath.Path(example.video).read_bytes()
    except FileNotFoundError:
      raise decode.VideoError('missing', example.id) from None
  info = decode.probe(video, example.id, decode=check == 'full')
  return _Record(example, video, info.num_frames, info.duration)


def _encode(
  example: Example, settings: reencode.Settings, draft: epath.Path
) -> _Record:
  """A video encoded anew, unless that was done before an interruption."""
  with contextlib.suppress(FileNotFoundError):
    header, _, video = draft.read_bytes().partition(b'\n')
    facts = json.loads(header)
    loss = Loss(**facts.pop('loss'))
    return _Record(example, video, loss=loss, **facts)
  encoded = reencode.reencode(
    example.video, settings, example.id, example.segment
  )
  facts = dataclasses.asdict(encoded)
  video = facts.pop('video')
  header = json.dumps(facts, ensure_ascii=False).encode()
  draft.parent.mkdir(parents=True, exist_ok=True)
  directory.write_file(draft, header + b'\n' + video)
  return _Record(example, **vars(encoded))


def _draft(shard: Shard, i: int) -> epath.Path:
  """Where an encoded video waits until its shard is complete."""
  path = epath.Path(shard.path)
  return path.parent / f'.{path.name}.part' / f'{i:08d}'


def _write_records(
  shard: Shard,
  recipe: Recipe,
  records: Iterator[_Record | Rejected],
  advance: Callable[[int], Any],
) -> None:
  """Writes one shard and its statistics; the shard gets its name last."""
  path = epath.Path(shard.path)
  encoder = recipe.features()
  stats: dict[str, Any] = {'videos': 0, 'bytes': 0, 'rejected': []}
  losses: list[Loss] = []
  with tempfile.TemporaryDirectory() as scratch:
    # ArrayRecord writes local files only: a remote shard is copied afterwards.
    local = '://' not in shard.path
    part = (
      directory.part_name(path) if local else epath.Path(scratch) / path.name
    )
    # Readers fetch single videos: no two share a compressed block, and encoded
    # video does not compress further.
    writer = ArrayRecordWriter(os.fspath(part), 'group_size:1,uncompressed')
    for record in records:
      advance(1)
      if isinstance(record, Rejected):
        stats['rejected'].append([record.id, record.kind, record.reason])
        continue
      data = directory.serialise(encoder, _fields(record, recipe))
      writer.write(data)
      stats['videos'] += 1
      stats['bytes'] += len(data)
      if record.loss is not None:
        losses.append(record.loss)
    writer.close()
    if losses:
      stats['loss'] = dataclasses.asdict(Loss.of_all(losses))
    if not local:
      part = part.copy(directory.part_name(path), overwrite=True)
    directory.write_file(
      _sidecar(shard), json.dumps(stats, ensure_ascii=False).encode()
    )
    part.replace(path)


def _fields(record: _Record, recipe: Recipe) -> dict[str, Any]:
  """A record's features."""
  example = record.example
  fields = {
    'video': record.video,
    'label': directory.encode_label(example.label, recipe.class_names),
    'id': example.id,
    'num_frames': record.num_frames,
    'duration': record.duration,
  }
  if recipe.boxes:
    fields['boxes'] = directory.encode_boxes(example.boxes)
  return fields
