"""Datasets that TFDS prepared, read without TensorFlow.

Both formats of records that TFDS writes are read by index: ArrayRecord, and
TFRecord, its default, for which TFDS itself needs TensorFlow. So does its
feature `Video`; here it is read as what it is stored as, a sequence of encoded
pictures, and pictures that no clip asks for are never decoded.
"""

import bisect
import fractions
import functools
import itertools
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, SupportsIndex, cast

import numpy as np
from etils import epath
from google.protobuf import message

from vivit_mae.data import listing, tfrecord
from vivit_mae.data.frames import EncodedFrames, log_cost
from vivit_mae.data.kept_classes import KeptClasses
from vivit_mae.data.labels import ClassNames, Label
from vivit_mae.data.listing import Example
from vivit_mae.data.video import VideoError

_INFO = 'dataset_info.json'
_USED = ('video', 'label', 'id', 'boxes')
_VERSION = '[0-9]*.[0-9]*.[0-9]*'
# Formats that can be read by index, the better one first.
_FORMATS = ('array_record', 'tfrecord')


class TfdsSource:
  """A dataset prepared by TFDS or by `python -m vivit_mae.tools.dataset`.

  Its features must hold the video as 'video': a scalar of bytes, the encoded
  video, or a sequence of pictures (`tfds.features.Video`). 'label', 'id' and
  'boxes' are used where present, as `directory.features` has them.

  Attributes:
    name: What to call this data in messages.
    class_names: The names of the classes; empty = no labels. With several
      heads, those of each.
    multi_label: Whether several classes may apply to a video.
  """

  def __init__(
    self,
    path: str,
    split: str = 'train',
    data_dir: str | None = None,
    unlabelled: Sequence[str] = (),
    fps: float | int = 30,
  ):
    """Opens the metadata of the dataset, not its shards.

    Args:
      path: The dataset's directory (the one that holds `dataset_info.json`, or
        one above it if it holds no other), or the name of a dataset in
        `data_dir`, such as 'ucf101/ucf101_1:2.0.0'.
      split: A split or a slice of one, such as 'train' or 'train[:90%]'.
      data_dir: Where datasets are found by name; TFDS's usual place if None.
      unlabelled: Classes whose videos are to count as having no label.
      fps: Pictures per second where videos are stored as pictures and the
        dataset does not say at which rate they were extracted.

    Raises:
      ValueError: If there is no such dataset or split, if the dataset is not
        finished, or if it does not hold videos.
    """
    self._folder = _find(path, data_dir)
    self._read = None
    dataset = _Dataset(self._folder)
    self._split = dataset.find_split(split)
    self._length = dataset.splits[self._split].num_examples
    self._fps = dataset.fps or fps
    self.name = f'{path} ({self._split})'
    self.multi_label = dataset.multi_label
    self._kept = KeptClasses(dataset.class_names, unlabelled, path)
    self.class_names: ClassNames = self._kept.class_names
    if dataset.has_pictures:
      log_cost(path, self._fps)

  def __getstate__(self) -> dict[str, Any]:
    return self.__dict__ | {'_read': None}

  def __len__(self) -> int:
    return self._length

  def __getitem__(self, index: SupportsIndex, /) -> Example:
    from vivit_mae.data import directory  # It imports TFDS, as above.

    if self._read is None:
      self._read = _Dataset(self._folder).open(self._split)
    index = index.__index__()
    try:
      row = self._read(index)
    except message.DecodeError as error:
      name = f'{self._split}-{index:08d}'
      raise VideoError('corrupt', name, f'its record: {error}') from None
    name = row.get('id', b'').decode() or f'{self._split}-{index:08d}'
    video = row['video']
    if not isinstance(video, bytes):
      video = EncodedFrames(tuple(video), self._fps)
    boxes = row.get('boxes', b'').decode()
    return Example(
      video,
      self._kept.number(self._label(row.get('label', -1))),
      name,
      boxes=directory.decode_boxes(boxes) if boxes else None,
    )

  def _label(self, value: Any) -> Label:
    """A label as TFDS gives it, in the numbers of all classes."""
    if isinstance(self.class_names, Mapping):
      return tuple(int(value[head]) for head in self.class_names)
    return tuple(map(int, value)) if self.multi_label else int(value)


