"""Writes videos as a dataset that TFDS reads: ArrayRecord of encoded bytes.

TFDS's own generator starts from nothing after an interruption. Here each shard
is written under another name and renamed when complete, and the metadata, which
make the directory a dataset, are written last: a killed run goes on at the
first missing shard, and half a dataset never opens. The same videos give the
same shards, whatever the threads or machines that write them.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from typing import Any

import tqdm
from etils import epath

from vivit_mae.data import directory, isolation, opening, reencode
from vivit_mae.data import shards as shards_lib
from vivit_mae.data.directory import Prepared, Rejected
from vivit_mae.data.labels import ClassNames
from vivit_mae.data.listing import Examples, shown
from vivit_mae.data.loss import Loss
from vivit_mae.data.shards import Recipe, Shard


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
  isolated: bool = False,
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
    isolated: Open them in processes of their own, so that one that crashes
      FFmpeg is left out, and ends nothing. As always when Python starts
      processes, a script's work then stands below `if __name__ == '__main__':`.
    write_shards: Calls `shards.write_shard` on each of some shards, elsewhere;
      None writes them here, one after the other.
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
    missing = [shard for shard in wanted if shards_lib.finished(shard) is None]
    write_shards(missing, recipe)
  else:
    _write_here(wanted, recipe, num_threads, isolated, progress)
  stats: dict[str, list[dict[str, Any]]] = {}
  for shard in wanted:
    done = shards_lib.finished(shard)
    if done is None:
      raise ValueError(
        f'{shard.path} was written, and is not there. All machines that write '
        'must see the directory under this name.'
      )
    stats.setdefault(shard.split, []).append(done)
  return _finish(out, name, recipe, stats)


def _write_here(
  shards: Sequence[Shard],
  recipe: Recipe,
  num_threads: int,
  isolated: bool,
  progress: bool,
) -> None:
  """Writes the missing ones of some shards."""
  with (
    tqdm.tqdm(
      total=sum(len(shard.part) for shard in shards),
      unit=' videos',
      desc='Preparing',
      disable=not progress,
    ) as bar,
    isolation.Calls(opening.open_video) as elsewhere,
    futures.ThreadPoolExecutor(num_threads) as pool,
  ):
    call = elsewhere if isolated else opening.open_video
    opener = shards_lib.Opener(pool, num_threads, call)
    for shard in shards:
      shards_lib.write(shard, recipe, opener, bar.update)


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
