"""Where videos come from: every source is a sequence of encoded videos.

A source knows how many videos there are and hands out one at a time, encoded.
It is cheap to send to a worker process: files are opened there, on first use.
"""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, SupportsIndex, runtime_checkable

import numpy as np

from vivit_mae.data import (
  frame_folders,
  frames,
  labels,
  layouts,
  listing,
  lists,
  packing,
  picture_files,
)
from vivit_mae.data.dmvr import DmvrSource
from vivit_mae.data.frames import Frames
from vivit_mae.data.labels import ClassNames
from vivit_mae.data.listing import Example, Examples, Listing
from vivit_mae.data.tfds_source import TfdsSource

_log = logging.getLogger(__name__)

__all__ = [
  'SOURCES',
  'SOURCE_FIELDS',
  'Example',
  'FileSource',
  'Source',
  'TfdsSource',
  'open_source',
  'source_from',
]

# The fields of `config.data` that say where the videos are; the others say
# what is done with them (`clip_options.ClipOptions`).
SOURCE_FIELDS = (
  'source',
  'path',
  'split',
  'eval_split',
  'unlabelled',
  'eval_fraction',
  'official_split',
  'fps',
  'cache_dir',
  'num_videos',
  'labels_per_class',
)


@runtime_checkable
class Source(Examples, Protocol):
  """Encoded videos by index, and the names of their classes.

  Attributes:
    name: What to call this data in messages.
    class_names: What `Example.label` indexes. Empty = no labels; with several
      heads, those of each.
    multi_label: Whether several classes may apply to a video.
  """

  name: str
  class_names: ClassNames
  multi_label: bool


class FileSource:
  """Videos that lie in files.

  Attributes:
    name: What to call this data in messages.
    class_names: What `Example.label` indexes. Empty = no labels; with several
      heads, those of each.
    multi_label: Whether several classes may apply to a video.
    examples: Paths, labels and ids.
  """

  def __init__(
    self,
    name: str,
    examples: Sequence[Example],
    class_names: ClassNames,
    multi_label: bool = False,
  ):
    self.name = name
    self.examples = examples
    self.class_names = class_names
    self.multi_label = multi_label

  def __getstate__(self) -> dict[str, Any]:
    return self.__dict__ | {'examples': packing.pack(self.examples)}

  def __len__(self) -> int:
    return len(self.examples)

  def __getitem__(self, index: SupportsIndex, /) -> Example:
    return self.examples[index.__index__()]


def open_source(
  source: str,
  path: str = '',
  split: str = 'train',
  *,
  unlabelled: Sequence[str] = (),
  eval_fraction: int | float = 0.0,
  official_split: int = 1,
  fps: int | float = 30.0,
  cache_dir: str = '',
  num_videos: int = 1200,
) -> Source:
  """Opens one split of a dataset.

  Args:
    source: 'folder', 'frames', 'csv', 'tfds', 'dmvr', 'synthetic', or one of
      `layouts.LAYOUTS`.
    path: The folder, the list, or the prepared dataset. Not used by
      'synthetic'.
    split: 'train', 'validation', 'test', or 'all'.
    unlabelled: Classes whose videos are to count as having no label.
    eval_fraction: For 'folder', 'frames' and 'csv' without a validation split,
      the share of the videos that is held out as one, by a hash of the id.
    official_split: Which one, of public datasets that have several.
    fps: Pictures per second of videos that are stored as pictures, where the
      data does not say.
    cache_dir: Where 'synthetic' writes its videos and where 'tfds' looks for a
      dataset given by name; '' = the usual place.
    num_videos: How many videos 'synthetic' writes.

  Returns:
    The source.

  Raises:
    ValueError: If the kind is unknown, or if there is nothing to read; the
      message says what is there.
  """
  if source not in SOURCES:
    raise ValueError(
      f'data.source is {source!r}; known are {", ".join(map(repr, SOURCES))}.'
    )
  if not 0 < fps < float('inf'):
    raise ValueError(
      f'data.fps is {fps}; it is the number of pictures per second, above 0.'
    )
  return SOURCES[source](
    path=path,
    split=split,
    unlabelled=tuple(unlabelled),
    eval_fraction=eval_fraction,
    official_split=official_split,
    fps=fps,
    cache_dir=cache_dir,
    num_videos=num_videos,
  )


def source_from(data: Mapping[str, Any], split: str | None = None) -> Source:
  """Opens the source that a config's `data` section describes.

  Args:
    data: The section; only the fields named in `SOURCE_FIELDS` are read.
    split: The split to open; `data['split']` if None.

  Returns:
    The source.
  """
  fields = {k: data[k] for k in SOURCE_FIELDS if k in data}
  fields.pop('eval_split', None)
  fields.pop('labels_per_class', None)
  if split is not None:
    fields['split'] = split
  if data.get('flip') and fields['source'] in layouts.NO_FLIP:
    _log.warning(
      'data.flip is on, and classes of %s tell left from right: a mirrored '
      'clip shows another class than its label says',
      fields['source'],
    )
  return open_source(**fields)


