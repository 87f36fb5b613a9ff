"""What videos there are: examples, labels and splits.

Nothing here opens a video. A listing names files; whether one of them can be
decoded is found out by `prepare`, or while training.
"""

import dataclasses
import fnmatch
import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from vivit_mae.data import labels
from vivit_mae.data.frames import Frames
from vivit_mae.data.labels import ClassNames, Label

SPLITS = {
  'train': 'train',
  'training': 'train',
  'validation': 'validation',
  'validate': 'validation',
  'valid': 'validation',
  'val': 'validation',
  'dev': 'validation',
  'test': 'test',
  'testing': 'test',
}


# How many names an error message shows before it only counts.
_SHOWN = 10


# Start and end in seconds of a part of a video.
Segment = tuple[float | int, float | int]


class Box(NamedTuple):
  """A person in the middle frame of an example, and what they do.

  Attributes:
    x1: Left edge, as a fraction of the frame's width.
    y1: Upper edge, as a fraction of its height.
    x2: Right edge.
    y2: Lower edge.
    person: Which person it is, the same throughout a video; -1 = not known.
    classes: Indices of the classes that apply, sorted.
  """

  x1: float
  y1: float
  x2: float
  y2: float
  person: int
  classes: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Example:
  """One video of a dataset.

  Attributes:
    video: The encoded bytes, the path of the file, or its pictures.
    label: Index into the dataset's class names, or several; -1 = no label. See
      `labels`.
    id: A name that stays the same on every machine: the path relative to the
      folder or list the video came from, or what the dataset itself calls it.
    segment: The part that is meant; None for all.
    boxes: The persons in its middle frame, in data that has boxes.
  """

  video: bytes | str | Frames
  label: Label
  id: str
  segment: Segment | None = None
  boxes: tuple[Box, ...] | None = None


@runtime_checkable
class Examples(Protocol):
  """Examples by index, listed or made when they are asked for."""

  def __len__(self) -> int: ...

  def __getitem__(self, index: int, /) -> Example: ...


@dataclasses.dataclass(frozen=True)
class Listing:
  """The videos that a folder or a list names.

  Attributes:
    splits: Examples by split, in a stable order.
    class_names: In the dataset's own order, else sorted; `Example.label`
      indexes them. Empty = no labels; with several heads, those of each.
    multi_label: Whether several classes may apply to a video.
    skipped: (id, reason) of files and entries that are left out: files that are
      not videos by their name, for instance.
    missing: (id, reason) of examples whose files do not exist.
    duplicates: (id, reason) of entries that name a video once more.
  """

  splits: dict[str, tuple[Example, ...]]
  class_names: ClassNames
  multi_label: bool = False
  skipped: tuple[tuple[str, str], ...] = ()
  missing: tuple[tuple[str, str], ...] = ()
  duplicates: tuple[tuple[str, str], ...] = ()


@dataclasses.dataclass(frozen=True)
class Entry:
  """A video before its label has become a number.

  Attributes:
    split: The name of its split.
    path: Where it is.
    id: See `Example`.
    label: The name of its class, '' = none; or several names, as
      `labels.numbering` takes them.
    segment: See `Example`.
    boxes: See `Example`.
  """

  split: str
  path: str
  id: str
  label: str | tuple[str, ...]
  segment: Segment | None = None
  boxes: tuple[Box, ...] | None = None


def number_labels(
  entries: Sequence[Entry],
  class_names: ClassNames,
  multi_label: bool = False,
  **report,
) -> Listing:
  """Turns label names into indices of the class names.

  Args:
    entries: All videos, in the order to keep.
    class_names: All labels but ''; with several heads, of each.
    multi_label: Whether several may apply to a video.
    **report: Further fields of the listing.

  Returns:
    The listing, with 'train' as its first split.
  """
  number = labels.numbering(class_names, multi_label)
  splits: dict[str, list[Example]] = {}
  for entry in entries:
    label = number(entry.label)
    splits.setdefault(entry.split, []).append(
      Example(entry.path, label, entry.id, entry.segment, entry.boxes)
    )
  ordered = sorted(splits, key=lambda s: (s != 'train', s))
  return Listing(
    {s: tuple(splits[s]) for s in ordered}, class_names, multi_label, **report
  )


def select(
  listing: Listing, split: str, eval_fraction: int | float, where: str
) -> tuple[Example, ...]:
  """Takes one split, holding videos out for evaluation when it must.

  A listing without a validation split holds out a share of 'train', chosen by
  a hash of the id: the choice depends neither on the order nor on the other
  videos, so that nothing changes sides when the data grows.

  Args:
    listing: What there is.
    split: 'train', 'validation' (or 'val'), 'test', any split of the listing,
      or 'all'.
    eval_fraction: The share of 'train' to hold out as 'validation', used when
      the listing has no validation split of its own.
    where: The name of the data, for messages.

  Returns:
    The examples of the split, in the listing's order.

  Raises:
    ValueError: If the split does not exist or is empty.
  """
  splits = hold_out(listing.splits, eval_fraction)
  if split == 'all':
    return tuple(e for examples in splits.values() for e in examples)
  chosen = splits.get(SPLITS.get(split, split), ())
  if not chosen:
    counts = ', '.join(f'{k} ({len(v)})' for k, v in splits.items())
    raise ValueError(
      f'{where} has no videos in the split {split!r}. There are: {counts}. '
      'data.eval_fraction holds out a share of the videos as '
      "'validation' where there is no such split (it is now "
      f'{eval_fraction:g}).'
    )
  return chosen


def hold_out(
  splits: dict[str, tuple[Example, ...]], eval_fraction: int | float
) -> dict[str, tuple[Example, ...]]:
  """Moves a share of 'train' to 'validation', unless there is one already.

  Args:
    splits: Examples by split.
    eval_fraction: The share; which videos, a hash of their ids says.

  Returns:
    The splits; none is empty.

  Raises:
    ValueError: If it is no share.
  """
  if not 0.0 <= eval_fraction < 1.0:
    raise ValueError(
      f'data.eval_fraction is {eval_fraction}; it is a share of the videos, at '
      'least 0 and less than 1.'
    )
  if not eval_fraction or splits.get('validation'):
    return splits
  train = splits.get('train', ())
  kept = tuple(e for e in train if _share(e.id) >= eval_fraction)
  held = tuple(e for e in train if _share(e.id) < eval_fraction)
  moved = splits | {'train': kept, 'validation': held}
  return {split: examples for split, examples in moved.items() if examples}


def shown(names: Iterable[str], separator: str = ', ') -> str:
  """The first few names, and how many more there are."""
  names = list(names)
  parts = names[:_SHOWN]
  if len(names) > _SHOWN:
    parts.append(f'and {len(names) - _SHOWN} more')
  return separator.join(parts)


def fits(name: str, patterns: Sequence[str]) -> bool:
  """Whether a name equals or matches one of the shell patterns."""
  return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def check_unlabelled(
  patterns: Sequence[str], names: set[str], what: str
) -> None:
  """Refuses a pattern that fits no name: it is a slip of the pen."""
  unused = [p for p in patterns if not fnmatch.filter(names, p)]
  if unused:
    raise ValueError(
      f'data.unlabelled names {shown(unused)}, which fits no {what}. There '
      f'are: {shown(sorted(names)) or "none"}.'
    )


def _share(name: str) -> float:
  digest = hashlib.sha256(name.encode()).digest()
  return int.from_bytes(digest[:8], 'big') / 2**64
