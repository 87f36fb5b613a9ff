"""The built-in videos: motion tells the class, a single frame does not."""

import os
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds

from vivit_mae.data import decode, synthetic


def _paint(label, seed, size=48, num_frames=synthetic.NUM_FRAMES):
  rng = np.random.default_rng([99, seed])
  return synthetic.video_frames(label, rng, size, num_frames)


def _thumbnails(frames, side=8):
  """Means over blocks of grey pixels, one row per frame."""
  grey = frames.astype(np.float32).mean(-1)
  t, h, _ = grey.shape
  blocks = grey.reshape(t, side, h // side, side, h // side)
  return blocks.mean((2, 4)).reshape(t, -1)


def _motion(frames):
  """Speed to the right, down, clockwise and outwards, by least squares."""
  grey = frames.astype(np.float32).mean(-1)
  middle = (grey[1:] + grey[:-1]) / 2
  change = np.diff(grey, axis=0)
  down, across = (
    (np.roll(middle, -1, axis) - np.roll(middle, 1, axis)) / 2
    for axis in (1, 2)
  )
  # Turning and zooming are about the sprite, which is where things change;
  # distances go through the edges of the frame, as the sprite does.
  weight = np.abs(change).sum(0)
  size = len(weight)
  turns = np.exp(2j * np.pi * np.arange(size) / size)
  y, x = (
    np.angle(turns / (weight.sum(axis) * turns).sum()) * size / (2 * np.pi)
    for axis in (1, 0)
  )
  x, y = x[None, :], y[:, None]
  slopes = (across, down, x * down - y * across, x * across + y * down)
  return np.array([-(change * s).sum() / (s**2).sum() for s in slopes])


def _nearest_centroid(features, labels, split):
  """Accuracy on the rows after `split`, by the centroids of those before."""
  features = (features - features[:split].mean(0)) / (
    features[:split].std(0) + 1e-6
  )
  train, test = labels[:split], labels[split:]
  centroids = np.stack(
    [features[:split][train == k].mean(0) for k in range(12)]
  )
  distance = ((features[split:, None] - centroids) ** 2).sum(-1)
  return np.mean(distance.argmin(1) == test)


@pytest.fixture(scope='module')
def many():
  """480 videos, balanced: features of single frames and of motion."""
  labels = np.arange(480) % 12
  first, middle, last, motion = [], [], [], []
  for seed, label in enumerate(labels.tolist()):
    frames = _paint(label, seed)
    thumbnails = _thumbnails(frames)
    first.append(thumbnails[0])
    middle.append(thumbnails[20])
    last.append(thumbnails[-1])
    motion.append(_motion(frames))
  return labels, {
    'first': np.stack(first),
    'middle': np.stack(middle),
    'last': np.stack(last),
    'motion': np.stack(motion),
  }


@pytest.mark.parametrize('which', ['first', 'middle', 'last'])
def test_a_single_frame_does_not_betray_the_class(many, which):
  labels, features = many
  # Chance is 1/12 = .083, of 240 videos: .083 +- .018 (one deviation).
  assert _nearest_centroid(features[which], labels, 240) < 0.14


def test_motion_tells_the_class(many):
  labels, features = many
  assert _nearest_centroid(features['motion'], labels, 240) > 0.5


def test_there_are_a_dozen_classes_of_known_motion():
  assert len(set(synthetic.CLASSES)) == 12
  assert synthetic.CLASSES[0] == 'right'
  motions = {
    name: np.median([_motion(_paint(k, s)) for s in range(40)], 0)
    for k, name in enumerate(synthetic.CLASSES)
  }
  assert motions['right'][0] > 0.3 > motions['left'][0]
  assert motions['left'][0] < -0.3
  assert motions['down'][1] > 0.3
  assert motions['up'][1] < -0.3
  assert motions['up_right'][0] > 0.2 > -0.2 > motions['up_right'][1]
  assert motions['turn_clockwise'][2] > 0.007
  assert motions['turn_anticlockwise'][2] < -0.007
  assert motions['zoom_in'][3] > 0.003
  assert motions['zoom_out'][3] < -0.003
  for name, (right, down, turn, zoom) in motions.items():
    if not name.startswith('turn'):
      assert abs(turn) < 0.003
    if not name.startswith('zoom'):
      assert abs(zoom) < 0.002
    if name.startswith(('turn', 'zoom')):
      assert max(abs(right), abs(down)) < 0.1


@pytest.mark.parametrize('size', [32, 96, 112])
def test_pictures_have_the_asked_shape(size):
  frames = _paint(3, 0, size=size, num_frames=7)
  assert frames.shape == (7, size, size, 3)


def test_sprites_stand_out_from_smooth_backgrounds():
  changed, steps = [], []
  for seed in range(12):
    frames = _paint(0, seed).astype(np.float32)
    still = np.median(frames, 0)
    sprite = np.abs(frames - still).max(-1) > 30
    changed.append(sprite.mean())
    steps.append(np.abs(np.diff(still, axis=1)).mean())
  assert 0.03 < np.mean(changed) < 0.3
  assert np.mean(steps) < 4


def test_videos_are_the_same_every_time():
  first = synthetic.Videos('train', 24, seed=3)
  again = synthetic.Videos('train', 24, seed=3)
  other = synthetic.Videos('train', 24, seed=4)
  for i in (0, 7):
    assert first[i] == again[i]
    assert first[i].video != other[i].video


def test_splits_are_balanced_and_disjoint():
  train = synthetic.Videos('train')
  validation = synthetic.Videos('validation')
  assert (len(train), len(validation)) == (1000, 200)
  small = [
    synthetic.Videos(s, 36, size=16, num_frames=2)
    for s in ('train', 'validation')
  ]
  examples = [[part[i] for i in range(len(part))] for part in small]
  ids = [{e.id for e in part} for part in examples]
  assert [len(i) for i in ids] == [30, 6]
  assert not ids[0] & ids[1]
  counts = np.bincount([e.label for e in examples[0]], minlength=12)
  assert counts.min() >= 2
  assert counts.max() <= 3
  with pytest.raises(IndexError):
    small[0][30]
  with pytest.raises(ValueError, match=r"'test'.*train.*validation"):
    synthetic.Videos('test')


def test_files_are_real_videos():
  example = synthetic.Videos('validation')[5]
  info = decode.probe(example.video, decode=True)
  assert (info.codec, info.num_frames, info.fps) == ('h264', 40, 15)
  assert (info.height, info.width) == (96, 96)
  assert 2 <= info.duration <= 3


def _prepare(cache, **kwargs):
  kwargs = {'num_videos': 12, 'size': 32, 'num_frames': 6} | kwargs
  return synthetic.prepare(cache, progress=False, **kwargs)


def test_prepare_writes_once_what_tfds_opens(tmp_path):
  path = _prepare(tmp_path)
  builder: Any = tfds.builder_from_directory(str(path))
  assert builder.info.features['label'].names == list(synthetic.CLASSES)
  assert builder.info.splits['train'].num_examples == 10
  assert builder.info.splits['validation'].num_examples == 2
  record = builder.as_data_source('train')[0]
  assert (
    record['video']
    == synthetic.Videos('train', 12, size=32, num_frames=6)[0].video
  )
  before = {p: os.stat(p).st_mtime_ns for p in path.iterdir()}
  assert _prepare(tmp_path) == path
  assert {p: os.stat(p).st_mtime_ns for p in path.iterdir()} == before


def test_prepare_keeps_other_sizes_elsewhere(tmp_path):
  paths = {
    _prepare(tmp_path),
    _prepare(tmp_path, size=48),
    _prepare(tmp_path, seed=1),
    _prepare(tmp_path, num_videos=18),
    _prepare(tmp_path, num_frames=5),
  }
  assert len(paths) == 5


def test_prepare_finishes_what_was_killed(tmp_path, monkeypatch):
  class Killed(BaseException): ...

  whole = synthetic.Videos.__getitem__

  def dies(self, index, /):
    if index == 6:
      raise Killed
    return whole(self, index)

  monkeypatch.setattr(synthetic.Videos, '__getitem__', dies)
  with pytest.raises(Killed):
    _prepare(tmp_path)
  (begun,) = tmp_path.iterdir()
  assert not (begun / 'dataset_info.json').exists()
  monkeypatch.setattr(synthetic.Videos, '__getitem__', whole)
  path = _prepare(tmp_path)
  straight = _prepare(tmp_path / 'other')
  for file in path.glob('*.array_record*'):
    assert file.read_bytes() == (straight / file.name).read_bytes()


def test_the_cache_follows_the_environment(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'xdg'))
  monkeypatch.setenv('VIVIT_MAE_CACHE', str(tmp_path / 'ours'))
  assert tmp_path / 'ours' in _prepare(None).parents
  monkeypatch.delenv('VIVIT_MAE_CACHE')
  assert tmp_path / 'xdg' / 'vivit_mae' in _prepare(None).parents


@pytest.mark.parametrize(
  ('asked', 'message'),
  [
    ({'num_videos': 5}, 'num_videos=5'),
    ({'size': 33}, 'size=33'),
    ({'num_frames': 0}, 'num_frames=0'),
  ],
)
def test_impossible_wishes_are_named(tmp_path, asked, message):
  with pytest.raises(ValueError, match=message):
    _prepare(tmp_path, **asked)