def labelled(source: Source, per_class: int | None = None) -> Source:
  """The videos of a source that a classifier can learn from.

  Args:
    source: Any videos.
    per_class: So many of each class only, drawn once and for all; None for all
      of them. Reads every video once, to see its label.

  Returns:
    Those that have a label, of several heads at least one. A prepared dataset
    is returned whole, as its labels lie among the videos; what has no label
    there fills rows that count nowhere.

  Raises:
    ValueError: A class has fewer than `per_class`, or videos several labels.
  """
  if per_class is not None:
    return Few(source, per_class)
  if not isinstance(source, FileSource):
    return source
  kept = [e for e in source.examples if labels.is_partly_known(e.label)]
  dropped = len(source) - len(kept)
  if not dropped:
    return source
  _log.info('data: %d videos of %s have no label', dropped, source.name)
  return FileSource(source.name, kept, source.class_names, source.multi_label)


class Few:
  """Some videos of each class of a source, always the same ones."""

  def __init__(self, source: Source, per_class: int):
    self._source = source
    self.name, self.class_names = source.name, source.class_names
    self.multi_label = source.multi_label
    if source.multi_label or isinstance(source.class_names, Mapping):
      raise ValueError(
        f'data.labels_per_class={per_class} needs one label for each video; '
        f'{source.name} has several.'
      )
    # One pass over the videos, which are not decoded.
    found = np.array([source[i].label for i in range(len(source))], np.int64)
    order = np.random.default_rng(0).permutation(len(found))
    kept = []
    for label, name in enumerate(source.class_names):
      mine = order[found[order] == label]
      if len(mine) < per_class:
        raise ValueError(
          f'data.labels_per_class={per_class}, but {source.name} has '
          f'{len(mine)} labelled videos of {name!r}.'
        )
      kept.extend(mine[:per_class].tolist())
    self._rows = sorted(kept)

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index: SupportsIndex, /) -> Example:
    return self._source[self._rows[index]]


def _open_listed(
  read: Callable[..., Listing],
  video_of: Callable[[str, float | int], str | Frames] = (
    picture_files.open_if_pictures
  ),
) -> Callable[..., Source]:
  """A source of files out of a function that lists them.

  Args:
    read: Lists them.
    video_of: What the path of a video, and a rate, stand for.

  Returns:
    A function that opens them.
  """

  def open_files(
    path: str,
    split: str,
    unlabelled: tuple[str, ...],
    eval_fraction: int | float,
    fps: int | float,
    **other_sources,
  ) -> Source:
    del other_sources
    if not path:
      raise ValueError('data.path is empty: say where the videos are.')
    listed = read(path, unlabelled)
    if listed.missing:
      raise ValueError(
        f'{path} names {len(listed.missing)} files that do not exist: '
        f'{listing.shown(name for name, _ in listed.missing)}. Relative paths '
        'start from the folder of the list. `python -m '
        'vivit_mae.tools.dataset prepare` leaves such lines out.'
      )
    return _select(listed, path, split, eval_fraction, video_of, fps)

  return open_files


def _open_layout(layout: str) -> Callable[..., Source]:
  """A source of the videos of a public dataset, those that are there."""

  def open_files(
    path: str,
    split: str,
    unlabelled: tuple[str, ...],
    eval_fraction: int | float,
    official_split: int,
    fps: int | float,
    **other_sources,
  ) -> Source:
    del other_sources
    if not path:
      raise ValueError(f'data.path is empty: say where {layout} is.')
    listed = layouts.read(layout, path, unlabelled, official_split)
    return _select(
      listed, path, split, eval_fraction, picture_files.open_if_pictures, fps
    )

  return open_files


def _select(
  listed: Listing,
  path: str,
  split: str,
  eval_fraction: int | float,
  video_of: Callable[[str, float | int], str | Frames],
  fps: int | float,
) -> FileSource:
  """One split, in which folders and tar files stand for their pictures."""
  examples = list(listing.select(listed, split, eval_fraction, path))
  has_pictures = False
  for i, example in enumerate(examples):
    if isinstance(example.video, str):
      video = video_of(example.video, fps)
      if isinstance(video, Frames):
        examples[i] = dataclasses.replace(example, video=video)
        has_pictures = True
  if has_pictures:
    frames.log_cost(path, fps)
  return FileSource(
    f'{path} ({split})', examples, listed.class_names, listed.multi_label
  )


def _open_tfds(
  path: str,
  split: str,
  unlabelled: tuple[str, ...],
  cache_dir: str,
  fps: int | float,
  **other_sources,
) -> Source:
  del other_sources
  return TfdsSource(path, split, cache_dir or None, unlabelled, fps)


def _open_dmvr(
  path: str,
  split: str,
  unlabelled: tuple[str, ...],
  fps: int | float,
  **other_sources,
) -> Source:
  del other_sources
  return DmvrSource(path, split, unlabelled, fps)


def _open_synthetic(
  split: str,
  unlabelled: tuple[str, ...],
  cache_dir: str,
  num_videos: int,
  **other_sources,
) -> Source:
  from vivit_mae.data import synthetic  # It writes its videos through us.

  del other_sources
  prepared = synthetic.prepare(cache_dir or None, num_videos=num_videos)
  return TfdsSource(str(prepared), split, unlabelled=unlabelled)


SOURCES: dict[str, Callable[..., Source]] = {
  'synthetic': _open_synthetic,
  'tfds': _open_tfds,
  'folder': _open_listed(lists.read_folder),
  'csv': _open_listed(lists.read_csv),
  'frames': _open_listed(
    frame_folders.read_frame_folders, picture_files.open_pictures
  ),
  'dmvr': _open_dmvr,
  **{layout: _open_layout(layout) for layout in layouts.LAYOUTS},
}
