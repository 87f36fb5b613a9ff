"""Reads folders of videos and lists of videos."""

import csv
import dataclasses
import os
import posixpath
import re
from collections.abc import Iterator, Sequence

from etils import epath

from vivit_mae.data import listing
from vivit_mae.data.labels import ClassNames

# Containers that FFmpeg reads as video; other files are left out and reported.
EXTENSIONS = frozenset(
  (
    *('.3g2', '.3gp', '.asf', '.avi', '.f4v', '.flv', '.gif', '.m2ts', '.m2v'),
    *('.m4v', '.mjpeg', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.mts'),
    *('.mxf', '.ogv', '.ts', '.vob', '.webm', '.wmv', '.y4m'),
  )
)

_PATH_COLUMNS = ('path', 'video_path', 'video', 'file', 'filename', 'filepath')
_LABEL_COLUMNS = ('label', 'class', 'class_name', 'category', 'action')
_SEVERAL = 'labels'  # all that apply, with ';' between them
_HEAD = 'label.'  # the label of one head: 'label.verb'
_SPLIT_COLUMNS = ('split', 'subset')

# `path label` with any of the usual separators. The path runs to its last
# known extension, so that it may hold spaces and commas without quotes.
_ENDINGS = '|'.join(map(re.escape, sorted(EXTENSIONS)))
_LINE = re.compile(
  rf'(?P<path>.*(?:{_ENDINGS}))(?:(?:\s*[,;\t]\s*|\s+)(?P<rest>.*))?',
  re.IGNORECASE,
)


def read_folder(
  root: epath.PathLike, unlabelled: Sequence[str] = ()
) -> listing.Listing:
  """Lists a folder of videos, recursively and in sorted order.

  With subfolders, the first level names the class, and files that lie directly
  in `root` have no label. Without subfolders nothing has a label. Where the
  subfolders are named train, validation (or val) and test and nothing else,
  they are the splits, and each is read as such a folder of its own. Hidden
  files and folders are left out.

  Args:
    root: The folder; any path `etils.epath` understands.
    unlabelled: Class folders, as names or shell patterns, whose videos have no
      label.

  Returns:
    The listing; everything is in the split 'train' when the folder has none.

  Raises:
    ValueError: If `root` is no folder or holds no video, or if a name in
      `unlabelled` fits no class folder.
  """
  root = epath.Path(root).expanduser()
  if not root.is_dir():
    raise ValueError(
      f'No such folder of videos: {str(root)!r}. Give the path of an existing '
      "folder, or use source 'csv' for a list of videos."
    )
  files = list(_walk(root, '', (_real(root),)))
  videos = [f for f in files if _extension(f) in EXTENSIONS]
  skipped = tuple(
    (f, f'{_extension(f) or "no extension"}: not known as a video')
    for f in files
    if _extension(f) not in EXTENSIONS
  )
  if not videos:
    raise ValueError(
      f'{str(root)!r} holds no video: {len(files)} other files were found. '
      f'Videos are known by their extension: {" ".join(sorted(EXTENSIONS))}.'
    )
  by_split = all(f.split('/')[0] in listing.SPLITS and '/' in f for f in videos)
  entries = []
  folders = set()
  for name in videos:
    split, rest = name.split('/', 1) if by_split else ('train', name)
    folder = rest.split('/')[0] if '/' in rest else ''
    folders.add(folder)
    label = '' if listing.fits(folder, unlabelled) else folder.strip()
    entries.append(
      listing.Entry(listing.SPLITS[split], str(root / name), name, label)
    )
  listing.check_unlabelled(
    unlabelled, folders - {''}, f'class folder of {root}'
  )
  names = sorted({entry.label for entry in entries} - {''})
  return listing.number_labels(entries, tuple(names), skipped=skipped)


def read_csv(
  path: epath.PathLike,
  unlabelled: Sequence[str] = (),
  root: epath.PathLike | None = None,
) -> listing.Listing:
  """Reads a list of videos: a path in every line, and a label if there is one.

  Separators are comma, semicolon, tab or space. Paths may hold spaces, with or
  without quotes. A first line naming the columns (`path`, `label`, `split`; in
  any order, others are ignored) is understood and needed only for more than
  two columns. Labels are names or class numbers; none, or -1, is no label.

  A column `labels` instead of `label` holds any number of them, with ';' in
  between: the data is then multi-label, and an empty field says that no class
  applies. Columns `label.verb`, `label.noun` and so on hold one label for each
  of several heads.

  Args:
    path: The list, or a folder that holds `train.csv`, `val.csv` (or
      `validation.csv`) and `test.csv`, any of which may be absent.
    unlabelled: Labels, as names or shell patterns, to be read as none. Among
      several, one of them suffices for a video to have none.
    root: The folder that relative paths start from; the list's own by default.

  Returns:
    The listing; everything is in the split 'train' when nothing says more.

  Raises:
    ValueError: If there is no such list, if it is empty, or if a line cannot be
      understood (the message says which).
  """
  path = epath.Path(path).expanduser()
  if path.is_dir():
    lists = _split_lists(path)
  else:
    lists = [path] if path.exists() else []
  if not lists:
    raise ValueError(
      f'No list of videos at {str(path)!r}. Give a csv file, or a folder that '
      'holds train.csv, val.csv or test.csv.'
    )
  entries: list[listing.Entry] = []
  kinds: dict[tuple[str, ...], str] = {}
  for file in lists:
    base = epath.Path(root).expanduser() if root else file.parent
    if '://' not in os.fspath(base):
      base = epath.Path(os.path.abspath(base))
    split = listing.SPLITS.get(posixpath.splitext(file.name)[0], 'train')
    for video, fields, own_split in _read_lines(file):
      kinds.setdefault(tuple(fields), str(file))
      place, name = _resolve(video, base)
      entries.append(
        listing.Entry(own_split or split, place, name, _names(fields))
      )
  if len(kinds) > 1:
    raise ValueError(
      'Lists of one dataset must have the same label columns: '
      + '; '.join(f'{f} has {", ".join(k)}' for k, f in kinds.items())
    )
  kind = next(iter(kinds), ('label',))
  entries, names = _classes(entries, kind, unlabelled, str(path))
  missing = tuple(
    (e.id, 'no such file') for e in entries if not epath.Path(e.path).exists()
  )
  return listing.number_labels(
    entries, names, (_SEVERAL,) in kinds, missing=missing
  )


def _names(fields: dict[str, str]) -> tuple[str, ...]:
  """The labels of one line: those that apply, or that of each head."""
  if _SEVERAL in fields:
    several = (name.strip() for name in fields[_SEVERAL].split(';'))
    return tuple(_number(name) for name in several if name)
  return tuple(map(_number, fields.values()))


def _classes(
  entries: list[listing.Entry],
  kind: tuple[str, ...],
  unlabelled: Sequence[str],
  where: str,
) -> tuple[list[listing.Entry], ClassNames]:
  """Takes out labels that mean none; finds the names of the classes."""
  found = {name for entry in entries for name in entry.label} - {''}
  listing.check_unlabelled(unlabelled, found, f'label in {where}')
  none = {name for name in found if listing.fits(name, unlabelled)}

  def cleared(label):
    if kind == (_SEVERAL,):
      return ('',) if none.intersection(label) else label
    return tuple('' if name in none else name for name in label)

  labels = [cleared(entry.label) for entry in entries]
  if kind[0].startswith(_HEAD):
    heads = [head.removeprefix(_HEAD) for head in kind]
    columns = zip(*labels, strict=True)
    names = {
      head: _list_classes(set(column) - {''})
      for head, column in zip(heads, columns, strict=True)
    }
  else:
    names = _list_classes({name for label in labels for name in label} - {''})
    if kind != (_SEVERAL,):
      labels = [label[0] for label in labels]
  entries = [
    dataclasses.replace(entry, label=label)
    for entry, label in zip(entries, labels, strict=True)
  ]
  return entries, names


def has_split_lists(folder: epath.PathLike) -> bool:
  """Whether a folder holds train.csv, val.csv or test.csv."""
  folder = epath.Path(folder)
  return folder.is_dir() and bool(_split_lists(folder))


def _extension(name: str) -> str:
  return posixpath.splitext(name)[1].lower()


def _real(folder: epath.Path) -> str:
  name = os.fspath(folder)
  return name if '://' in name else os.path.realpath(name)


def _walk(
  folder: epath.Path, prefix: str, above: tuple[str, ...]
) -> Iterator[str]:
  """Relative paths of all files; links that lead back up are not followed."""
  for path in sorted(folder.iterdir(), key=lambda p: p.name):
    if path.name.startswith('.'):
      continue
    if not path.is_dir():
      yield prefix + path.name
    elif (real := _real(path)) not in above:
      yield from _walk(path, f'{prefix}{path.name}/', (*above, real))


def _list_classes(labels: set[str]) -> tuple[str, ...]:
  """Class names of a list: the labels, or all numbers up to the largest."""
  if all(label.isdecimal() for label in labels):
    return tuple(map(str, range(max(map(int, labels), default=-1) + 1)))
  return tuple(sorted(labels))


def _split_lists(folder: epath.Path) -> list[epath.Path]:
  """The files of a folder that list the videos of one split each."""
  found = []
  for path in sorted(folder.iterdir(), key=lambda p: p.name):
    stem, extension = posixpath.splitext(path.name)
    if stem in listing.SPLITS and extension in ('.csv', '.tsv', '.txt'):
      found.append(path)
  return found


def _resolve(video: str, base: epath.Path) -> tuple[str, str]:
  """The path to open and the id: relative to `base` where it lies below."""
  path = epath.Path(video).expanduser()
  if '://' not in video:
    path = epath.Path(os.path.normpath(base / path))
  below = path.is_relative_to(base)
  return os.fspath(path), str(path.relative_to(base)) if below else str(path)


def _read_lines(
  file: epath.Path,
) -> Iterator[tuple[str, dict[str, str], str]]:
  """Yields path, label columns and split of each line; '' = none."""
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
      yield path, {'label': label}, ''
    return
  separator = _separator(lines[0][1])
  columns = [
    _column(names, wanted)
    for wanted in (_PATH_COLUMNS, _LABEL_COLUMNS, _SPLIT_COLUMNS)
  ]
  several = [name for name in names if name == _SEVERAL] or [
    name for name in names if name.startswith(_HEAD) and name != _HEAD
  ]
  for number, line in lines[1:]:
    if len(names) == 1 or (columns[:2] == [0, 1] and len(names) == 2):
      path, label = _parse_line(line, f'{file}, line {number}')
      yield path, {'label': label}, ''
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
    yield path, found, listing.SPLITS.get(split.lower(), split)


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


def _number(label: str) -> str:
  """A class number in its plain form, so that '007' and '7' are one class."""
  if label == '-1':
    return ''
  return str(int(label)) if label.isdecimal() else label
