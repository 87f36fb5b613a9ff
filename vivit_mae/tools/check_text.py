"""How `dataset check` says what it has found: in words, csv and JSON."""

import collections
import csv
import dataclasses
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from vivit_mae.data.inspection import KINDS, Finding
from vivit_mae.data.labels import ClassNames
from vivit_mae.data.listing import Examples, shown
from vivit_mae.data.overview import Overview, Spread

# Findings on the screen, of each kind; the report has them all.
_SHOWN = 3
# Values of a row of the table; the others are counted.
_VALUES = 5
_ABOUT = {
  'broken': ', which prepare leaves out',
  'short': ', of fewer than {span} frames (num_frames x stride)',
}


@dataclasses.dataclass(frozen=True)
class Collection:
  """Videos to check.

  Attributes:
    splits: Examples by split.
    class_names: What the labels index.
    left_out: (id, reason) of files that the list or folder leaves out.
    missing: (id, reason) of files that it names and that are not there.
    duplicates: (id, reason) of files that it names more than once.
  """

  splits: Mapping[str, Examples]
  class_names: ClassNames
  left_out: tuple[tuple[str, str], ...] = ()
  missing: tuple[tuple[str, str], ...] = ()
  duplicates: tuple[tuple[str, str], ...] = ()


def table(
  path: str, collection: Collection, overview: Overview
) -> Iterator[str]:
  """The lines of the table.

  Args:
    path: What to call the collection.
    collection: The videos.
    overview: What they hold.

  Yields:
    Lines for the screen.
  """
  total = sum(overview.splits.values())
  rows = [('videos', _counts(overview.splits))]
  for head, counts in overview.classes.items():
    where = f' of {head}' if head else ''
    rows += [(f'classes{where}', _classes(counts))]
    if len(set(counts.values())) > 1:
      rows += [('  fewest videos', _rarest(counts))]
    missing = overview.untrained.get(head)
    if missing:
      rows += [('  not in train', f'{len(missing)}: {shown(missing)}')]
  rows += [
    ('without a label', str(overview.unlabelled)),
    ('can not be read', str(overview.broken)),
    ('containers', _counts(overview.containers)),
    ('codecs', _counts(overview.codecs)),
    ('pixel formats', _counts(overview.pixel_formats)),
    ('sizes', _counts(overview.sizes)),
    ('frames a second', _counts(overview.frame_rates)),
    ('  variable', str(overview.variable_frame_rate)),
  ]
  if overview.durations and overview.frames:
    hours = overview.durations.total / 3600
    rows += [
      ('seconds', f'{_spread(overview.durations)}; {hours:.3g} hours in all'),
      ('frames', f'{_spread(overview.frames)}; {overview.frames.total} in all'),
    ]
  rows += [('bytes', _bytes(overview.num_bytes))]
  if collection.left_out:
    names = shown(f'{name} ({reason})' for name, reason in collection.left_out)
    rows += [
      ('left out', f'{_number(len(collection.left_out), "file")}: {names}')
    ]
  yield f'{path}: {_number(total, "video")}'
  yield ''
  for name, value in rows:
    yield f'  {name:<16} {value or "-"}'


def list_findings(
  findings: Sequence[Finding], span: int, report: epath.Path | None
) -> Iterator[str]:
  """The lines about single videos: the first few of each kind.

  Args:
    findings: All of them.
    span: Frames below which a video is short.
    report: The file that holds them all; None if there is none.

  Yields:
    Lines for the screen.
  """
  grouped: dict[str, dict[str, list[Finding]]] = {}
  for finding in findings:
    kinds = grouped.setdefault(finding.group, {})
    kinds.setdefault(finding.kind, []).append(finding)
  counts = collections.Counter(finding.group for finding in findings)
  hidden = False
  for group in KINDS:
    yield ''
    about = _ABOUT.get(group, '').format(span=span)
    yield f'{group}: {f"{counts[group]}{about}" if counts[group] else "none"}'
    for kind, found in grouped.get(group, {}).items():
      if len(KINDS[group]) > 1:
        yield f'  {kind}, {KINDS[group][kind]}: {len(found)}'
      for one in found[:_SHOWN]:
        yield f'    {one.id}{": " if one.reason else ""}{one.reason}'
      if len(found) > _SHOWN:
        hidden = True
        yield f'    and {len(found) - _SHOWN} more'
  if report is not None:
    yield f'\nAll are in {report}.'
  elif hidden:
    yield '\n--report=FILE writes all of them to a csv file.'


def say(lines: Iterable[str]) -> None:
  """Prints lines, for as long as somebody reads them."""
  try:
    print('\n'.join(lines), flush=True)
  except BrokenPipeError:  # `head` has enough
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def write(path: epath.Path, content: bytes) -> None:
  """Writes a file, and its folder; raises ValueError if that cannot be."""
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
  except OSError as error:
    raise ValueError(f'{path} can not be written: {error}.') from error


def to_csv(findings: Sequence[Finding]) -> str:
  """All findings, one in a line."""
  text = io.StringIO()
  rows = csv.writer(text, lineterminator='\n')
  rows.writerow(['split', 'id', 'finding', 'kind', 'reason'])
  for one in findings:
    meaning = KINDS[one.group][one.kind]
    reason = f'{meaning}: {one.reason}' if one.reason else meaning
    rows.writerow([one.split, one.id, one.group, one.kind, reason])
  return text.getvalue()


def to_json(
  path: str,
  collection: Collection,
  overview: Overview,
  findings: Sequence[Finding],
) -> str:
  """Everything, for other programs."""
  content: dict[str, Any] = {
    'path': path,
    **dataclasses.asdict(overview),
    'left_out': [name for name, _ in collection.left_out],
    'findings': [dataclasses.asdict(finding) for finding in findings],
  }
  return json.dumps(content, indent=1, ensure_ascii=False)


def _counts(counts: Mapping[Any, int]) -> str:
  """Values and how often each is there; of many the most frequent."""
  items = [f'{value} ({count})' for value, count in counts.items()]
  if len(items) > _VALUES + 1:
    rest = sum(list(counts.values())[_VALUES:])
    others = f'{len(items) - _VALUES} others ({rest})'
    items = [*items[:_VALUES], others]
  return ', '.join(items)


def _classes(counts: Mapping[str, int]) -> str:
  spread = Spread.of(counts.values())
  assert spread is not None
  if spread.least == spread.most:
    return f'{len(counts)}, each of {_number(int(spread.most), "video")}'
  return (
    f'{len(counts)}, of {spread.least} to {spread.most} videos '
    f'(median {spread.median:g})'
  )


def _rarest(counts: Mapping[str, int]) -> str:
  ordered = sorted(counts.items(), key=lambda item: item[1])
  return ', '.join(f'{name} ({count})' for name, count in ordered[:_VALUES])


def _spread(spread: Spread) -> str:
  return f'{spread.least:.4g} to {spread.most:.4g}, median {spread.median:.4g}'


def _bytes(count: int) -> str:
  for power, unit in ((12, 'TB'), (9, 'GB'), (6, 'MB')):
    if count >= 10**power:
      return f'{count} ({count / 10**power:.1f} {unit})'
  return str(count)


def _number(count: int, what: str) -> str:
  return f'{count} {what}{"s"[: count != 1]}'
