"""Reads folders of videos and lists of videos."""

import dataclasses
import os
import posixpath
from collections.abc import Iterator, Sequence

from etils import epath

from vivit_mae.data import list_lines, listing, scan, segments
from vivit_mae.data.labels import ClassNames


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
  place = os.fspath(root)
  if not root.is_dir():
    raise ValueError(
      f'No such folder of videos: {str(root)!r}. Give the path of an existing '
      "folder, or use source 'csv' for a list of videos."
    )
  files = list(_walk(place, '', (_real(place),)))
  videos = [f for f in files if scan.is_video(f)]
  skipped = tuple(
    (f, f'{scan.extension(f) or "no extension"}: not known as a video')
    for f in files
    if not scan.is_video(f)
  )
  if not videos:
    raise ValueError(
      f'{str(root)!r} holds no video: {len(files)} other files were found. '
      'Videos are known by their extension: '
      f'{" ".join(sorted(scan.VIDEO_EXTENSIONS))}.'
    )
  return by_folders(place, videos, unlabelled, skipped)


def by_folders(
  root: str,
  videos: Sequence[str],
  unlabelled: Sequence[str],
  skipped: tuple[tuple[str, str], ...],
) -> listing.Listing:
  """Takes splits and classes from the folders that videos lie in.

  Args:
    root: The folder above all.
    videos: Paths relative to it.
    unlabelled: As in `read_folder`.
    skipped: For the listing.

  Returns:
    The listing.

  Raises:
    ValueError: A name in `unlabelled` fits no class folder.
  """
  by_split = all(f.split('/')[0] in listing.SPLITS and '/' in f for f in videos)
  entries = []
  folders = set()
  for name in videos:
    split, rest = name.split('/', 1) if by_split else ('train', name)
    folder = rest.split('/')[0] if '/' in rest else ''
    folders.add(folder)
    label = '' if listing.fits(folder, unlabelled) else folder.strip()
    entries.append(
      listing.Entry(
        listing.SPLITS[split], posixpath.join(root, name), name, label
      )
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

  Columns `start` and `end` (or `start_time` and `end_time`), in seconds or
  h:mm:ss.ss, say which part of the video is meant; both empty mean all of it.

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
    base = os.fspath(epath.Path(root).expanduser() if root else file.parent)
    if not scan.is_remote(base):
      base = os.path.abspath(base)
    split = listing.SPLITS.get(posixpath.splitext(file.name)[0], 'train')
    for line in list_lines.read(file):
      kinds.setdefault(tuple(line.labels), str(file))
      place, name = _resolve(line.path, base)
      entries.append(
        listing.Entry(
          line.split or split,
          place,
          segments.name(name, line.segment),
          _names(line.labels),
          line.segment,
        )
      )
  if len(kinds) > 1:
    raise ValueError(
      'Lists of one dataset must have the same label columns: '
      + '; '.join(f'{f} has {", ".join(k)}' for k, f in kinds.items())
    )
  kind = next(iter(kinds), ('label',))
  entries, names = _classes(entries, kind, unlabelled, str(path))
  there = scan.existing(entry.path for entry in entries)
  missing = tuple(
    (e.id, 'no such file') for e in entries if e.path not in there
  )
  return listing.number_labels(
    entries, names, (list_lines.SEVERAL,) in kinds, missing=missing
  )


def _names(fields: dict[str, str]) -> tuple[str, ...]:
  """The labels of one line: those that apply, or that of each head."""
  if list_lines.SEVERAL in fields:
    several = (name.strip() for name in fields[list_lines.SEVERAL].split(';'))
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
    if kind == (list_lines.SEVERAL,):
      return ('',) if none.intersection(label) else label
    return tuple('' if name in none else name for name in label)

  labels = [cleared(entry.label) for entry in entries]
  if kind[0].startswith(list_lines.HEAD):
    heads = [head.removeprefix(list_lines.HEAD) for head in kind]
    columns = zip(*labels, strict=True)
    names = {
      head: _list_classes(set(column) - {''})
      for head, column in zip(heads, columns, strict=True)
    }
  else:
    names = _list_classes({name for label in labels for name in label} - {''})
    if kind != (list_lines.SEVERAL,):
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


def _real(folder: str) -> str:
  return folder if scan.is_remote(folder) else os.path.realpath(folder)


def _walk(folder: str, prefix: str, above: tuple[str, ...]) -> Iterator[str]:
  """Relative paths of all files; links that lead back up are not followed."""
  for name, is_folder, _ in scan.children(folder):
    if name.startswith('.'):
      continue
    path = posixpath.join(folder, name)
    if not is_folder:
      yield prefix + name
    elif (real := _real(path)) not in above:
      yield from _walk(path, f'{prefix}{name}/', (*above, real))


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


def _resolve(video: str, base: str) -> tuple[str, str]:
  """The path to open and the id: relative to `base` where it lies below."""
  if scan.is_remote(video):
    path = video
  elif scan.is_remote(base):
    path = posixpath.join(base, posixpath.normpath(video))
  else:
    path = os.path.normpath(os.path.join(base, os.path.expanduser(video)))
  below = path.removeprefix(base.rstrip('/') + '/')
  return path, below


def _number(label: str) -> str:
  """A class number in its plain form, so that '007' and '7' are one class."""
  if label == '-1':
    return ''
  return str(int(label)) if label.isdecimal() else label
