"""The directory of a prepared dataset: whose it is, its report, its metadata.

Every file gets its name when it is complete. `dataset_info.json`, without which
TFDS opens nothing, comes last.
"""

import csv
import dataclasses
import hashlib
import io
import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core import dataset_info, example_serializer
from tensorflow_datasets.core import splits as splits_lib

from vivit_mae.data.frames import Frames
from vivit_mae.data.labels import ClassNames, Label
from vivit_mae.data.listing import Box, Example, Examples
from vivit_mae.data.loss import Loss
from vivit_mae.data.video import VideoError

VERSION = '1.0.0'

# Says what a directory is being made from, so that only the same is resumed.
_MANIFEST = 'prepare.json'
_INFO = 'dataset_info.json'


@dataclasses.dataclass(frozen=True)
class Rejected:
  """A video that was left out.

  Attributes:
    split: Where it would have been.
    id: Which video.
    kind: The kind of `decode.VideoError`.
    reason: One sentence for the user.
  """

  split: str
  id: str
  kind: str
  reason: str


@dataclasses.dataclass(frozen=True)
class Prepared:
  """What has been written.

  Attributes:
    path: The directory that `tfds.builder_from_directory` opens.
    counts: Videos by split.
    num_bytes: Size of all shards.
    rejected: What was left out, in the order of the input.
    loss: What encoding anew has changed; None if nothing was.
  """

  path: epath.Path
  counts: dict[str, int]
  num_bytes: int
  rejected: tuple[Rejected, ...]
  loss: Loss | None = None


def features(
  class_names: ClassNames, multi_label: bool = False, boxes: bool = False
) -> tfds.features.FeaturesDict:
  """The features of a dataset of encoded videos.

  Args:
    class_names: Empty if nothing has a label; the label is then -1 throughout,
      as it is for a single video without one. With several heads, those of
      each.
    multi_label: Whether several classes may apply to a video.
    boxes: Whether videos have boxes.

  Returns:
    TFDS features: the bytes, the label, the id, the number of frames and the
    duration in seconds. The label is a class, a sequence of those that apply
    ([-1] = no label), or a class for each head. Boxes are JSON text: a list of
    `listing.Box`, each a list of its fields.
  """

  def one(names):
    if names:
      return tfds.features.ClassLabel(names=list(names))
    return tfds.features.ClassLabel(num_classes=0)

  if isinstance(class_names, Mapping):
    label = {head: one(names) for head, names in class_names.items()}
  elif multi_label:
    label = tfds.features.Sequence(one(class_names))
  else:
    label = one(class_names)
  known = {
    'video': tfds.features.Tensor(shape=(), dtype=np.object_),
    'label': label,
    'id': tfds.features.Text(),
    'num_frames': np.int32,
    'duration': np.float32,
  }
  if boxes:
    known['boxes'] = tfds.features.Text()
  return tfds.features.FeaturesDict(known)


def serialise(
  encoder: tfds.features.FeaturesDict, fields: Mapping[str, Any]
) -> bytes:
  """A record's bytes, the same in every process, which TFDS's own are not."""
  serialiser = example_serializer.ExampleSerializer(
    cast(Any, encoder.get_serialized_info())
  )
  example = serialiser.get_tf_example(encoder.encode_example(fields))
  return example.SerializeToString(deterministic=True)


def encode_label(label: Label, class_names: ClassNames) -> Any:
  """A label as `features` takes it."""
  if isinstance(class_names, Mapping):
    assert isinstance(label, tuple)
    return dict(zip(class_names, label, strict=True))
  return list(label) if isinstance(label, tuple) else label


def encode_boxes(boxes: Sequence[Box] | None) -> str:
  """Boxes as text; None is null."""
  return json.dumps(boxes)


def decode_boxes(text: str) -> tuple[Box, ...] | None:
  """Reads what `encode_boxes` wrote."""
  boxes = json.loads(text)
  if boxes is None:
    return None
  return tuple(Box(*box[:-1], classes=tuple(box[-1])) for box in boxes)


def check_names(
  name: str, splits: Iterable[str], class_names: ClassNames
) -> None:
  """Refuses names that TFDS would not give back."""
  if isinstance(class_names, Mapping):
    heads = tuple(class_names)
    tables = tuple(class_names.values())
  else:
    heads, tables = (), (class_names,)
  # A file's name is put together from them, and taken apart again.
  for what, values in (
    ('dataset', (name,)),
    ('split', splits),
    ('label', heads),
  ):
    for value in values:
      if not re.fullmatch(r'[a-z][a-z0-9_]*', value):
        raise ValueError(
          f'{value!r} can not name a {what}: use lower case letters, digits '
          'and underscores, a letter first.'
        )
  # TFDS keeps them in a file, one in each line, and strips the lines.
  for names in tables:
    bad = [n for n in names if not n or n != n.strip() or '\n' in n]
    if bad or len(set(names)) != len(names):
      raise ValueError(
        f'Class names must differ and neither be empty nor begin or end with '
        f'white space; got {list(names)}.'
      )


