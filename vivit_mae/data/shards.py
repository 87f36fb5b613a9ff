"""One file of a dataset: the videos that it holds, opened, checked, written.

A file gets its name when it is complete. Of one that is not, the videos that
have been encoded anew are kept in a hidden folder beside it.
"""

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

from vivit_mae.data import directory, isolation, opening, reencode
from vivit_mae.data.directory import Rejected
from vivit_mae.data.labels import ClassNames
from vivit_mae.data.listing import Example, Examples
from vivit_mae.data.loss import Loss
from vivit_mae.data.video import VideoError


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
    if self.check not in opening.CHECKS:
      raise ValueError(
        f'check is {self.check!r}; known are {", ".join(opening.CHECKS)}.'
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
    opener = Opener(pool, num_threads)
    write(shard, recipe, opener, lambda videos: None)


@dataclasses.dataclass(frozen=True)
class Opener:
  """Opens videos before they are due.

  Attributes:
    pool: Opens several at a time.
    ahead: How many more than the one that is due.
    call: What it calls for each, in its place: `opening.open_video`, or what
      calls that in another process.
  """

  pool: futures.Executor
  ahead: int
  call: Callable[
    [opening.Job], opening.Record | opening.Refusal | isolation.Failure
  ] = opening.open_video


def write(
  shard: Shard,
  recipe: Recipe,
  opener: Opener,
  advance: Callable[[int], Any],
) -> None:
  """Writes one shard, unless it is complete.

  Args:
    shard: Which.
    recipe: How.
    opener: Opens the videos.
    advance: Told of each number of videos that are done.

  Raises:
    ValueError: If a video needs an encoding, and there is none.
  """
  if finished(shard) is None:
    _write_records(shard, recipe, _load(shard, recipe, opener), advance)
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


# A video and what is written of it.
_Found = tuple[Example, opening.Record]


def _load(
  shard: Shard, recipe: Recipe, opener: Opener
) -> Iterator[_Found | Rejected]:
  """Opens videos, a few ahead of the one that is written, in order."""

  def open_one(i: int) -> _Found | Rejected:
    example = shard.examples[i]
    job = opening.Job(
      example, recipe.check, recipe.encoding, os.fspath(_draft(shard, i))
    )
    found = opener.call(job)
    if isinstance(found, isolation.Failure):
      found = opener.call(job)  # somebody else may have ended the process
    if isinstance(found, opening.Record):
      return example, found
    if isinstance(found, isolation.Failure):
      error = VideoError(found.kind, example.id, found.detail)
      found = opening.Refusal(found.kind, str(error))
    return Rejected(shard.split, example.id, found.kind, found.reason)

  waiting: list[futures.Future[_Found | Rejected]] = []
  try:
    for i in shard.part:
      waiting.append(opener.pool.submit(open_one, i))
      if len(waiting) > opener.ahead:
        yield waiting.pop(0).result()
    for future in waiting:
      yield future.result()
  finally:
    for future in waiting:
      future.cancel()


def _draft(shard: Shard, i: int) -> epath.Path:
  """Where an encoded video waits until its shard is complete."""
  path = epath.Path(shard.path)
  return path.parent / f'.{path.name}.part' / f'{i:08d}'


def _write_records(
  shard: Shard,
  recipe: Recipe,
  found: Iterator[_Found | Rejected],
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
    for one in found:
      advance(1)
      if isinstance(one, Rejected):
        stats['rejected'].append([one.id, one.kind, one.reason])
        continue
      example, record = one
      data = directory.serialise(encoder, _fields(example, record, recipe))
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


def _fields(
  example: Example, record: opening.Record, recipe: Recipe
) -> dict[str, Any]:
  """A record's features."""
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
