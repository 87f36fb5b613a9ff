"""What is written is read back, the same every time, whole or not at all."""

import io

import numpy as np
import pytest
from PIL import Image

from vivit_mae.data import decode, encode


def _frames(n=20, height=64, width=80):
  y, x = np.mgrid[:height, :width]
  waves = [128 + 100 * np.sin((x + 3 * i) / 17 + y / 23) for i in range(n)]
  return [
    np.stack([w, 255 - w, np.full_like(w, 90)], -1).astype(np.uint8)
    for w in waves
  ]


def _read(video):
  def plan(info):
    every = np.arange(info.num_frames)
    return [decode.Clip(every, (info.height, info.width))]

  return decode.read_clips(video, plan)[0].astype(int)


@pytest.mark.parametrize('fps', [15, 29.97, 30000 / 1001, 7.5])
def test_video_survives_the_round_trip(tmp_path, fps):
  frames = _frames()
  encoded = encode.write_video(tmp_path / 'a.mp4', frames, fps, crf=10)
  assert (tmp_path / 'a.mp4').read_bytes() == encoded
  info = decode.probe(tmp_path / 'a.mp4', decode=True)
  assert (info.codec, info.pixel_format) == ('h264', 'yuv420p')
  assert (info.height, info.width, info.num_frames) == (64, 80, 20)
  assert info.fps == pytest.approx(fps, rel=1e-3)
  assert not info.variable_frame_rate
  assert np.abs(_read(encoded) - np.stack(frames)).mean() < 3


def test_video_has_the_asked_quality_and_groups():
  frames = _frames(40)
  fine = encode.write_video(None, iter(frames), 15, crf=10)
  coarse = encode.write_video(None, iter(frames), 15, crf=40)
  assert len(coarse) < len(fine)
  error = [np.abs(_read(v) - np.stack(frames)).mean() for v in (fine, coarse)]
  assert error[0] < error[1]
  short = encode.write_video(None, frames, 15, gop=4)
  assert len(short) > len(encode.write_video(None, frames, 15, gop=40))


@pytest.mark.parametrize('size', [(64, 80), (96, 112), (96, 96)])
def test_the_same_frames_give_the_same_bytes(size):
  frames = _frames(30, *size)
  first = encode.write_video(None, frames, 15, crf=10)
  for _ in range(10):
    assert encode.write_video(None, frames, 15, crf=10) == first


def test_gif_moves_for_ever(tmp_path):
  frames = _frames(8)
  encoded = encode.write_gif(tmp_path / 'a.gif', frames, 10)
  assert (tmp_path / 'a.gif').read_bytes() == encoded
  with Image.open(io.BytesIO(encoded)) as picture:
    assert picture.info['loop'] == 0
    assert picture.info['duration'] == 100
  assert decode.probe(encoded).num_frames == 8
  assert np.abs(_read(encoded) - np.stack(frames)).mean() < 6


@pytest.mark.parametrize(
  ('frames', 'message'),
  [
    ([], 'no frames'),
    ([np.zeros((63, 80, 3), np.uint8)], '63x80.*even'),
    ([np.zeros((64, 81, 3), np.uint8)], '64x81.*even'),
    ([np.zeros((0, 80, 3), np.uint8)], '0x80.*2 or more'),
    (
      [np.zeros((64, 80, 3), np.uint8), np.zeros((64, 64, 3), np.uint8)],
      'frame 1 is 64x64, the first one 64x80',
    ),
  ],
)
def test_impossible_frames_are_refused(tmp_path, frames, message):
  with pytest.raises(ValueError, match=message):
    encode.write_video(tmp_path / 'a.mp4', frames, 15)
  assert list(tmp_path.iterdir()) == []


def test_impossible_rates_are_refused():
  with pytest.raises(ValueError, match='fps=0'):
    encode.write_video(None, _frames(2), 0)
  with pytest.raises(ValueError, match='fps=60'):
    encode.write_gif(None, _frames(2), 60)
  with pytest.raises(ValueError, match='no frames'):
    encode.write_gif(None, [], 10)


def test_writing_replaces_and_leaves_nothing_beside(tmp_path):
  (tmp_path / 'a.mp4').write_bytes(b'old')
  encoded = encode.write_video(tmp_path / 'a.mp4', _frames(4), 15)
  assert [p.name for p in tmp_path.iterdir()] == ['a.mp4']
  assert (tmp_path / 'a.mp4').read_bytes() == encoded
