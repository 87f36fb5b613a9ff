"""Finds and reads the files of a dataset as it was published."""

import csv
import io
import json
import os
import posixpath
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath

from vivit_mae.data import listing, scan


def open_root(path: epath.PathLike) -> str:
  """The folder of a dataset.

  Args:
    path: What the user gave; any path `etils.epath` understands.

  Returns:
    The path, with '~' replaced.

  Raises:
    ValueError: If it is no folder.
  """
  root = epath.Path(path).expanduser()
  if not root.is_dir():
    raise ValueError(
      f'No such folder: {str(root)!r}. Give the folder that holds the videos '
      'and the lists of the dataset; docs/datasets.md shows how it looks.'
    )
  return os.fspath(root)


def find(root: str, folders: Sequence[str], names: Sequence[str]) -> str | None:
  """Looks for a file that has several usual names and places.

  Args:
    root: The dataset's folder.
    folders: Where it may lie, '' = the root; the first that has it counts.
    names: What it may be called; two of them in one folder are an error.

  Returns:
    Its path; None if there is none.

  Raises:
    ValueError: If it is there under several names.
  """
  for folder in folders:
    place = posixpath.join(root, folder) if folder else root
    files = {c.name for c in scan.children(place) if not c.is_folder}
    found = [name for name in names if name in files]
    if len(found) > 1:
      raise ValueError(
        f'{place} holds {" and ".join(found)}, which are names of the same '
        'list. Leave the one that counts there.'
      )
    if found:
      return posixpath.join(place, found[0])
  return None


def need(root: str, folders: Sequence[str], names: Sequence[str]) -> str:
  """As `find`, for a file that must be there.

  Args:
    root: The dataset's folder.
    folders: Where it may lie.
    names: What it may be called.

  Returns:
    Its path.

  Raises:
    ValueError: If it is not there, or under several names.
  """
  path = find(root, folders, names)
  if path is None:
    places = ', '.join(repr(f or '.') for f in folders)
    raise ValueError(
      f'{root} has no {" or ".join(names)}, neither itself nor in one of the '
      f'usual folders ({places}). docs/datasets.md says where to get it.'
    )
  return path


def read_text(path: str) -> str:
  """The text of a file; ValueError if it is none."""
  try:
    return epath.Path(path).read_bytes().decode('utf-8-sig')
  except UnicodeDecodeError as error:
    raise ValueError(f'{path} is not UTF-8 text: {error}.') from error


def read_lines(path: str) -> Iterator[tuple[str, str]]:
  """Yields ('file, line n', the line) for each line that is not blank."""
  for number, line in enumerate(read_text(path).splitlines(), start=1):
    if line.strip():
      yield f'{path}, line {number}', line.strip()


def read_json(path: str, kind: type) -> Any:
  """Reads a JSON file.

  Args:
    path: The file.
    kind: What it must hold: list or dict.

  Returns:
    Its content.

  Raises:
    ValueError: If it is no JSON or holds something else.
  """
  try:
    content = json.loads(read_text(path))
  except json.JSONDecodeError as error:
    raise ValueError(f'{path} is no JSON: {error}.') from error
  if not isinstance(content, kind):
    raise ValueError(
      f'{path} holds a {type(content).__name__}; a {kind.__name__} is expected.'
    )
  return content


def read_items(
  path: str, fields: Sequence[str]
) -> Iterator[tuple[str, list[Any]]]:
  """Reads a JSON list of objects.

  Args:
    path: The file.
    fields: What is wanted of each.

  Yields:
    'file, item n' and the values of the fields.

  Raises:
    ValueError: If it is no such list, or if an object has not all fields.
  """
  for number, item in enumerate(read_json(path, list)):
    where = f'{path}, item {number}'
    absent = [f for f in fields if not isinstance(item, dict) or f not in item]
    if absent:
      raise ValueError(
        f'{where} has no field {listing.shown(absent)}: {item!s:.200}'
      )
    yield where, [item[field] for field in fields]


def read_table(
  path: str, columns: Sequence[str], bare: Sequence[Sequence[str]] = ()
) -> Iterator[tuple[str, list[str]]]:
  """Reads some columns of a csv file.

  Args:
    path: The file.
    columns: Their names. One that ends in '?' may be absent; its fields are
      then ''.
    bare: The columns of files that come without a first line of names, as
      alternatives of different length; none = that line must be there.

  Yields:
    'file, line n' and the fields.

  Raises:
    ValueError: If a column or a field is not there.
  """
  reader = csv.reader(io.StringIO(read_text(path), newline=''))
  rows = ((f'{path}, line {reader.line_num}', row) for row in reader if row)
  first = next(rows, None)
  if first is None:
    raise ValueError(f'{path} is empty.')
  names = [name.strip() for name in first[1]]
  wanted = [column.rstrip('?') for column in columns]
  if not set(wanted) & set(names):
    fitting = [
      alternative for alternative in bare if len(alternative) == len(names)
    ]
    if fitting:
      names = list(fitting[0])
      rows = _prepended(first, rows)
  absent = [c for c in columns if c not in names and not c.endswith('?')]
  if absent:
    raise ValueError(
      f'{path} has no column {listing.shown(absent)}; its first line is '
      f'{",".join(first[1])!r:.200}.'
    )
  places = [names.index(name) if name in names else -1 for name in wanted]
  for where, row in rows:
    if len(row) != len(names):
      raise ValueError(
        f'{where} has {len(row)} fields and not {len(names)}: '
        f'{",".join(row)!r:.200}.'
      )
    yield where, [row[i].strip() if i >= 0 else '' for i in places]


def _prepended(first, rest):
  yield first
  yield from rest


def whole(text: Any, where: str, what: str) -> int:
  """A whole number; also what is written as '84.0'.

  Args:
    text: The field.
    where: The file and line, for messages.
    what: What the field is called.

  Returns:
    The number.

  Raises:
    ValueError: If it is none.
  """
  try:
    number = float(text)
    if number == int(number):
      return int(number)
  except (TypeError, ValueError, OverflowError):
    pass
  raise ValueError(f'{where}: {what} is {text!r}, which is no whole number.')
