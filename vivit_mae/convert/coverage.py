"""What became of each array of a foreign file, as a table."""

import dataclasses
import math
import re
from collections.abc import Iterable

from vivit_mae.convert import rules

LOADED, RESIZED, IGNORED = 'loaded', 'resized', 'ignored'
LEFT, MISSING, MISFIT = 'left', 'missing', 'misfit'
# Those that a whole checkpoint has none of.
_FAULTS = (LEFT, MISSING, MISFIT)
_NUMBER = re.compile(r'\d+')


@dataclasses.dataclass(frozen=True)
class Row:
  """What became of the arrays that make one parameter.

  Attributes:
    theirs: Their names; none for a parameter that nothing is there for.
    ours: The parameter; '' for arrays that no parameter is made of.
    fate: 'loaded', 'resized', 'ignored' (needs no place), 'left' (unknown),
      'missing' (of ours) or 'misfit' (of another shape).
    shape: What was read, in our layout, or theirs where they are left.
    reason: What else there is to say.
  """

  theirs: tuple[str, ...]
  ours: str
  fate: str
  shape: tuple[int, ...]
  reason: str = ''


@dataclasses.dataclass(frozen=True)
class Coverage:
  """What became of all arrays."""

  rows: tuple[Row, ...]

  def of(self, *fates: str) -> list[Row]:
    """The rows of some fates."""
    return [row for row in self.rows if row.fate in fates]

  @property
  def faults(self) -> list[Row]:
    """What keeps the weights from being whole."""
    return self.of(*_FAULTS)

  @property
  def summary(self) -> str:
    """One line with the counts."""
    read = {name for row in self.rows for name in row.theirs}
    used = {name for row in self.of(LOADED, RESIZED) for name in row.theirs}
    ignored = {name for row in self.of(IGNORED) for name in row.theirs}
    numbers = sum(math.prod(row.shape) for row in self.of(LOADED, RESIZED))
    return (
      f'{len(read)} tensors read, {len(used)} matched ({numbers:,} numbers), '
      f'{len(ignored)} not needed, {len(self.of(LEFT))} left, '
      f'{len(self.of(MISFIT))} of another shape; '
      f'{len(self.of(MISSING))} parameters without a tensor'
    )

  def table(self, rows: Iterable[Row] | None = None) -> str:
    """A line for each group of rows that differ by a block's number."""
    groups: dict[tuple, list[Row]] = {}
    for row in self.rows if rows is None else rows:
      key = (
        tuple(_NUMBER.sub('#', name) for name in row.theirs),
        _NUMBER.sub('#', row.ours),
        (row.fate, row.shape, row.reason),
      )
      groups.setdefault(key, []).append(row)
    lines = [('tensors', 'parameter', 'shape', '', '')]
    for group in groups.values():
      first = group[0]
      theirs = ' + '.join(
        rules.collapsed(names)
        for names in zip(*(row.theirs for row in group), strict=True)
      )
      lines.append(
        (
          theirs or '-',
          rules.collapsed([row.ours for row in group]) or '-',
          'x'.join(map(str, first.shape)) or '-',
          first.fate,
          first.reason,
        )
      )
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    return '\n'.join(
      '  '.join(
        cell.ljust(width)
        for cell, width in zip(line, (*widths, 0), strict=True)
      ).rstrip()
      for line in lines
    )
