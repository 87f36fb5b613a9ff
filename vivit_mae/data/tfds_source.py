"""Datasets that TFDS prepared, read without TensorFlow."""

import os
from collections.abc import Sequence
from typing import Any, SupportsIndex

import numpy as np
from etils import epath

from vivit_mae.data import listing
from vivit_mae.data.labels import ClassNames
from vivit_mae.data.listing import Example


class TfdsSource:
  """A dataset prepared by TFDS or by `python -m vivit_mae.tools.dataset`.

  Its features must hold the encoded video as a scalar of bytes called 'video'.
  'label' (a ClassLabel) and 'id' are used where present.

  Attributes:
    name: What to call this data in messages.
    class_names: The names of the ClassLabel; empty = no labels.
    multi_label: False: it holds at most one label for each video.
  """

  multi_label = False

  def __init__(
    self,
    path: str,
    split: str = 'train',
    data_dir: str | None = None,
    unlabelled: Sequence[str] = (),
  ):
    """Opens the metadata of the dataset, not its shards.

    Args:
      path: The dataset's directory (the one that holds `dataset_info.json`), or
        the name of a dataset that TFDS knows in `data_dir`.
      split: A split or a slice of one, such as 'train' or 'train[:90%]'.
      data_dir: Where TFDS finds a dataset by its name; its default if None.
      unlabelled: Classes whose videos are to count as having no label.

    Raises:
      ValueError: If there is no such dataset or split, if the dataset is not
        finished, or if it does not hold encoded videos.
    """
    self._builder = _open_builder(path, data_dir)
    self._split = self._check_split(split)
    self._data = None
    self.name = f'{path} ({self._split})'
    features = dict(self._builder.info.features)
    video = features.get('video')
    # A single string of bytes; TFDS's own Video is a sequence of images.
    encoded = (
      video is not None
      and video.shape == ()
      and np.dtype(video.np_dtype).kind in 'OSU'
    )
    if not encoded:
      raise ValueError(
        f'{path!r} holds no encoded videos: a feature "video" of bytes is '
        f'needed, and it has {listing.shown(features)}. Prepare the video '
        'files with `python -m vivit_mae.tools.dataset prepare`.'
      )
    names = tuple(getattr(features.get('label'), 'names', ()))
    listing.check_unlabelled(unlabelled, set(names), f'class of {path}')
    kept = [name for name in names if not listing.fits(name, unlabelled)]
    self._labels = {names.index(name): i for i, name in enumerate(kept)}
    self.class_names: ClassNames = tuple(kept)

  def _check_split(self, split: str) -> str:
    known = self._builder.info.splits
    if split == 'all':
      split = '+'.join(known)
    elif split not in known and listing.SPLITS.get(split) in known:
      split = listing.SPLITS[split]
    try:
      count = known[split].num_examples
    except (KeyError, ValueError):
      count = 0
    if not count:
      raise ValueError(
        f'{self._builder.data_dir} has no videos in the split {split!r}. There '
        f'are: {", ".join(f"{k} ({v.num_examples})" for k, v in known.items())}'
        ". Slices such as 'train[:90%]' are understood."
      )
    return split

  def __getstate__(self) -> dict[str, Any]:
    return self.__dict__ | {'_data': None}

  def __len__(self) -> int:
    return self._builder.info.splits[self._split].num_examples

  def __getitem__(self, index: SupportsIndex, /) -> Example:
    if self._data is None:
      self._data = self._builder.as_data_source(self._split)
    index = index.__index__()
    row = self._data[index]
    label = int(row.get('label', -1))
    name = row.get('id', b'')
    return Example(
      bytes(row['video']),
      self._labels.get(label, -1),
      name.decode() if name else f'{self._split}-{index:08d}',
    )


def _open_builder(path: str, data_dir: str | None) -> Any:
  # Imported here: it takes most of a second, which a folder need not pay.
  import tensorflow_datasets as tfds
  from tensorflow_datasets.core.registered import DatasetNotFoundError

  if not path:
    raise ValueError('data.path is empty: say where the prepared dataset is.')
  folder = epath.Path(path).expanduser()
  if (folder / 'dataset_info.json').exists():
    return tfds.builder_from_directory(os.fspath(folder))
  if folder.is_dir():
    raise ValueError(
      f'{path!r} is no finished dataset: it has no dataset_info.json. If its '
      'preparation was interrupted, give the same command again and it goes '
      "on from there. For a folder of video files use source 'folder'."
    )
  try:
    return tfds.builder(path, data_dir=data_dir)
  except (DatasetNotFoundError, ValueError) as error:
    raise ValueError(
      f'No prepared dataset at {path!r}, nor does TFDS know one by this name '
      f'in {data_dir or "its usual folder"}. Give the directory that holds '
      'dataset_info.json.'
    ) from error
