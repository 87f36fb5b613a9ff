"""Pictures of a video in a folder or a tar file, found by their numbers."""

import dataclasses
import functools
import os
import posixpath
import re
import tarfile
from collections.abc import Iterable

import numpy as np
from etils import epath

from vivit_mae.data import scan
from vivit_mae.data.frames import Frames
from vivit_mae.data.video import VideoError

EXTENSIONS = frozenset(('.jpg', '.jpeg', '.png', '.webp', '.bmp'))

TAR = '.tar'

# Optical flow that lies among the pictures, as in mmaction2's "rawframes".
_FLOW = 'flow_'

# Lists of pictures in memory; a worker reads one video at a time.
_KEPT_INDICES = 4


@dataclasses.dataclass(frozen=True)
class FolderFrames:
  """Numbered pictures in a folder, such as `img_00001.jpg`.

  The number is the last run of digits in the name; the pictures come in the
  order of their numbers, which must be evenly spaced. Pictures without a
  number, and optical flow (`flow_*`), are left out.

  Attributes:
    path: The folder; any path `etils.epath` understands. It is listed on first
      use.
    fps: Pictures per second.
  """

  path: str
  fps: float | int = 30

  def __len__(self) -> int:
    return len(_list_folder(self.path))

  def read(self, i: int) -> bytes:
    """Picture i as it is stored.

    Raises:
      VideoError: the folder or the picture cannot be read.
    """
    picture = _list_folder(self.path)[i]
    try:
      return (epath.Path(self.path) / picture).read_bytes()
    except OSError as error:
      raise _unreadable(error, self.path, picture) from None

  def title(self, i: int) -> str:
    """The name of the file of picture i."""
    return _list_folder(self.path)[i]


@dataclasses.dataclass(frozen=True)
class TarFrames:
  """Numbered pictures in an uncompressed tar file, as `FolderFrames`.

  Attributes:
    path: The file; any path `etils.epath` understands. Its index is read on
      first use.
    fps: Pictures per second.
  """

  path: str
  fps: float | int = 30

  def __len__(self) -> int:
    return len(_list_tar(self.path))

  def read(self, i: int) -> bytes:
    """Picture i as it is stored.

    Raises:
      VideoError: the file cannot be read.
    """
    picture, offset, size = _list_tar(self.path)[i]
    try:
      with epath.Path(self.path).open('rb') as file:
        file.seek(offset)
        return file.read(size)
    except OSError as error:
      raise _unreadable(error, self.path, picture) from None

  def title(self, i: int) -> str:
    """The name of picture i within the file."""
    return _list_tar(self.path)[i][0]


def open_pictures(path: str, fps: float | int) -> FolderFrames | TarFrames:
  """The pictures of a folder or of a tar file, known by its extension."""
  is_tar = scan.extension(path) == TAR
  return TarFrames(path, fps) if is_tar else FolderFrames(path, fps)


def open_if_pictures(path: str, fps: float | int) -> str | Frames:
  """The pictures of a tar file or of a folder whose name is not a video's.

  Args:
    path: What a list of videos names.
    fps: Pictures per second.

  Returns:
    The pictures, or the path itself where it is a file.
  """
  if scan.extension(path) == TAR:
    return open_pictures(path, fps)
  if not scan.is_video(path) and epath.Path(path).is_dir():
    return open_pictures(path, fps)
  return path


def is_picture(name: str) -> bool:
  """Whether a file is one by its name; hidden files are not."""
  base, extension = posixpath.splitext(posixpath.basename(name))
  return extension.lower() in EXTENSIONS and not base.startswith('.')


def in_order(names: Iterable[str], where: str) -> list[str]:
  """Picks out the pictures of one video and puts them in order.

  Args:
    names: Files of a folder or a tar file; only `is_picture` counts.
    where: The name of the video, for errors.

  Returns:
    The numbered pictures, by number.

  Raises:
    VideoError: there is none, one is missing, or they are of several kinds,
      such as `img_1.jpg` and `depth_1.png`.
  """
  kinds: dict[tuple[str, str], list[tuple[int, str]]] = {}
  for name in names:
    match = re.fullmatch(r'(.*?)(\d+)(\D*)', name, re.DOTALL)
    if not is_picture(name) or not match:
      continue
    if not posixpath.basename(match[1]).startswith(_FLOW):
      kinds.setdefault((match[1], match[3]), []).append((int(match[2]), name))
  if not kinds:
    raise VideoError('no_frames', where, 'no numbered pictures')
  if len(kinds) > 1:
    shown = ', '.join(f'{a}*{b} ({len(v)})' for (a, b), v in kinds.items())
    raise VideoError('corrupt', where, f'several kinds of pictures: {shown}')
  found = sorted(*kinds.values())
  numbers = np.array([number for number, _ in found])
  if len(found) > 1:
    steps = np.diff(numbers)
    if steps.min() == 0:
      again = found[int(steps.argmin()) + 1]
      raise VideoError('corrupt', where, f'two pictures of number {again[0]}')
    gaps = np.flatnonzero(steps != steps.min())
    if len(gaps):
      before = int(gaps[0])
      raise VideoError(
        'corrupt',
        where,
        f'no picture of number {numbers[before] + steps.min()}, which should '
        f'follow {found[before][1]}; {len(gaps)} gaps in all',
      )
  return [name for _, name in found]


@functools.lru_cache(_KEPT_INDICES)
def _list_folder(path: str) -> list[str]:
  try:
    return in_order((p.name for p in epath.Path(path).iterdir()), path)
  except OSError as error:
    raise _unreadable(error, path) from None


@functools.lru_cache(_KEPT_INDICES)
def _list_tar(path: str) -> list[tuple[str, int, int]]:
  """Name, offset and size in bytes of each picture of a tar file."""
  fault = ''
  try:
    with epath.Path(path).open('rb') as file:
      with tarfile.open(fileobj=file, mode='r:') as archive:
        members = archive.getmembers()
      # Where a header is damaged, tarfile takes what is before it for all.
      if members:
        file.seek(members[-1].offset_data + -(-members[-1].size // 512) * 512)
        block = file.read(512)
        if not block:
          fault = 'unexpected end of data'
        elif block.strip(b'\0'):
          fault = f'no header follows {members[-1].name}'
  except OSError as error:
    raise _unreadable(error, path) from None
  except tarfile.TarError as error:
    fault = str(error)
  if fault:
    kind = 'truncated' if 'end of data' in fault else 'unreadable'
    raise VideoError(kind, path, f'as an uncompressed tar: {fault}')
  files = {member.name: member for member in members if member.isreg()}
  return [
    (name, files[name].offset_data, files[name].size)
    for name in in_order(files, path)
  ]


def _unreadable(error: OSError, path: str, picture: str = '') -> VideoError:
  """What a failure to read a file means."""
  missing = isinstance(error, FileNotFoundError | NotADirectoryError)
  reason = error.strerror or os.fspath(path)
  return VideoError(
    'missing' if missing else 'unreadable',
    path,
    f'{picture}: {reason}' if picture else reason,
  )
