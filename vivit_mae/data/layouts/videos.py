"""The video files of a dataset, found by their names without extension."""

import functools
import posixpath
from collections.abc import Iterable, Iterator, Sequence

from vivit_mae.data import scan


@functools.cache
def squeeze(name: str) -> str:
  """A class name without all that folders spell differently.

  'massaging_persons_head' is the folder of "massaging person's head".
  """
  return ''.join(c for c in name.lower() if c.isalnum())


class Videos:
  """What videos there are, each folder looked at once.

  Attributes:
    places: The folders that were looked for, for messages.
  """

  def __init__(self, root: str, alternatives: Sequence[Sequence[str]]):
    """Looks for videos.

    Args:
      root: The dataset's folder.
      alternatives: Folders below it, or '.', that belong together; '*' stands
        for any one name. The first of the alternatives that holds any video
        counts, the others are not looked at.
    """
    self._root = root
    self._by_stem: dict[str, list[str]] = {}
    self._used: set[str] = set()
    self.places = [pattern for patterns in alternatives for pattern in patterns]
    for patterns in alternatives:
      for pattern in patterns:
        for folder in _expand(root, pattern):
          self._add(folder)
      if self._by_stem:
        break

  def __len__(self) -> int:
    return sum(map(len, self._by_stem.values()))

  def _add(self, folder: str) -> None:
    for child in scan.children(posixpath.join(self._root, folder)):
      if child.is_folder or child.is_dead or child.name.startswith('.'):
        continue
      stem, extension = posixpath.splitext(child.name)
      if extension.lower() in scan.VIDEO_EXTENSIONS:
        path = posixpath.join(folder, child.name) if folder else child.name
        self._by_stem.setdefault(stem, []).append(path)

  def find(self, stem: str, folder: str = '') -> str:
    """The path of a video.

    Args:
      stem: Its name without extension.
      folder: The name of its class; of several files the one that lies in such
        a folder is taken, else the first.

    Returns:
      The path to open; '' if there is no such file.
    """
    paths = self._by_stem.get(stem)
    if not paths:
      return ''
    path = paths[0]
    if len(paths) > 1 and folder:
      fitting = [p for p in paths if squeeze(_parent(p)) == squeeze(folder)]
      path = fitting[0] if fitting else path
    self._used.add(path)
    return posixpath.join(self._root, path)

  def stems(self) -> Iterable[str]:
    """The names of all videos without their extensions."""
    return self._by_stem.keys()

  def unused(self) -> Iterator[tuple[str, str]]:
    """Yields the videos that nobody has asked for, with the reason."""
    for paths in self._by_stem.values():
      used = next((path for path in paths if path in self._used), '')
      for path in paths:
        if path not in self._used:
          yield (
            path,
            f'another file of {used}' if used else 'in none of the lists',
          )


def _parent(path: str) -> str:
  return posixpath.basename(posixpath.dirname(path))


def _expand(root: str, pattern: str) -> list[str]:
  """The folders that fit a pattern, relative to the root."""
  found = ['']
  for part in pattern.split('/'):
    if part == '*':
      found = [
        posixpath.join(folder, child.name)
        for folder in found
        for child in scan.children(posixpath.join(root, folder))
        if child.is_folder and not child.name.startswith('.')
      ]
    elif part != '.':
      found = [posixpath.join(folder, part) for folder in found]
  return found
