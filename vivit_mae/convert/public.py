"""Public weights wherever they are: files, folders, and names of the zoo."""

import os

from vivit_mae.convert import download, files, zoo
from vivit_mae.convert.zoo_entry import Entry


def read(
  path_or_name: str, field: str = ''
) -> tuple[files.Checkpoint, Entry | None]:
  """Reads a file or folder, or fetches what the zoo knows and reads that.

  Args:
    path_or_name: A path or a name; what is there as a path is one.
    field: Of the config that holds it, for the error.

  Returns:
    The arrays, and the zoo's entry, None of a path.

  Raises:
    ValueError: There is nothing of that name, it cannot be fetched, or it is
      no file of weights.
  """
  if os.path.exists(path_or_name):
    return files.read(path_or_name), None
  if path_or_name not in zoo.ZOO:
    what = f'{field}={path_or_name!r}' if field else repr(path_or_name)
    raise ValueError(
      f'{what} is no workdir, no file, no folder and no name in '
      f'docs/model_zoo.md; the names nearest to it are '
      f'{", ".join(zoo.nearest(path_or_name))}.'
    )
  entry = zoo.lookup(path_or_name)
  download.note_licence(entry)
  return files.read(download.fetch(entry)), entry
