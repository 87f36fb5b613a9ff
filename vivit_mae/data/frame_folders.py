"""Lists a folder of videos that are stored as pictures."""

import os
import posixpath
import re
from collections.abc import Sequence

from etils import epath

from vivit_mae.data import listing, lists, picture_files, scan


def read_frame_folders(
  root: epath.PathLike, unlabelled: Sequence[str] = ()
) -> listing.Listing:
  """Lists a folder in which each video is a folder, or a tar, of pictures.

  A folder that holds numbered pictures is a video. Splits and classes are as in
  `lists.read_folder`: 'run/a/img_00001.jpg' and 'run/b.tar' are two videos of
  the class 'run'. Tar files are not opened here, and pictures not counted.

  Args:
    root: The folder; any path `etils.epath` understands.
    unlabelled: Class folders, as names or shell patterns, whose videos have no
      label.

  Returns:
    The listing; everything is in the split 'train' when the folder has none.

  Raises:
    ValueError: If `root` is no folder or holds no such video, if a folder holds
      pictures and other videos, so that it is not clear what it is, or if a
      name in `unlabelled` fits no class folder.
  """
  root = epath.Path(root).expanduser()
  place = os.fspath(root)
  if not root.is_dir():
    raise ValueError(
      f'No such folder of videos: {place!r}. Give the path of an existing '
      "folder, or use source 'csv' for a list of folders of pictures."
    )
  videos: list[str] = []
  skipped: list[tuple[str, str]] = []
  if _walk(place, '', videos, skipped):
    raise ValueError(
      f'{place!r} holds pictures itself. One folder of pictures is one video: '
      'give the folder above it.'
    )
  if not videos:
    raise ValueError(
      f'{place!r} holds no folder of numbered pictures and no tar of them; '
      f'{len(skipped)} other files were found. Pictures are known by their '
      f'extension: {" ".join(sorted(picture_files.EXTENSIONS))}.'
    )
  return lists.by_folders(place, videos, unlabelled, tuple(skipped))


def _walk(
  folder: str,
  prefix: str,
  videos: list[str],
  skipped: list[tuple[str, str]],
) -> bool:
  """Adds the videos below a folder; whether it is a video itself."""
  pictures, others, found = False, [], len(videos)
  for name, is_folder, _ in scan.children(folder):
    if name.startswith('.'):
      continue
    own = prefix + name
    if is_folder:
      if _walk(posixpath.join(folder, name), f'{own}/', videos, skipped):
        videos.append(own)
    elif scan.extension(name) == picture_files.TAR:
      videos.append(own)
    elif picture_files.is_picture(name) and re.search(r'\d', name):
      pictures = True
    else:
      others.append((own, 'neither a numbered picture nor a tar of them'))
  if pictures and len(videos) > found:
    raise ValueError(
      f'{folder!r} holds pictures, and below it are other videos, such as '
      f'{videos[found]!r}. Move one or the other: a folder of pictures is one '
      'video.'
    )
  if not pictures:
    skipped.extend(others)
  return pictures
