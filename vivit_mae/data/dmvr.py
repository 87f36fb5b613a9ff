"""Scenic's video datasets: TFRecord files of pictures, as DMVR reads them.

A record is a `tf.train.SequenceExample`: one encoded picture for each frame in
the feature list 'image/encoded', and in its context the numbers of the classes
('clip/label/index'), their names ('clip/label/text') and the name of the video.
TensorFlow is not needed.

Names after https://github.com/google-deepmind/dmvr (`modalities.py` and the
examples) and after MediaSequence, whose format it shares
(https://github.com/google-ai-edge/mediapipe/tree/master/mediapipe/util/sequence).
"""

import dataclasses
import functools
import logging
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any, SupportsIndex

import numpy as np
from etils import epath
from google.protobuf import message
from jaxtyping import Int64

from vivit_mae.data import listing, record_files, tfrecord
from vivit_mae.data.frames import EncodedFrames, log_cost
from vivit_mae.data.kept_classes import KeptClasses
from vivit_mae.data.labels import ClassNames, Label
from vivit_mae.data.listing import Example
from vivit_mae.data.video import VideoError

_log = logging.getLogger(__name__)

_PICTURES = 'image/encoded'
_RATE = 'image/frame_rate'
_INDEX = 'clip/label/index'
_TEXTS = ('clip/label/text', 'clip/label/string')
_NAMES = ('clip/media_id', 'video/filename', 'clip/data_path')

# A context is small: one read fetches most of them.
_PEEK = 4096
# The first byte of a record says which of its two fields it starts with.
_CONTEXT, _LISTS = 0x0A, 0x12


