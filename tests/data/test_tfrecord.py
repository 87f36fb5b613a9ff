"""TFRecord files are read by index; damaged ones are named."""

import struct

import pytest

from tests.data import records
from vivit_mae.data import tfrecord, video


def test_checksum_is_crc32c():
  # RFC 3720, B.4 and the check value of CRC-32C.
  for data, crc in ((b'123456789', 0xE3069283), (bytes(32), 0x8A9136AA)):
    masked = (tfrecord.masked_crc(data) - 0xA282EAD8) % 2**32
    assert (masked << 15 | masked >> 17) % 2**32 == crc


def test_records_by_index(tmp_path):
  data = [b'', b'a' * 10_000, b'bc']
  path = records.write(tmp_path / 'a.tfrecord', data)
  places = tfrecord.index(path)
  assert places.tolist() == [[12, 0], [28, 10_000], [10_044, 2]]
  for i in (2, 0, 1):
    assert tfrecord.read(path, *places[i].tolist()) == data[i]


def test_a_file_without_records(tmp_path):
  assert tfrecord.index(records.write(tmp_path / 'a', [])).shape == (0, 2)


@pytest.mark.parametrize('lost', [1, 4, 7, 11])
def test_truncated_files(tmp_path, lost):
  path = records.write(tmp_path / 'a.tfrecord', [b'a', b'bcd'])
  path.write_bytes(path.read_bytes()[:-lost])
  with pytest.raises(video.VideoError, match=r'a\.tfrecord: trunc.* record 1'):
    tfrecord.index(path)


def test_file_that_shrinks_after_it_was_indexed(tmp_path):
  path = records.write(tmp_path / 'a.tfrecord', [b'a', b'bcd'])
  place = tfrecord.index(path)[1].tolist()
  path.write_bytes(path.read_bytes()[:-6])
  with pytest.raises(video.VideoError, match='truncated'):
    tfrecord.read(path, *place)


@pytest.mark.parametrize(
  ('data', 'message'),
  [
    (b'no record at all, but text', 'corrupt .*record 0 has no valid length'),
    (b'\x1f\x8b\x08' + bytes(30), 'decompress it first'),
    (struct.pack('<QI', 2**60, 0) + b'x', 'corrupt'),
    (b'short', 'truncated'),
  ],
)
def test_other_files(tmp_path, data, message):
  path = tmp_path / 'a.tfrecord'
  path.write_bytes(data)
  with pytest.raises(video.VideoError, match=message):
    tfrecord.index(path)


def test_missing_file(tmp_path):
  with pytest.raises(video.VideoError, match='missing') as caught:
    tfrecord.read(tmp_path / 'a', 0, 1)
  assert caught.value.kind == 'missing'
