"""Looks into folders, local or remote, with one call for each folder.

A dataset has more files than can be asked for one by one.
"""

import os
import posixpath
from collections.abc import Iterable
from typing import NamedTuple

from etils import epath

# Containers that FFmpeg reads as video; other files are left out and reported.
VIDEO_EXTENSIONS = frozenset(
  (
    *('.3g2', '.3gp', '.asf', '.avi', '.f4v', '.flv', '.gif', '.m2ts', '.m2v'),
    *('.m4v', '.mjpeg', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.mts'),
    *('.mxf', '.ogv', '.ts', '.vob', '.webm', '.wmv', '.y4m'),
  )
)


class Child(NamedTuple):
  """What a folder holds.

  Attributes:
    name: Without the folder.
    is_folder: Whether it is a folder, or a link to one.
    is_dead: Whether it is a link that leads nowhere.
  """

  name: str
  is_folder: bool
  is_dead: bool = False


def is_remote(path: str) -> bool:
  """Whether a path is no local one, such as 'gs://bucket/a.mp4'."""
  return '://' in path


def extension(name: str) -> str:
  """The extension of a file in small letters, with its dot."""
  return posixpath.splitext(name)[1].lower()


def is_video(name: str) -> bool:
  """Whether a file is a video by its name."""
  return extension(name) in VIDEO_EXTENSIONS


def children(folder: epath.PathLike) -> list[Child]:
  """Files and folders of a folder.

  Args:
    folder: Any path `etils.epath` understands.

  Returns:
    Sorted by name; none if there is no such folder.
  """
  name = os.fspath(folder)
  if is_remote(name):
    path = epath.Path(name)
    if not path.is_dir():
      return []
    return sorted(Child(p.name, p.is_dir()) for p in path.iterdir())
  try:
    with os.scandir(name) as found:
      return sorted(
        Child(
          entry.name,
          entry.is_dir(),
          entry.is_symlink() and not os.path.exists(entry.path),
        )
        for entry in found
      )
  except (FileNotFoundError, NotADirectoryError):
    return []


def existing(paths: Iterable[str]) -> set[str]:
  """Those of some files or folders that exist.

  Args:
    paths: In a plain form, without '..'.

  Returns:
    The ones that are there.
  """
  wanted: dict[str, dict[str, str]] = {}
  for path in paths:
    folder, name = posixpath.split(path)
    wanted.setdefault(folder, {})[name] = path
  found = set()
  for folder, names in wanted.items():
    found.update(
      names[child.name]
      for child in children(folder)
      if child.name in names and not child.is_dead
    )
  return found