class _Dataset:
  """The metadata of a prepared dataset.

  Attributes:
    splits: By name; slices are understood.
    class_names: See `TfdsSource`.
    multi_label: See `TfdsSource`.
    has_pictures: Whether a video is a sequence of pictures.
    fps: At which rate they were extracted; None if it is not said.
  """

  def __init__(self, folder: epath.Path):
    # Imported here: it takes most of a second, which a folder need not pay.
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import dataset_info

    self._folder = folder
    info = dataset_info.read_proto_from_builder_dir(folder)
    written = (info.file_format or 'tfrecord', *info.alternative_file_formats)
    self._format = next((f for f in _FORMATS if f in written), None)
    if self._format is None:
      raise ValueError(
        f'{str(folder)!r} is stored as {" and ".join(written)}; '
        f'{" and ".join(_FORMATS)} are read.'
      )
    template = tfds.core.ShardedFileTemplate(
      dataset_name=info.name, data_dir=folder, filetype_suffix=self._format
    )
    self.splits = tfds.core.SplitDict.from_proto(info.splits, template)
    fields = _fields(json.loads((folder / 'features.json').read_text()))
    video = fields.get('video', {})
    kind = _kind(video)
    self.has_pictures = kind in ('Video', 'Sequence(Image)')
    self.fps = _rate(video) if kind == 'Video' else None
    features: dict[str, Any] = {
      name: tfds.features.FeatureConnector.from_json(field)
      for name, field in fields.items()
      if name in _USED and not (name == 'video' and self.has_pictures)
    }
    if self.has_pictures:
      # So it is stored. A Video needs TensorFlow, and would be decoded whole.
      features['video'] = tfds.features.Sequence(tfds.features.Text())
    elif not _is_scalar(features.get('video'), 'OSU'):
      raise ValueError(
        f'{str(folder)!r} holds no videos: a feature "video" of bytes, or of '
        f'pictures, is needed, and it has {listing.shown(fields)}. Prepare the '
        'video files with `python -m vivit_mae.tools.dataset prepare`.'
      )
    for name in ('id', 'boxes'):
      if not _is_scalar(features.get(name), 'OSU'):
        features.pop(name, None)
    every = tfds.features.FeaturesDict(features)
    every.load_metadata(folder, feature_name=None)
    label = features.get('label')
    if isinstance(label, tfds.features.FeaturesDict):
      heads = {head: _names(label[head]) for head in sorted(label)}
      self.class_names: ClassNames = heads if all(heads.values()) else ()
    else:
      self.class_names = _names(getattr(label, 'feature', label))
    self.multi_label = isinstance(label, tfds.features.Sequence)
    if not self.class_names:
      self.multi_label = False
      features.pop('label', None)
    self._parser = tfds.features.FeaturesDict(features)

  def find_split(self, split: str) -> str:
    """The name by which TFDS knows a split, which is not empty."""
    known = self.splits
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
        f'{self._folder} has no videos in the split {split!r}. There '
        f'are: {", ".join(f"{k} ({v.num_examples})" for k, v in known.items())}'
        ". Slices such as 'train[:90%]' are understood."
      )
    return split

  def open(self, split: str) -> Callable[[int], Any]:
    """A function from the index of a video to a mapping of its features."""
    shards = cast(Any, self.splits[split].file_instructions)
    if self._format == 'array_record':
      from array_record.python import array_record_data_source

      records = array_record_data_source.ArrayRecordDataSource(shards)
    else:
      records = _TFRecords(shards)

    return lambda i: self._parser.deserialize_example_np(records[i])


