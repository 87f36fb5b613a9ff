"""Finds the files of a dataset that is spread over many, by their names."""

import os
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence

from etils import epath

from vivit_mae.data import listing, scan

# 'train-00003-of-00059', with '.tfrecord' before or after the numbers, or no
# numbers but '.tfrecord'.
_FILE = re.compile(
  r'(?P<set>.*?)(?P<a>\.tfrecords?)?'
  r'(?:(?:-|(?<=/)|^)(?P<k>\d+)-of-(?P<n>\d+))?(?P<b>\.tfrecords?)?'
)
_SPEC = re.compile(r'(?P<set>.+)@(?P<n>[1-9]\d*)')  # Scenic's 'train@59'
_WILD = re.compile(r'[*?\[]')


def find(path: str) -> tuple[str, dict[str, list[str]]]:
  """Finds TFRecord files and sorts them into sets, such as 'train'.

  Args:
    path: A folder, which is searched with its subfolders, a pattern for names
      of files, one file, or 'PREFIX@N' for PREFIX-00000-of-0000N and so on.

  Returns:
    The folder above all, and the files of each set relative to it. A set is
    called by what precedes the numbers in the names (with subfolders:
    'train/part'). Files without numbers are a set each, or together where they
    lie in a subfolder.

  Raises:
    ValueError: If there is none, or if not all of a set are there.
  """
  if not path:
    raise ValueError('data.path is empty: say where the TFRecord files are.')
  path = os.fspath(epath.Path(path).expanduser())
  spec = _SPEC.fullmatch(path)
  wild = _WILD.search(path)
  if spec and not epath.Path(path).exists():
    root, prefix = posixpath.split(spec['set'])
    n = int(spec['n'])
    names = [f'{prefix}-{k:05d}-of-{n:05d}' for k in range(n)]
    there = {child.name for child in scan.children(root or '.')}
    _check_whole({prefix: [(k, n) for k in range(n) if names[k] in there]}, n)
  elif wild:
    root = posixpath.dirname(path[: wild.start()]) or '.'
    rest = path.removeprefix(root).lstrip('/')
    names = sorted(
      str(p.relative_to(root)) for p in epath.Path(root).glob(rest)
    )
  elif epath.Path(path).is_dir():
    root = path
    if (epath.Path(root) / 'dataset_info.json').exists():
      raise ValueError(
        f"{path!r} was prepared by TFDS: read it with source 'tfds'."
      )
    names = [name for name in _walk(root, '') if _is_record_file(name)]
    _check_whole(_numbers(names))
  else:
    root, name = posixpath.split(path)
    names = [name] if epath.Path(path).exists() else []
  if not names:
    raise ValueError(
      f'No TFRecord files at {path!r}. Their names end in -00000-of-00010 and '
      'so on, or in .tfrecord; a pattern, such as data/train*, finds others.'
    )
  sets: dict[str, list[str]] = {}
  for name in names:
    sets.setdefault(_set_name(name), []).append(name)
  return root, sets


def choose(
  sets: Mapping[str, Sequence[str]], split: str, where: str
) -> list[str]:
  """Which sets a split consists of.

  Args:
    sets: What `find` has found.
    split: 'train', 'validation', 'test' and the like, the name of a set, or
      'all'.
    where: The name of the data, for errors.

  Returns:
    Names of sets: one, or with 'all' one for each split.

  Raises:
    ValueError: If there is none, or more than one of the same split, which may
      hold the same videos.
  """
  if split in sets:
    return [split]
  names: dict[str, list[str]] = {}
  for name in sets:
    words = re.split(r'[^a-z]+', name.lower())
    own = next((listing.SPLITS[w] for w in words if w in listing.SPLITS), '')
    own = own or ('train' if len(sets) == 1 else name)
    names.setdefault(own, []).append(name)
  chosen = list(names) if split == 'all' else [listing.SPLITS.get(split, split)]
  for one in chosen:
    if len(names.get(one, ())) > 1:
      raise ValueError(
        f'{where} has several sets for the split {one!r}: '
        f'{listing.shown(names[one])}. Name one of them as the split, or give '
        'a pattern for the names of the files that are meant.'
      )
  if not all(one in names for one in chosen):
    raise ValueError(
      f'{where} has no split {split!r}. There are: {listing.shown(names)}.'
    )
  return [names[one][0] for one in chosen]


def _parse(name: str) -> re.Match[str]:
  found = _FILE.fullmatch(name)
  assert found  # Everything in it is optional.
  return found


def _set_name(name: str) -> str:
  found = _parse(name)
  if not found['k'] and posixpath.dirname(name):
    return posixpath.dirname(name)
  return found['set'].rstrip('/') or name


def _is_record_file(name: str) -> bool:
  found = _parse(name)
  return bool(found['k'] or found['a'] or found['b'])


def _numbers(names: Sequence[str]) -> dict[str, list[tuple[int, int]]]:
  """Number and count of each numbered file, by set."""
  sets: dict[str, list[tuple[int, int]]] = {}
  for found in map(_parse, names):
    if found['k']:
      pair = int(found['k']), int(found['n'])
      sets.setdefault(found['set'], []).append(pair)
  return sets


def _check_whole(
  sets: Mapping[str, Sequence[tuple[int, int]]], count: int | None = None
) -> None:
  """Refuses sets of which files are missing."""
  for name, numbers in sets.items():
    counts = sorted({n for _, n in numbers} | ({count} if count else set()))
    if len(counts) > 1:
      raise ValueError(
        f'There are files {name}-* of sets of different sizes: '
        f'{listing.shown(map(str, counts))}. Take all but one of them away.'
      )
    missing = sorted(set(range(counts[0])) - {k for k, _ in numbers})
    if missing:
      raise ValueError(
        f'Of the {counts[0]} files {name}-*, {len(missing)} are missing: '
        f'numbers {listing.shown(map(str, missing))}.'
      )


def _walk(folder: str, prefix: str) -> Iterator[str]:
  """Relative paths of the files of a folder and those below it."""
  for child in scan.children(folder):
    if child.name.startswith('.'):
      continue
    if child.is_folder:
      below = posixpath.join(folder, child.name)
      yield from _walk(below, f'{prefix}{child.name}/')
    else:
      yield prefix + child.name