class DmvrSource:
  """One split of a dataset of TFRecord files that DMVR can read.

  Records with several labels make the data multi-label.

  Attributes:
    name: What to call this data in messages.
    class_names: In the order of the labels' numbers: their texts, or the
      numbers where texts are missing or do not tell the classes apart.
    multi_label: Whether several classes may apply to a video.
  """

  def __init__(
    self,
    path: str,
    split: str = 'train',
    unlabelled: Sequence[str] = (),
    fps: float | int = 30,
  ):
    """Reads the context of every record, in all splits.

    Nothing else says how many records there are, and of which classes. It takes
    one small read for each record; the pictures are not read. The result is
    kept for the life of the process, and nowhere else.

    Args:
      path: A folder of TFRecord files, a pattern for their names
        ('data/hmdb/*_1-*'), or as in Scenic's configs 'data/hmdb/train@59'.
      split: 'train', 'validation' or 'test', which names of files or of
        subfolders say; or the part of the names before the numbers, such as
        'train_1'; or 'all'.
      unlabelled: Classes whose videos are to count as having no label.
      fps: Pictures per second, where a record does not say.

    Raises:
      ValueError: If there are no such files or splits, if files of a set are
        missing, or if a file is damaged.
    """
    self._root, sets = record_files.find(path)
    chosen = record_files.choose(sets, split, path)
    found = {
      name: [_scan_file(posixpath.join(self._root, f)) for f in files]
      for name, files in sets.items()
    }
    everything = [contents for files in found.values() for contents in files]
    self.multi_label = any(c.most_labels > 1 for c in everything)
    self._kept = KeptClasses(_name_classes(everything), unlabelled, path)
    self.class_names: ClassNames = self._kept.class_names
    self.name = f'{path} ({split})'
    self._fps = fps
    self._files = [file for name in chosen for file in sets[name]]
    places = [contents.places for name in chosen for contents in found[name]]
    self._places = np.concatenate(places)
    self._starts = np.cumsum([0, *map(len, places)])
    if not len(self):
      raise ValueError(f'The files of {self.name} hold no records.')
    log_cost(path, fps)

  def __len__(self) -> int:
    return len(self._places)

  def __getitem__(self, index: SupportsIndex, /) -> Example:
    i = range(len(self))[index.__index__()]
    k = int(np.searchsorted(self._starts, i, 'right')) - 1
    file, row = self._files[k], i - int(self._starts[k])
    name = f'{file}:{row}'
    data = tfrecord.read(
      posixpath.join(self._root, file), *self._places[i].tolist()
    )
    try:
      record = _parse(data)
    except message.DecodeError as error:
      raise VideoError('corrupt', name, f'its record: {error}') from None
    context = record.context.feature
    label: Label = _indices(context)
    if not self.multi_label:
      label = (*label, -1)[0]
    rate = [r for r in _values(context, _RATE, 'float_list') or () if r > 0]
    titles = _texts(context, _NAMES)
    lists = record.feature_lists.feature_list
    pictures = lists[_PICTURES].feature if _PICTURES in lists else ()
    return Example(
      EncodedFrames(
        # Some writers put all pictures in one feature, others one in each.
        tuple(picture for f in pictures for picture in f.bytes_list.value),
        rate[0] if rate else self._fps,
      ),
      self._kept.number(label),
      f'{name} {titles[0]}' if titles else name,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Contents:
  """What the contexts of a file say.

  Attributes:
    places: Offset and length in bytes of each record.
    texts: The texts that were found for each number of a class.
    most_labels: How many labels a record has at most.
  """

  places: Int64[np.ndarray, 'n 2']
  texts: Mapping[int, frozenset[str]]
  most_labels: int


def _scan_file(path: str) -> _Contents:
  """Reads the contexts of all records, once as long as the file is the same.

  Raises:
    VideoError: the file is damaged.
  """
  stat = epath.Path(path).stat()
  return _scan_version(path, stat.length, stat.mtime)


@functools.cache
def _scan_version(path: str, length: int, mtime: float | int) -> _Contents:
  del length, mtime  # They only tell versions of the file apart.
  places = []
  found: dict[int, set[str]] = {}
  most = 0
  with tfrecord.open_file(path) as file:
    for row, (offset, size) in enumerate(tfrecord.walk(file, path)):
      places.append((offset, size))
      try:
        context = _read_context(file, offset, size)
      except (message.DecodeError, IndexError) as error:
        raise VideoError(
          'corrupt', path, f'record {row} is no SequenceExample: {error}'
        ) from None
      indices = _indices(context)
      texts = _texts(context, _TEXTS)
      most = max(most, len(indices))
      for i in indices:
        found.setdefault(i, set())
      if len(texts) == len(indices):
        for i, text in zip(indices, texts, strict=True):
          found[i].add(text)
  return _Contents(
    np.array(places, np.int64).reshape(-1, 2),
    {i: frozenset(texts) for i, texts in found.items()},
    most,
  )


def _read_context(file: IO[bytes], offset: int, size: int) -> Mapping[str, Any]:
  """The features of a record's context, and no more if it comes first."""
  file.seek(offset)
  data = file.read(min(size, _PEEK))
  if data and data[0] in (_CONTEXT, _LISTS):
    length, start = _varint(data, 1)
    if data[0] == _CONTEXT:
      data += file.read(max(0, start + length - len(data)))
      return _parse(data[: start + length]).context.feature
    if start + length == size:
      return {}
  data += file.read(size - len(data))
  return _parse(data).context.feature


def _varint(data: bytes, start: int) -> tuple[int, int]:
  """A number in protobuf's variable-length form, and where it ends."""
  value = 0
  for k in range(10):
    byte = data[start + k]
    value |= (byte & 0x7F) << 7 * k
    if byte < 0x80:
      return value, start + k + 1
  raise IndexError('a number does not end')


def _parse(data: bytes) -> Any:
  # Imported here: TFDS, which brings the messages, takes a while to import.
  from tensorflow_datasets.proto import tf_example_pb2

  messages: Any = tf_example_pb2
  return messages.SequenceExample.FromString(data)


def _values(context: Mapping[str, Any], key: str, kind: str) -> Any:
  """The values of a feature; None if there is no such feature."""
  feature = context.get(key)
  return None if feature is None else getattr(feature, kind).value


def _texts(context: Mapping[str, Any], keys: Iterable[str]) -> list[str]:
  """The texts of the first of some features that has any."""
  for key in keys:
    values = _values(context, key, 'bytes_list')
    if values:
      return [value.decode('utf-8', 'replace') for value in values]
  return []


def _indices(context: Mapping[str, Any]) -> tuple[int, ...]:
  """The numbers of a record's classes; -1 if it says nothing of them."""
  values = _values(context, _INDEX, 'int64_list')
  return (-1,) if values is None else tuple(values)


def _name_classes(files: Sequence[_Contents]) -> tuple[str, ...]:
  """Names of all classes up to the highest number."""
  texts: dict[int, set[str]] = {}
  for contents in files:
    for i, found in contents.texts.items():
      texts.setdefault(i, set()).update(found)
  numbers = tuple(map(str, range(max(texts, default=-1) + 1)))
  names = list(numbers)
  for i, found in texts.items():
    if i >= 0 and len(found) == 1:
      names[i] = next(iter(found))
  several = [found for found in texts.values() if len(found) > 1]
  if several or len(set(names)) < len(names):
    _log.warning(
      'data: the texts of the labels do not tell the classes apart%s; they '
      'are called by their numbers',
      f' ({listing.shown(sorted(several[0]))} are one)' if several else '',
    )
    return numbers
  return tuple(names)