class _TFRecords:
  """The records of some TFRecord files; a file is indexed on first use."""

  def __init__(self, shards: Sequence[Any]):
    self._shards = shards
    self._ends = list(itertools.accumulate(s.take for s in shards))
    self._index = functools.cache(tfrecord.index)

  def __getitem__(self, i: int) -> bytes:
    k = bisect.bisect_right(self._ends, i)
    shard = self._shards[k]
    row = i - self._ends[k] + shard.take + shard.skip
    places = self._index(shard.filename)
    if row >= len(places):
      raise VideoError(
        'truncated',
        shard.filename,
        f'{shard.examples_in_shard} records are declared, it holds '
        f'{len(places)}',
      )
    return tfrecord.read(shard.filename, *places[row].tolist())


def _is_scalar(feature: Any, kinds: str) -> bool:
  """Whether it is one value, of one of numpy's kinds."""
  if getattr(feature, 'shape', None) != ():
    return False
  return np.dtype(feature.np_dtype).kind in kinds


def _names(label: Any) -> tuple[str, ...]:
  """The names of the classes; none where the label does not number classes."""
  return tuple(getattr(label, 'names', ())) if _is_scalar(label, 'iu') else ()


def _fields(config: Mapping[str, Any]) -> dict[str, Any]:
  """The features of a dataset by name, as `features.json` describes them."""
  found = config.get('featuresDict') or _content(config)
  return found.get('features', found)


def _content(field: Mapping[str, Any]) -> Mapping[str, Any]:
  """How the versions of TFDS before 4.6 wrote the arguments of a feature."""
  content = field.get('content', {})
  return json.loads(content) if isinstance(content, str) else content


def _kind(field: Mapping[str, Any]) -> str:
  """The class of a feature, without its module."""
  kind = field.get('pythonClassName', field.get('type', ''))
  kind = kind.rsplit('.', 1)[-1]
  if kind == 'Sequence':
    inner = field.get('sequence') or _content(field)
    return f'{kind}({_kind(inner.get("feature", {}))})'
  return kind


def _rate(video: Mapping[str, Any]) -> float | None:
  """The rate FFmpeg was told to extract the pictures of a Video at."""
  found = video.get('video') or _content(video)
  arguments = found.get('ffmpegExtraArgs', found.get('ffmpeg_extra_args', ()))
  match = re.search(r'(?:^|\s)-r (\S+)|\bfps=([\d./]+)', ' '.join(arguments))
  try:
    return float(fractions.Fraction(match[1] or match[2])) if match else None
  except (ValueError, ZeroDivisionError):
    return None  # One of FFmpeg's names of rates, such as 'pal'.


def _find(path: str, data_dir: str | None) -> epath.Path:
  """The directory of a prepared dataset, by its path or its name."""
  if not path:
    raise ValueError('data.path is empty: say where the prepared dataset is.')
  folder = epath.Path(path).expanduser()
  if not data_dir:
    from tensorflow_datasets.core import constants

    data_dir = constants.DATA_DIR
  named = epath.Path(data_dir).expanduser() / path.replace(':', '/')
  for place in (folder, named):
    if (place / _INFO).exists():
      return place
    found = [
      info.parent
      for pattern in (_VERSION, f'*/{_VERSION}')
      for info in place.glob(f'{pattern}/{_INFO}')
      if place.is_dir()
    ]
    if len(found) == 1:
      return found[0]
    if found:
      raise ValueError(
        f'{path!r} holds several prepared datasets; give the directory of '
        f'one: {listing.shown(sorted(map(os.fspath, found)))}.'
      )
  if folder.is_dir():
    raise ValueError(
      f'{path!r} is no finished dataset: it has no {_INFO}. If its '
      'preparation was interrupted, give the same command again and it goes '
      "on from there. For a folder of video files use source 'folder'."
    )
  raise ValueError(
    f'No prepared dataset at {path!r}, nor one of this name in {data_dir}. '
    f'Give the directory that holds {_INFO}.'
  )
