"""The numbers that describe a collection of videos."""

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from vivit_mae.data import labels
from vivit_mae.data.inspection import Facts, Row
from vivit_mae.data.labels import ClassNames


@dataclasses.dataclass(frozen=True)
class Spread:
  """Where some numbers lie.

  Attributes:
    least: The least of them.
    median: The middle one.
    most: The greatest.
    total: Their sum.
  """

  least: float | int
  median: float | int
  most: float | int
  total: float | int

  @classmethod
  def of(cls, values: Iterable[float | int]) -> 'Spread | None':
    """The spread of some numbers; None if there are none."""
    found = sorted(values)
    if not found:
      return None
    return cls(found[0], float(np.median(found)), found[-1], sum(found))


@dataclasses.dataclass(frozen=True)
class Overview:
  """What a collection holds.

  Broken videos count in what a list says of them, splits and labels, and in
  nothing else.

  Attributes:
    splits: Videos by split.
    broken: Videos that cannot be read, or are not there.
    unlabelled: Videos without a label; with several heads, of each of them.
    classes: Videos by class, for each head; '' where there are no heads.
    untrained: Classes that the split 'train' has no video of, if there is such
      a split and another one, by head.
    containers: Videos by container.
    codecs: Videos by codec.
    pixel_formats: Videos by the format of their pixels.
    sizes: Videos by 'width x height', as shown.
    frame_rates: Videos by frames per second.
    variable_frame_rate: Videos whose frames are not evenly spaced.
    durations: Seconds.
    frames: Frames per video.
    num_bytes: Size of the files, each counted once; pictures are not counted.
  """

  splits: dict[str, int]
  broken: int
  unlabelled: int
  classes: dict[str, dict[str, int]]
  untrained: dict[str, list[str]]
  containers: dict[str, int]
  codecs: dict[str, int]
  pixel_formats: dict[str, int]
  sizes: dict[str, int]
  frame_rates: dict[str, int]
  variable_frame_rate: int
  durations: Spread | None
  frames: Spread | None
  num_bytes: int


def summarise(
  rows: Sequence[Row], class_names: ClassNames, num_missing: int = 0
) -> Overview:
  """Counts.

  Args:
    rows: From `inspection.gather`.
    class_names: What the labels index; see `labels`.
    num_missing: Videos that are not there and have no row.

  Returns:
    The numbers; what is counted comes with the most frequent first.
  """
  read = [(row, row.result) for row in rows if isinstance(row.result, Facts)]
  facts = [result for _, result in read]
  files = {
    row.place or f'{row.split}/{row.id}': result.num_bytes or 0
    for row, result in read
  }
  training = [row for row in rows if row.split == 'train']
  untrained = {}
  if training and len(training) < len(rows):
    untrained = {
      head: [name for name, count in counts.items() if not count]
      for head, counts in _count_classes(training, class_names).items()
    }
  return Overview(
    splits=dict(collections.Counter(row.split for row in rows)),
    broken=len(rows) - len(facts) + num_missing,
    unlabelled=sum(
      not (class_names and labels.is_partly_known(row.label)) for row in rows
    ),
    classes=_count_classes(rows, class_names),
    untrained={head: names for head, names in untrained.items() if names},
    containers=_count(f.container for f in facts),
    codecs=_count(f.codec for f in facts),
    pixel_formats=_count(f.pixel_format for f in facts),
    sizes=_count(f'{f.width}x{f.height}' for f in facts),
    frame_rates=_count(_rate(f.fps) for f in facts),
    variable_frame_rate=sum(f.variable_frame_rate for f in facts),
    durations=Spread.of(f.duration for f in facts),
    frames=Spread.of(f.num_frames for f in facts),
    num_bytes=sum(files.values()),
  )


def _rate(fps: float) -> str:
  """A frame rate in words; times in milliseconds make 30 into 29.995."""
  whole = round(fps)
  return str(whole) if abs(fps - whole) < 5e-4 * fps else f'{fps:.2f}'


def _count(values: Iterable) -> dict:
  return dict(collections.Counter(values).most_common())


def _count_classes(
  rows: Sequence[Row], class_names: ClassNames
) -> dict[str, dict[str, int]]:
  """Videos of each class, those without any included, by head."""
  if not class_names:
    return {}
  if isinstance(class_names, Mapping):
    found = {}
    for k, (head, names) in enumerate(class_names.items()):
      column = [
        row.label[k] if isinstance(row.label, tuple) else row.label
        for row in rows
      ]
      found[head] = _count_names(column, names)
    return found
  every = [
    label
    for row in rows
    for label in (row.label if isinstance(row.label, tuple) else [row.label])
  ]
  return {'': _count_names(every, class_names)}


def _count_names(found: Iterable[int], names: Sequence[str]) -> dict[str, int]:
  counts = collections.Counter(found)
  return {name: counts[i] for i, name in enumerate(names)}
