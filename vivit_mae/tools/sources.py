"""What `dataset prepare` reads: files that are listed, or records."""

import argparse
import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence

from etils import epath

from vivit_mae.data import (
  datasets,
  frame_folders,
  layouts,
  lists,
  picture_files,
)
from vivit_mae.data.labels import ClassNames
from vivit_mae.data.listing import (
  SPLITS,
  Example,
  Examples,
  Listing,
  hold_out,
  shown,
)

# What `src` can be beside files of video and lists of them.
KINDS = ('frames', 'tfds', 'dmvr')
# Shards of this many bytes are quick to copy and few enough to keep open.
_SHARD_BYTES = 2**28
# As many of the usual ten seconds, encoded anew.
_SHARD_RECORDS = 256


@dataclasses.dataclass(frozen=True)
class Videos:
  """Videos to be written.

  Attributes:
    splits: Examples by split.
    class_names: What their labels index.
    multi_label: Whether several classes may apply to a video.
    known: Examples that can be looked at, as nothing is read for it: all, or
      of records the first of each split.
    shards: Files to write for each split.
    fingerprint: What tells these videos from others; None to have it made.
    left_out: What the listing leaves out, for the user.
  """

  splits: Mapping[str, Examples]
  class_names: ClassNames
  multi_label: bool
  known: Sequence[Example]
  shards: dict[str, int]
  fingerprint: str | None = None
  left_out: Sequence[str] = ()


def add_layout(parser: argparse.ArgumentParser, path: str) -> None:
  """Adds the option that says that a path is a public dataset.

  Args:
    parser: Of a command.
    path: What the command calls the path.
  """
  parser.add_argument(
    '--layout',
    choices=tuple(layouts.LAYOUTS),
    metavar='NAME',
    help=(
      f'{path} is a public dataset as its owners publish it: '
      f'{", ".join(layouts.LAYOUTS)}'
    ),
  )


def add_kinds(parser: argparse.ArgumentParser, path: str) -> None:
  """Adds the options that say more of what a path is; see `add_layout`."""
  add = parser.add_argument
  add(
    '--csv',
    metavar='FILE',
    help=f'list of the videos; its relative paths then start from {path}',
  )
  add_layout(parser, path)
  add(
    '--official_split',
    type=int,
    metavar='N',
    help='which one, where a layout has several (default: 1)',
  )
  add(
    '--source',
    choices=KINDS,
    help=(
      f'frames: {path} is a folder of folders, or tar files, of pictures; '
      "tfds: a dataset that TFDS prepared; dmvr: Scenic's TFRecords"
    ),
  )
  add(
    '--fps',
    type=float,
    default=30.0,
    metavar='RATE',
    help=(
      'pictures per second of videos that are stored as pictures, where the '
      'data does not say (default: 30)'
    ),
  )


def read_sources(
  src: str,
  csv: str | None,
  unlabelled: Sequence[str],
  layout: str | None = None,
  official_split: int | None = None,
  pictures: bool = False,
) -> Listing:
  """Lists what `src` names: a folder, a list, or a folder of lists.

  Args:
    src: A path; see `--help`.
    csv: A list whose relative paths start from `src`.
    unlabelled: Labels that mean none.
    layout: A key of `layouts.LAYOUTS`, if it is such a dataset.
    official_split: Which one, where a layout has several; None for the first.
    pictures: Whether it is a folder of videos that are stored as pictures.

  Returns:
    The listing.

  Raises:
    ValueError: If there is nothing to read, or if options contradict.
  """
  if layout and csv:
    raise ValueError(f'--csv and --layout={layout}: each says what there is.')
  if layout:
    return layouts.read(layout, src, unlabelled, official_split or 1)
  if official_split is not None:
    raise ValueError('--official_split belongs to a --layout; there is none.')
  if csv:
    return lists.read_csv(csv, unlabelled, root=src)
  if pictures:
    return frame_folders.read_frame_folders(src, unlabelled)
  path = epath.Path(src).expanduser()
  if path.is_file() or lists.has_split_lists(path):
    return lists.read_csv(path, unlabelled)
  return lists.read_folder(path, unlabelled)


def listed(
  listing: Listing,
  src: str,
  split: Sequence[str] | None,
  eval_fraction: float | int,
  fps: float | int,
) -> Videos:
  """Videos that lie in files, or in folders or tar files of pictures.

  Args:
    listing: All there are.
    src: What to call them.
    split: Splits that are wanted, under any of their names; None for all.
    eval_fraction: Share held out as validation if there is no such split.
    fps: Pictures per second.

  Returns:
    The videos.

  Raises:
    ValueError: There is no such split.
  """
  splits = hold_out(listing.splits, eval_fraction)
  if split is not None:
    wanted = [s if s in splits else SPLITS.get(s, s) for s in split]
    wrong = [s for s in wanted if s not in splits]
    if wrong:
      raise ValueError(
        f'{src} has no split {shown(wrong)}; it has {shown(splits)}.'
      )
    splits = {s: splits[s] for s in splits if s in wanted}
  opened = {s: [_open(e, fps) for e in splits[s]] for s in splits}
  return Videos(
    opened,
    listing.class_names,
    listing.multi_label,
    known=[example for part in opened.values() for example in part],
    shards={s: _count_shards(e) for s, e in splits.items()},
    left_out=tuple(_left_out(listing)),
  )


def records(
  kind: str,
  src: str,
  split: Sequence[str] | None,
  unlabelled: Sequence[str],
  fps: float | int,
) -> Videos:
  """Videos in the records of another dataset, which are not read for it.

  Args:
    kind: 'tfds' or 'dmvr'.
    src: The dataset.
    split: Its splits that are wanted.
    unlabelled: Classes that mean none.
    fps: Pictures per second, where it does not say.

  Returns:
    The videos.

  Raises:
    ValueError: No split is named, or there is no such dataset or split.
  """
  if not split:
    raise ValueError(
      f'--source={kind} needs --split, the splits that are to be written: '
      '--split train validation, for instance.'
    )
  opened = {
    s: datasets.open_source(kind, src, s, unlabelled=unlabelled, fps=fps)
    for s in split
  }
  first = next(iter(opened.values()))
  key = [kind, src, fps, {s: len(part) for s, part in opened.items()}]
  return Videos(
    opened,
    first.class_names,
    first.multi_label,
    known=[part[0] for part in opened.values()],
    shards={
      s: math.ceil(len(part) / _SHARD_RECORDS) for s, part in opened.items()
    },
    fingerprint=hashlib.sha256(json.dumps(key).encode()).hexdigest(),
  )


def _open(example: Example, fps: float | int) -> Example:
  """An example whose path, if it names pictures, has become them."""
  if not isinstance(example.video, str):
    return example
  video = picture_files.open_if_pictures(example.video, fps)
  return dataclasses.replace(example, video=video)


def _count_shards(examples: Sequence[Example]) -> int:
  paths = [epath.Path(str(example.video)) for example in examples]
  size = sum(path.stat().length for path in paths if path.exists())
  return max(1, math.ceil(size / _SHARD_BYTES))


def _left_out(listing: Listing) -> Iterator[str]:
  there = {e.id for examples in listing.splits.values() for e in examples}
  # Those that are there and missing are rejected when they are to be opened.
  missing = [name for name, _ in listing.missing if name not in there]
  for names, what in (
    (missing, 'videos are in the lists and not in the folders'),
    ([name for name, _ in listing.duplicates], 'entries name a video again'),
    ([name for name, _ in listing.skipped], 'other files are left out'),
  ):
    if names:
      yield f'{len(names)} {what}: {shown(names)}.'