def fingerprint(splits: Mapping[str, Examples]) -> str:
  """Stands for a dataset's input: ids, labels, parts, boxes and sizes."""
  digest = hashlib.sha256()
  for split, examples in splits.items():
    for i in range(len(examples)):
      example = examples[i]
      key = [split, example.id, example.label, _size(example)]
      if example.segment is not None or example.boxes is not None:
        key += [example.segment, example.boxes]
      digest.update(json.dumps(key).encode())
  return digest.hexdigest()


def _size(example: Example) -> Any:
  """What tells one version of a video from another, without reading it."""
  if isinstance(example.video, bytes):
    return len(example.video)
  if isinstance(example.video, Frames):
    try:
      return [len(example.video), example.video.fps]
    except VideoError:
      return -1
  path = epath.Path(example.video)
  return path.stat().length if path.exists() else -1


def claim(out: epath.Path, manifest: Mapping[str, Any]) -> None:
  """Makes sure that the directory is ours to write, and says what it is."""
  path = out / _MANIFEST
  if path.exists():
    there = json.loads(path.read_text())
    differing = [k for k in manifest | there if manifest.get(k) != there.get(k)]
    if differing:
      differences = '; '.join(
        f'{k} was {_brief(there.get(k))}, is {_brief(manifest.get(k))}'
        for k in differing
      )
      raise ValueError(
        f'{str(out)!r} holds a dataset made from other videos or with other '
        f'settings ({differences}). Choose another directory, or delete this '
        'one yourself.'
      )
    return
  if out.exists() and any(out.iterdir()):
    raise ValueError(
      f'{str(out)!r} is not empty and was not begun by this program. Choose '
      'another directory for the prepared dataset.'
    )
  out.mkdir(parents=True, exist_ok=True)
  write_file(path, json.dumps(manifest, indent=1, ensure_ascii=False).encode())


def _brief(value: Any) -> str:
  text = 'none' if value is None else json.dumps(value, ensure_ascii=False)
  return text if len(text) <= 60 else f'{text[:60]}...'


def part_name(path: epath.Path) -> epath.Path:
  """An unfinished file's name: two runs at once don't share it."""
  return path.parent / f'.{path.name}.{os.getpid()}.part'


def write_file(path: epath.Path, content: bytes) -> None:
  """Writes a file that is either complete or absent."""
  part = part_name(path)
  part.write_bytes(content)
  part.replace(path)


def write_report(path: epath.Path, rejected: Sequence[Rejected]) -> None:
  """Writes the list of the videos that were left out."""
  text = io.StringIO()
  rows = csv.writer(text, lineterminator='\n')
  rows.writerow(['split', 'id', 'kind', 'reason'])
  rows.writerows(dataclasses.astuple(r) for r in rejected)
  write_file(path, text.getvalue().encode())


def write_metadata(
  out: epath.Path,
  name: str,
  encoder: tfds.features.FeaturesDict,
  lengths: Mapping[str, list[int]],
  sizes: Mapping[str, int],
) -> None:
  """Makes a directory of shards a dataset, unless it is one already.

  Args:
    out: The directory.
    name: The dataset's name.
    encoder: Its features.
    lengths: Videos in each shard, by split.
    sizes: Bytes, by split.
  """
  if (out / _INFO).exists():
    return
  identity = dataset_info.DatasetIdentity(
    name=name,
    version=tfds.core.Version(VERSION),
    data_dir=os.fspath(out),
    module_name='',
  )
  template = tfds.core.ShardedFileTemplate(
    data_dir=out, dataset_name=name, filetype_suffix='array_record'
  )
  info = tfds.core.DatasetInfo(
    builder=identity,
    description='Encoded videos, prepared by vivit_mae.',
    features=encoder,
    split_dict=splits_lib.SplitDict(
      [
        tfds.core.SplitInfo(
          name=split,
          shard_lengths=lengths[split],
          num_bytes=sizes[split],
          filename_template=template,
        )
        for split in lengths
      ]
    ),
  )
  info.set_file_format('array_record')
  with tempfile.TemporaryDirectory() as scratch:
    info.write_to_directory(scratch)
    files = sorted(epath.Path(scratch).iterdir(), key=lambda p: p.name == _INFO)
    for file in files:
      write_file(out / file.name, file.read_bytes())
