"""Writes videos as a dataset that TFDS reads: ArrayRecord of encoded bytes.

TFDS's own generator starts from nothing after an interruption. Here each shard
is written under another name and renamed when complete, and the metadata, which
make the directory a dataset, are written last: a killed run goes on at the
first missing shard, and half a dataset never opens. The same videos give the
same shards.
"""

import dataclasses
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any

import tensorflow_datasets as tfds
import tqdm
from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath

from vivit_mae.data import decode, directory
from vivit_mae.data.directory import Prepared, Rejected
from vivit_mae.data.listing import Example, Examples, shown

# Protocol buffers, which hold the examples, end at 2 GiB; the rest needs a bit.
MAX_BYTES = 2**31 - 2**20
CHECKS = ('packets', 'full')


def write_dataset(
  out_dir: epath.PathLike,
  splits: Mapping[str, Examples],
  *,
  name: str = 'videos',
  class_names: Sequence[str] = (),
  shards: int | Mapping[str, int] = 1,
  check: str = 'packets',
  fingerprint: str | None = None,
  num_threads: int = 1,
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
    class_names: What `Example.label` indexes.
    shards: How many files per split.
    check: 'packets' counts frames without decoding; 'full' decodes every frame,
      which also finds what is broken or missing inside the stream.
    fingerprint: Stands for the input, to tell whether a directory belongs to
      it. By default made from ids, labels and sizes, for which all examples are
      asked once.
    num_threads: Videos opened at the same time.
    progress: Whether to show a progress bar.

  Returns:
    What was written. `rejected.csv` in the directory holds the same list.

  Raises:
    ValueError: If the directory holds something else, if a name can't be used,
      or if no video can be read.
  """
  if check not in CHECKS:
    raise ValueError(f'check is {check!r}; known are {", ".join(CHECKS)}.')
  directory.check_names(name, splits, class_names)
  if fingerprint is None:
    fingerprint = directory.fingerprint(splits)
  counts = {
    split: max(1, min(n, len(splits[split]) or 1))
    for split, n in _per_split(shards, splits).items()
  }
  out = epath.Path(out_dir).expanduser()
  manifest = {
    'fingerprint': fingerprint,
    'name': name,
    'class_names': list(class_names),
    'splits': {split: len(examples) for split, examples in splits.items()},
    'shards': counts,
    'check': check,
  }
  directory.claim(out, manifest)
  encoder = directory.features(class_names)
  stats: dict[str, list[dict[str, Any]]] = {}
  with (
    tqdm.tqdm(
      total=sum(map(len, splits.values())),
      unit=' videos',
      desc='Preparing',
      disable=not progress,
    ) as bar,
    futures.ThreadPoolExecutor(num_threads) as pool,
  ):
    for split, examples in splits.items():
      for k in range(counts[split]):
        part = range(
          len(examples) * k // counts[split],
          len(examples) * (k + 1) // counts[split],
        )
        shard = _shard_path(out, name, split, k, counts[split])
        done = _finished(shard)
        if done is None:
          records = _load(examples, part, split, check, pool, num_threads)
          done = _write_shard(shard, records, encoder, bar)
        else:
          bar.update(len(part))
        stats.setdefault(split, []).append(done)
  return _finish(out, name, encoder, stats)


def _finish(
  out: epath.Path,
  name: str,
  encoder: tfds.features.FeaturesDict,
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
  directory.write_metadata(out, name, encoder, lengths, sizes)
  counts = {split: sum(n) for split, n in lengths.items()}
  return Prepared(out, counts, sum(sizes.values()), rejected)


def _per_split(
  shards: int | Mapping[str, int], splits: Mapping[str, Examples]
) -> dict[str, int]:
  if isinstance(shards, int):
    return dict.fromkeys(splits, shards)
  return {split: shards[split] for split in splits}


def _shard_path(
  out: epath.Path, name: str, split: str, k: int, count: int
) -> epath.Path:
  return out / f'{name}-{split}.array_record-{k:05d}-of-{count:05d}'


def _sidecar(shard: epath.Path) -> epath.Path:
  return shard.parent / f'{shard.name}.json'


def _finished(shard: epath.Path) -> dict[str, Any] | None:
  """The statistics of a shard if it is complete."""
  if not (shard.exists() and _sidecar(shard).exists()):
    return None
  return json.loads(_sidecar(shard).read_text())


@dataclasses.dataclass(frozen=True)
class _Record:
  example: Example
  video: bytes
  info: decode.VideoInfo


def _load(
  examples: Examples,
  part: range,
  split: str,
  check: str,
  pool: futures.Executor,
  ahead: int,
) -> Iterator[_Record | Rejected]:
  """Opens videos, a few ahead of the one that is written, in order."""

  def open_one(i: int) -> _Record | Rejected:
    example = examples[i]
    try:
      video = _read(example)
      if len(video) > MAX_BYTES:
        reason = (
          f'{example.id}: too_large ({len(video)} bytes; cut it in parts)'
        )
        return Rejected(split, example.id, 'too_large', reason)
      info = decode.probe(video, example.id, decode=check == 'full')
    except decode.VideoError as error:
      return Rejected(split, example.id, error.kind, str(error))
    return _Record(example, video, info)

  waiting: list[futures.Future[_Record | Rejected]] = []
  for i in part:
    waiting.append(pool.submit(open_one, i))
    if len(waiting) > ahead:
      yield waiting.pop(0).result()
  for future in waiting:
    yield future.result()


def _read(example: Example) -> bytes:
  if isinstance(example.video, bytes):
    return example.video
  try:
    return epath.Path(example.video).read_bytes()
  except FileNotFoundError:
    raise decode.VideoError('missing', example.id) from None


def _write_shard(
  shard: epath.Path,
  records: Iterator[_Record | Rejected],
  encoder: tfds.features.FeaturesDict,
  bar: tqdm.tqdm,
) -> dict[str, Any]:
  """Writes one shard and its statistics; the shard gets its name last."""
  stats: dict[str, Any] = {'videos': 0, 'bytes': 0, 'rejected': []}
  with tempfile.TemporaryDirectory() as scratch:
    # ArrayRecord writes local files only: a remote shard is copied afterwards.
    local = '://' not in os.fspath(shard)
    part = (
      directory.part_name(shard) if local else epath.Path(scratch) / shard.name
    )
    # Readers fetch single videos: no two share a compressed block, and encoded
    # video does not compress further.
    writer = ArrayRecordWriter(os.fspath(part), 'group_size:1,uncompressed')
    for record in records:
      bar.update()
      if isinstance(record, Rejected):
        stats['rejected'].append([record.id, record.kind, record.reason])
        continue
      example = encoder.encode_example(
        {
          'video': record.video,
          'label': record.example.label,
          'id': record.example.id,
          'num_frames': record.info.num_frames,
          'duration': record.info.duration,
        }
      )
      data = encoder.serialize_example(example)
      writer.write(data)
      stats['videos'] += 1
      stats['bytes'] += len(data)
    writer.close()
    if not local:
      part = part.copy(directory.part_name(shard), overwrite=True)
    directory.write_file(
      _sidecar(shard), json.dumps(stats, ensure_ascii=False).encode()
    )
    part.replace(shard)
  return stats
