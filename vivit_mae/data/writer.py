"""Writes videos as a dataset that TFDS reads: ArrayRecord of encoded bytes.

TFDS's own generator starts from nothing after an interruption. Here each shard
is written under another name and renamed when complete, and the metadata, which
make the directory a dataset, are written last: a killed run goes on at the
first missing shard, and half a dataset never opens. The same videos give the
same shards, whatever the threads or machines that write them.
"""

import contextlib
import dataclasses
import itertools
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any

import tensorflow_datasets as tfds
import tqdm
from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath

from vivit_mae.data import decode, directory, reencode
from vivit_mae.data.directory import Prepared, Rejected
from vivit_mae.data.frames import Frames
from vivit_mae.data.labels import ClassNames
from vivit_mae.data.listing import Example, Examples, shown
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
  """What is the same for all shards; see `write_dataset`."""

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


def write_dataset(
  out_dir: epath.PathLike,
  splits: Mapping[str, Examples],
  *,
  name: str = 'videos',
  class_names: ClassNames = (),
  multi_label: bool = False,
  boxes: bool = False,
  shards: int | Mapping[str, int] = 1,
  check: str = 'packets',
  encoding: reencode.Settings | None = None,
  fingerprint: str | None = None,
  num_threads: int = 1,
  write_shards: Callable[[Sequence[Shard], Recipe], None] | None = None,
  progress: bool = True,
) -> Prepared:
  """Writes a dataset, or finishes one that was begun.

  Every video is opened, its frames are counted, and it is left out, with the
  reason, if it can't be read. Order is kept: shard k holds the k-th contiguous
  part of its split.

  Args:
    out_dir: The directory to write. It may exist if it is empty, or if it was
      begun or finished with the same input.
    splits: Examples by split. A sequence that makes its examples on demand is
      asked only for those of shards that are still to be written.
    name: The dataset's name: lower case letters, digits and underscores.
    class_names: What `Example.label` indexes; with several heads, of each.
    multi_label: Whether several classes may apply to a video.
    boxes: Whether to keep `Example.boxes`.
    shards: How many files per split.
    check: 'packets' counts frames without decoding; 'full' decodes every frame,
      which also finds what is broken or missing inside the stream.
    encoding: How to encode every video anew; None keeps the bytes. Only so can
      parts of longer videos, and videos that are stored as pictures, be
      written. Decodes every frame in any case.
    fingerprint: Stands for the input, to tell whether a directory belongs to
      it. By default made from ids, labels and sizes, for which all examples are
      asked once.
    num_threads: Videos opened at the same time.
    write_shards: Calls `write_shard` on each of some shards, elsewhere; None
      writes them here, one after the other.
    progress: Whether to show a progress bar.

  Returns:
    What was written. `rejected.csv` in the directory holds the same list.

  Raises:
    ValueError: If the directory holds something else, if a name can't be used,
      if no video can be read, or if there is a part of a longer video or
      pictures, and no encoding.
  """
  recipe = Recipe(class_names, multi_label, boxes, check, encoding)
  directory.check_names(name, splits, class_names)
  if fingerprint is None:
    fingerprint = directory.fingerprint(splits)
  counts = {
    split: max(1, min(n, len(splits[split]) or 1))
    for split, n in _per_split(shards, splits).items()
  }
  out = epath.Path(out_dir).expanduser()
  directory.claim(
    out,
    {
      'fingerprint': fingerprint,
      'name': name,
      'class_names': _plain(class_names),
      'splits': {split: len(examples) for split, examples in splits.items()},
      'shards': counts,
      'check': check,
      # None is what an older directory says of them.
      'multi_label': multi_label or None,
      'boxes': boxes or None,
      'encoded': encoding is not None or None,
      **(dataclasses.asdict(encoding) if encoding else {}),
    },
  )
  wanted = [
    Shard(
      f'{out / name}-{split}.array_record-{k:05d}-of-{counts[split]:05d}',
      split,
      examples,
      range(
        len(examples) * k // counts[split],
        len(examples) * (k + 1) // counts[split],
      ),
    )
    for split, examples in splits.items()
    for k in range(counts[split])
  ]
  if write_shards is not None:
    missing = [shard for shard in wanted if _finished(shard) is None]
    write_shards(missing, recipe)
  else:
    _write_here(wanted, recipe, num_threads, progress)
  stats: dict[str, list[dict[str, Any]]] = {}
  for shard in wanted:
    done = _finished(shard)
    if done is None:
      raise ValueError(
        f'{shard.path} was written, and is not there. All machines that write '
        'must see the directory under this name.'
      )
    stats.setdefault(shard.split, []).append(done)
  return _finish(out, name, recipe, stats)


def _write_here(
  shards: Sequence[Shard], recipe: Recipe, num_threads: int, progress: bool
) -> None:
  """Writes the missing ones of some shards."""
  with (
    tqdm.tqdm(
      total=sum(len(shard.part) for shard in shards),
      unit=' videos',
      desc='Preparing',
      disable=not progress,
    ) as bar,
    futures.ThreadPoolExecutor(num_threads) as pool,
  ):
    for shard in shards:
      _write(shard, recipe, pool, num_threads, bar.update)


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
    _write(shard, recipe, pool, num_threads, lambda videos: None)


def _write(
  shard: Shard,
  recipe: Recipe,
  pool: futures.Executor,
  ahead: int,
  advance: Callable[[int], Any],
) -> None:
  """Writes one shard, unless it is complete."""
  if _finished(shard) is None:
    _write_records(shard, recipe, _load(shard, recipe, pool, ahead), advance)
  else:
    advance(len(shard.part))
  drafts = _draft(shard, 0).parent
  if recipe.encoding is not None and drafts.exists():
    drafts.rmtree()


def _finish(
  out: epath.Path,
  name: str,
  recipe: Recipe,
  stats: Mapping[str, Sequence[Mapping[str, Any]]],
) -> Prepared:
  """Writes the report, then the metadata that make the directory a dataset."""
  rejected = tuple(
    Rejected(split, *row)
    for split, shards in stats.items()
    for shard in shards
    for row in shard['rejected']
  )
  lengths = {split: [s['videos'] for s in stats[split]] for split in stats}
  sizes = {split: sum(s['bytes'] for s in stats[split]) for split in stats}
  directory.write_report(out / 'rejected.csv', rejected)
  if not any(map(sum, lengths.values())):
    raise ValueError(
      f'None of the {len(rejected)} videos can be read; all the reasons are '
      f'in {out / "rejected.csv"}:\n  '
      + shown((r.reason for r in rejected), '\n  ')
    )
  directory.write_metadata(out, name, recipe.features(), lengths, sizes)
  counts = {split: sum(n) for split, n in lengths.items()}
  losses = [
    Loss(**shard['loss'])
    for shard in itertools.chain(*stats.values())
    if shard.get('loss')
  ]
  return Prepared(
    out,
    counts,
    sum(sizes.values()),
    rejected,
    Loss.of_all(losses) if losses else None,
  )


def _plain(class_names: ClassNames) -> list[str] | dict[str, list[str]]:
  if isinstance(class_names, Mapping):
    return {head: list(names) for head, names in class_names.items()}
  return list(class_names)


def _per_split(
  shards: int | Mapping[str, int], splits: Mapping[str, Examples]
) -> dict[str, int]:
  if isinstance(shards, int):
    return dict.fromkeys(splits, shards)
  return {split: shards[split] for split in splits}


def _sidecar(shard: Shard) -> epath.Path:
  return epath.Path(f'{shard.path}.json')


def _finished(shard: Shard) -> dict[str, Any] | None:
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
