"""Writes videos as a dataset ready for training: `dataset prepare`."""

import argparse
import collections
import math
import os
from collections.abc import Sequence

from etils import epath

from vivit_mae.data import lists, writer
from vivit_mae.data.listing import SPLITS, Example, Listing, hold_out, shown

# Shards of this many bytes are quick to copy and few enough to keep open.
_SHARD_BYTES = 2**28
# Rejected videos on the screen, of each kind; the file has them all.
_SHOWN = 3


def add_parser(commands: argparse._SubParsersAction) -> None:
  """Adds `prepare` to the commands of `vivit_mae.tools.dataset`."""
  parser = commands.add_parser(
    'prepare',
    help='write videos as a dataset for training',
    description=(
      'Checks every video and writes the readable ones, as they are, to a '
      'dataset that TFDS and data.source=tfds open. Gives the reason for each '
      'video that is left out. The same command goes on after an interruption.'
    ),
  )
  add = parser.add_argument
  add(
    'src',
    help=(
      'a folder of videos (the first level of subfolders names the class; '
      'folders train, validation and test are splits), a csv file of `path '
      'label`, or a folder with train.csv, val.csv and test.csv'
    ),
  )
  add('--out', required=True, metavar='DIR', help='where to write the dataset')
  add(
    '--csv',
    metavar='FILE',
    help='list of the videos; its relative paths then start from src',
  )
  add(
    '--split',
    nargs='+',
    metavar='NAME',
    help='write these splits only, such as train (default: all there are)',
  )
  add(
    '--unlabelled',
    nargs='+',
    default=(),
    metavar='NAME',
    help="class folders or labels that mean no label; '*' drops all labels",
  )
  add(
    '--eval_fraction',
    type=float,
    default=0.0,
    metavar='SHARE',
    help='share of the videos held out as validation if there is no such split',
  )
  add(
    '--shards',
    type=int,
    metavar='N',
    help='files per split (default: one per 256 MB)',
  )
  add(
    '--check',
    choices=writer.CHECKS,
    default='full',
    help=(
      'full: decode every frame (default); packets: count frames only, several '
      'times faster, misses damage inside the video'
    ),
  )
  add('--name', default='videos', help='name of the dataset (default: videos)')
  add(
    '--threads',
    type=int,
    default=os.cpu_count() or 1,
    metavar='N',
    help='videos checked at the same time (default: one per core)',
  )


def run(arguments: argparse.Namespace) -> int:
  """Runs the command; returns the exit status."""
  print(_report(prepare(**vars(arguments))))
  return 0


def read_sources(
  src: str, csv: str | None, unlabelled: Sequence[str]
) -> Listing:
  """Lists what `src` names: a folder, a list, or a folder of lists.

  Args:
    src: A path; see `--help`.
    csv: A list whose relative paths start from `src`.
    unlabelled: Labels that mean none.

  Returns:
    The listing.

  Raises:
    ValueError: If there is nothing to read.
  """
  if csv:
    return lists.read_csv(csv, unlabelled, root=src)
  path = epath.Path(src).expanduser()
  if path.is_file() or lists.has_split_lists(path):
    return lists.read_csv(path, unlabelled)
  return lists.read_folder(path, unlabelled)


def prepare(
  src: str,
  out: str,
  *,
  csv: str | None = None,
  split: Sequence[str] | None = None,
  unlabelled: Sequence[str] = (),
  eval_fraction: float = 0.0,
  shards: int | None = None,
  check: str = 'full',
  name: str = 'videos',
  threads: int = 1,
  progress: bool = True,
) -> writer.Prepared:
  """Writes videos as a dataset; the arguments are those of the command.

  Args:
    src: Folder, list, or folder of lists.
    out: Directory to write.
    csv: A list whose relative paths start from `src`.
    split: Splits to write; None = all.
    unlabelled: Class folders or labels that mean no label.
    eval_fraction: Share held out as validation if there is no such split.
    shards: Files per split; None = by size.
    check: 'full' or 'packets'.
    name: Name of the dataset.
    threads: Videos checked at the same time.
    progress: Whether to show a progress bar.

  Returns:
    What was written and what was left out.

  Raises:
    ValueError: If there is nothing to read, if `out` holds something else, or
      if an argument is impossible.
  """
  for option, value in (('shards', shards), ('threads', threads)):
    if value is not None and value < 1:
      raise ValueError(f'--{option} is {value}; it is at least 1.')
  listing = read_sources(src, csv, unlabelled)
  if listing.multi_label or not isinstance(listing.class_names, tuple):
    raise ValueError(
      f'{csv or src} gives a video several labels; a prepared dataset keeps at '
      "most one. Train from the list itself: data.source 'csv'."
    )
  splits = hold_out(listing.splits, eval_fraction)
  if split is not None:
    split = [s if s in splits else SPLITS.get(s, s) for s in split]
    wrong = [s for s in split if s not in splits]
    if wrong:
      raise ValueError(
        f'{src} has no split {shown(wrong)}; it has {shown(splits)}.'
      )
    splits = {s: splits[s] for s in splits if s in split}
  if listing.skipped and progress:
    print(
      f'{len(listing.skipped)} files are not videos by their name: '
      f'{shown(name for name, _ in listing.skipped)}.'
    )
  return writer.write_dataset(
    out,
    splits,
    name=name,
    class_names=listing.class_names,
    shards=shards or {s: _count_shards(e) for s, e in splits.items()},
    check=check,
    num_threads=threads,
    progress=progress,
  )


def _count_shards(examples: Sequence[Example]) -> int:
  paths = [epath.Path(str(example.video)) for example in examples]
  size = sum(path.stat().length for path in paths if path.exists())
  return max(1, math.ceil(size / _SHARD_BYTES))


def _report(prepared: writer.Prepared) -> str:
  counts = ', '.join(f'{k} {v}' for k, v in prepared.counts.items())
  lines = [
    f'{sum(prepared.counts.values())} videos ({counts}), '
    f'{prepared.num_bytes / 1e6:.1f} MB, in {prepared.path}'
  ]
  if prepared.rejected:
    lines.append(
      f'{len(prepared.rejected)} left out; all are in '
      f'{prepared.path / "rejected.csv"}:'
    )
  kinds = collections.defaultdict(list)
  for rejected in prepared.rejected:
    kinds[rejected.kind].append(rejected.reason)
  for kind, reasons in sorted(kinds.items()):
    lines.append(f'  {kind}: {len(reasons)}')
    lines += [f'    {reason}' for reason in reasons[:_SHOWN]]
  lines.append(
    'Train on it with --config.data.source=tfds '
    f'--config.data.path={prepared.path}'
  )
  return '\n'.join(lines)
