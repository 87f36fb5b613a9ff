"""The lines of a list of videos: separators, columns, quotes."""

import csv
import dataclasses
import re
from collections.abc import Iterator, Sequence

from etils import epath

from vivit_mae.data import listing, picture_files, scan, segments

_PATH_COLUMNS = ('path', 'video_path', 'video', 'file', 'filename', 'filepath')
_LABEL_COLUMNS = ('label', 'class', 'class_name', 'category', 'action')
SEVERAL = 'labels'  # all that apply, with ';' between them
HEAD = 'label.'  # the label of one head: 'label.verb'
_SPLIT_COLUMNS = ('split', 'subset')
_START_COLUMNS = ('start', 'start_time')
_END_COLUMNS = ('end', 'end_time')

# `path label` with any of the usual separators. The path runs to its last
# known extension, so that it may hold spaces and commas without quotes.
_KNOWN = sorted({*scan.VIDEO_EXTENSIONS, picture_files.TAR})
_ENDINGS = '|'.join(map(re.escape, _KNOWN))
_LINE = re.compile(
  rf'(?P<path>.*(?:{_ENDINGS}))(?:(?:\s*[,;\t]\s*|\s+)(?P<rest>.*))?',
  re.IGNORECASE,
)


@dataclasses.dataclass(frozen=True)
class Line:
  """A line of a list; '' = not given.

  Attributes:
    path: As it is written.
    labels: By column.
    split: The name of a split.
    segment: The part of the video.
  """

  path: str
  labels: dict[str, str]
  split: str = ''
  segment: listing.Segment | None = None


def read(file: epath.Path) -> Iterator[Line]:
  """Reads a list of videos line by line; see `lists.read_csv`.

  Args:
    file: The list.

  Yields:
    Its lines, without that of column names.

  Raises:
    ValueError: If it is empty or no text, or if a line cannot be understood.
  """
  try:
    text = file.read_bytes().decode('utf-8-sig')
  except UnicodeDecodeError as error:
    raise ValueError(
      f'{str(file)!r} is not a list of videos: it is not UTF-8 text. For a '
      "video or a folder of videos use source 'folder'."
    ) from error
  lines = [
    (number, line)
    for number, line in enumerate(text.splitlines(), start=1)
    if line.strip()
  ]
  if not lines:
    raise ValueError(f'The list of videos {str(file)!r} is empty.')
  header = _split_line(lines[0][1], _separator(lines[0][1]))
  names = [name.strip().lower() for name in header]
  if _column(names, _PATH_COLUMNS) is None:
    for number, line in lines:
      path, label = _parse_line(line, f'{file}, line {number}')
      yield Line(path, {'label': label})
    return
  separator = _separator(lines[0][1])
  columns = [
    _column(names, wanted)
    for wanted in (_PATH_COLUMNS, _LABEL_COLUMNS, _SPLIT_COLUMNS)
  ]
  times = [_column(names, c) for c in (_START_COLUMNS, _END_COLUMNS)]
  if (times[0] is None) != (times[1] is None):
    raise ValueError(
      f'{file} has a column for the start or the end of a segment and none for '
      f'the other: {", ".join(names)}. A segment needs both, start and end.'
    )
  several = [name for name in names if name == SEVERAL] or [
    name for name in names if name.startswith(HEAD) and name != HEAD
  ]
  for number, line in lines[1:]:
    if len(names) == 1 or (columns[:2] == [0, 1] and len(names) == 2):
      path, label = _parse_line(line, f'{file}, line {number}')
      yield Line(path, {'label': label})
      continue
    fields = [field.strip() for field in _split_line(line, separator)]
    if len(fields) != len(names):
      raise ValueError(
        f'{file}, line {number} has {len(fields)} columns and the first line '
        f'names {len(names)}: {line!r}. Put quotes around a field that holds '
        'the separator.'
      )
    path, label, split = ('' if c is None else fields[c] for c in columns)
    found = {'label': label}
    if several and columns[1] is None:
      found = {name: fields[names.index(name)] for name in several}
    start, end = ('' if c is None else fields[c] for c in times)
    yield Line(
      path,
      found,
      listing.SPLITS.get(split.lower(), split),
      segments.parse(start, end, f'{file}, line {number}'),
    )


def _separator(line: str) -> str | None:
  """The separator of a line of column names; None = white space."""
  return next((s for s in '\t,;' if s in line), None)


def _split_line(line: str, separator: str | None) -> list[str]:
  if separator is None:
    return line.split()
  return next(csv.reader([line], delimiter=separator, skipinitialspace=True))


def _column(names: list[str], wanted: Sequence[str]) -> int | None:
  return next((names.index(name) for name in wanted if name in names), None)


def _parse_line(line: str, where: str) -> tuple[str, str]:
  """A line of one or two fields without named columns."""
  line = line.strip()
  quoted = re.fullmatch(r'"([^"]+)"(?:\s*[\t,;\s]\s*(.*))?', line)
  match = _LINE.fullmatch(line)
  if quoted:
    path, rest = quoted[1], quoted[2] or ''
  elif match:
    path, rest = match['path'], match['rest'] or ''
  else:
    separator = _separator(line)
    fields = line.split(separator) if separator else line.rsplit(None, 1)
    path, rest = fields[0].strip(), (separator or ' ').join(fields[1:]).strip()
  rest = rest.strip()
  if rest.startswith('"') and rest.endswith('"'):
    rest = rest[1:-1]
  elif any(s in rest for s in '\t,;'):
    raise ValueError(
      f'{where} has more than a path and a label: {line!r}. Name the columns '
      'in the first line (path, label, split; others are ignored), or put '
      'quotes around the label.'
    )
  return path, rest
