"""Public datasets as they are published, from the user's own download.

A reader turns a folder into a listing with the official splits and the official
order of the classes. No video is opened, and each folder is looked at once.
Nothing is downloaded: the owners of the datasets say who may have them.
"""

import functools
from collections.abc import Callable, Sequence

from etils import epath

from vivit_mae.data.layouts import (
  ava,
  diving48,
  epic_kitchens,
  kinetics,
  splits,
  ssv2,
)
from vivit_mae.data.listing import Listing

__all__ = ['LAYOUTS', 'NO_FLIP', 'read']


def _one_split(
  read_layout: Callable[[epath.PathLike, Sequence[str]], Listing],
) -> Callable[[epath.PathLike, Sequence[str], int], Listing]:
  """The reader of a dataset that has one official split."""

  def read_checked(
    path: epath.PathLike, unlabelled: Sequence[str], official_split: int
  ) -> Listing:
    if official_split != 1:
      raise ValueError(
        f'data.official_split is {official_split}; this dataset has one '
        'official split: leave it 1.'
      )
    return read_layout(path, unlabelled)

  return read_checked


def _three_splits(
  read_layout: Callable[[epath.PathLike, Sequence[str], int], Listing],
) -> Callable[[epath.PathLike, Sequence[str], int], Listing]:
  """The reader of a dataset that has three official splits."""

  def read_checked(
    path: epath.PathLike, unlabelled: Sequence[str], official_split: int
  ) -> Listing:
    if official_split not in (1, 2, 3):
      raise ValueError(
        f'data.official_split is {official_split}; it is 1, 2 or 3.'
      )
    return read_layout(path, unlabelled, official_split)

  return read_checked


# name -> reader of (path, unlabelled, official_split).
LAYOUTS: dict[str, Callable[[epath.PathLike, Sequence[str], int], Listing]] = {
  'kinetics400': _one_split(functools.partial(kinetics.read, num_classes=400)),
  'kinetics600': _one_split(functools.partial(kinetics.read, num_classes=600)),
  'kinetics700': _one_split(functools.partial(kinetics.read, num_classes=700)),
  'ssv2': _one_split(ssv2.read),
  'ucf101': _three_splits(splits.read_ucf101),
  'hmdb51': _three_splits(splits.read_hmdb51),
  'diving48': _one_split(diving48.read),
  'epic_kitchens100': _one_split(epic_kitchens.read),
  'ava': _one_split(ava.read),
}

# Their classes tell left from right.
NO_FLIP = frozenset(('ssv2',))


def read(
  layout: str,
  path: epath.PathLike,
  unlabelled: Sequence[str] = (),
  official_split: int = 1,
) -> Listing:
  """Lists a dataset that lies in a folder as its owners publish it.

  Args:
    layout: A key of `LAYOUTS`.
    path: The folder; any path `etils.epath` understands.
    unlabelled: Classes, as names or shell patterns, that are to count as none.
    official_split: Which one, of datasets that have several.

  Returns:
    The listing: videos that are there, by split. `missing` names those that are
    not, `duplicates` those that the lists name twice, and `skipped` files that
    no list names. How many they are is logged.

  Raises:
    ValueError: If the layout or the split is unknown, or if the folder does not
      hold the dataset.
  """
  if layout not in LAYOUTS:
    raise ValueError(
      f'No such layout: {layout!r}; known are {", ".join(map(repr, LAYOUTS))}.'
    )
  return LAYOUTS[layout](path, tuple(unlabelled), official_split)
