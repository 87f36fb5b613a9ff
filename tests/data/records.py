"""TFRecord files for tests, written without TensorFlow."""

import pathlib
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from tensorflow_datasets.proto import tf_example_pb2

from vivit_mae.data import tfrecord

_messages: Any = tf_example_pb2


def pictures(number: int, count: int, extension: str = '.png') -> list[bytes]:
  """Encoded pictures of 24 rows and 32 columns; png keeps them exactly."""
  encoded = []
  for rgb in pixels(number, count):
    _, buffer = cv2.imencode(extension, rgb[..., ::-1])
    encoded.append(buffer.tobytes())
  return encoded


def pixels(number: int, count: int) -> np.ndarray:
  """What the pictures show: the count grows with time."""
  rng = np.random.default_rng(number)
  still = rng.integers(0, 128, (6, 8, 3), np.uint8).repeat(4, 0).repeat(4, 1)
  return np.stack([still + np.uint8(8 * (t % 16)) for t in range(count)])


def write(path: pathlib.Path, records: Iterable[bytes]) -> pathlib.Path:
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open('wb') as file:
    for data in records:
      length = struct.pack('<Q', len(data))
      file.write(length + struct.pack('<I', tfrecord.masked_crc(length)))
      file.write(data + struct.pack('<I', tfrecord.masked_crc(data)))
  return path


def _fill(features: Any, values: Mapping[str, Sequence[Any]]) -> None:
  for key, items in values.items():
    feature = features.feature[key]
    if items and isinstance(items[0], int):
      feature.int64_list.value[:] = items
    elif items and isinstance(items[0], float):
      feature.float_list.value[:] = items
    else:
      feature.bytes_list.value[:] = items


def sequence_example(
  encoded: Sequence[bytes],
  in_one_feature: bool = False,
  **context: Sequence[int] | Sequence[bytes] | Sequence[float],
) -> bytes:
  """A record as DMVR's: '__' in the names of the context stands for '/'."""
  record = _messages.SequenceExample()
  _fill(record.context, {k.replace('__', '/'): v for k, v in context.items()})
  groups = [encoded] if in_one_feature else [[picture] for picture in encoded]
  for group in groups:
    pictures = record.feature_lists.feature_list['image/encoded']
    pictures.feature.add().bytes_list.value[:] = group
  return record.SerializeToString()


def example(**values: Sequence[Any]) -> bytes:
  """A `tf.train.Example`."""
  record = _messages.Example()
  _fill(record.features, values)
  return record.SerializeToString()
