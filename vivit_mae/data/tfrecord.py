"""TFRecord files, read without TensorFlow, by record.

A file is a sequence of records: 8 bytes of length (little endian), 4 of a
checksum of the length, the data, and 4 of a checksum of the data. Nothing in it
says where a record starts, so its lengths are walked once, with one small read
for each record. The checksums of the lengths are verified, those of the data
are not: that would take longer than decoding it (pictures notice damage).

Format: https://www.tensorflow.org/tutorials/load_data/tfrecord
"""

import functools
import itertools
import struct
from collections.abc import Iterator
from typing import IO

import numpy as np
from etils import epath
from jaxtyping import Int64

from vivit_mae.data.video import VideoError

_LENGTH = 8
_HEAD = _LENGTH + 4
_TAIL = 4


def walk(file: IO[bytes], name: str) -> Iterator[tuple[int, int]]:
  """Finds the records of an open file.

  Args:
    file: The file. The caller may read and seek between two records.
    name: What to call it in errors.

  Yields:
    Offset and length of each record's data, in bytes.

  Raises:
    VideoError: the file ends within a record, or is no TFRecord file.
  """
  size = file.seek(0, 2)
  place = 0
  for row in itertools.count():
    if place == size:
      return
    file.seek(place)
    head = file.read(_HEAD)
    if not row and head[:2] == b'\x1f\x8b':
      raise VideoError(
        'unsupported', name, 'a compressed TFRecord file: decompress it first'
      )
    if len(head) < _HEAD:
      raise VideoError('truncated', name, f'it ends within record {row}')
    length, checksum = struct.unpack('<QI', head)
    if masked_crc(head[:_LENGTH]) != checksum:
      raise VideoError(
        'corrupt', name, f'record {row} has no valid length: no TFRecord file?'
      )
    place += _HEAD
    if place + length + _TAIL > size:
      raise VideoError('truncated', name, f'it ends within record {row}')
    yield place, length
    place += length + _TAIL


def index(path: epath.PathLike) -> Int64[np.ndarray, 'n 2']:
  """Offset and length in bytes of the data of each record of a file.

  Raises:
    VideoError: as in `walk`, and if there is no such file.
  """
  with open_file(path) as file:
    return np.array(list(walk(file, str(path))), np.int64).reshape(-1, 2)


def read(path: epath.PathLike, offset: int, length: int) -> bytes:
  """The data of a record that `walk` has found.

  Raises:
    VideoError: it can't be read.
  """
  with open_file(path) as file:
    file.seek(offset)
    data = file.read(length)
  if len(data) < length:
    raise VideoError(
      'truncated', str(path), f'it ends within the record at byte {offset}'
    )
  return data


def open_file(path: epath.PathLike) -> IO[bytes]:
  """Opens a file for reading.

  Raises:
    VideoError: it can't be opened.
  """
  try:
    return epath.Path(path).open('rb')
  except OSError as error:
    missing = isinstance(error, FileNotFoundError)
    raise VideoError(
      'missing' if missing else 'unreadable', str(path), error.strerror or ''
    ) from None


def masked_crc(data: bytes) -> int:
  """The checksum of TFRecord files: CRC-32C, rotated, plus a constant."""
  crc = 0xFFFFFFFF
  table = _table()
  for byte in data:
    crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
  crc ^= 0xFFFFFFFF
  return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@functools.cache
def _table() -> tuple[int, ...]:
  """CRC-32C of each byte: Castagnoli's polynomial, lowest bit first."""
  table = []
  for crc in range(256):
    for _ in range(8):
      crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    table.append(crc)
  return tuple(table)
