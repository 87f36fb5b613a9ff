"""However pictures are stored, training sees the same."""

import io
import json
import tarfile

import numpy as np
import pytest

from tests.data import records
from tests.data.streams import evaluate, take, train
from vivit_mae.data import datasets

_FEATURES = 'tensorflow_datasets.core.features'
_VIDEOS = (('jump', 7), ('jump', 9), ('run', 8), ('run', 12), ('run', 6))
_NAMES = ['jump', 'run']


def _numbered():
  for number, (label, count) in enumerate(_VIDEOS):
    yield number, label, records.pictures(number, count)


def _folders(root):
  for number, label, encoded in _numbered():
    folder = root / label / f'{number}'
    folder.mkdir(parents=True)
    for i, picture in enumerate(encoded):
      (folder / f'{i}.png').write_bytes(picture)


def _tars(root):
  for number, label, encoded in _numbered():
    (root / label).mkdir(exist_ok=True)
    with tarfile.open(root / label / f'{number}.tar', 'w') as archive:
      for i, picture in enumerate(encoded):
        info = tarfile.TarInfo(f'{number}/img_{i:05}.png')
        info.size = len(picture)
        archive.addfile(info, io.BytesIO(picture))


def _dmvr(root):
  made = [
    records.sequence_example(
      encoded,
      clip__label__index=[_NAMES.index(label)],
      clip__label__text=[label.encode()],
    )
    for _, label, encoded in _numbered()
  ]
  records.write(root / 'train-00000-of-00002', made[:2])
  records.write(root / 'train-00001-of-00002', made[2:])


def _tfds(root):
  made = [
    records.example(video=encoded, label=[_NAMES.index(label)])
    for _, label, encoded in _numbered()
  ]
  records.write(root / 'a-train.tfrecord-00000-of-00001', made)
  split = {
    'name': 'train',
    'filepathTemplate': '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}',
    'shardLengths': [str(len(made))],
  }
  info = {'name': 'a', 'version': '1.0.0', 'splits': [split]}
  features = {
    'video': {
      'pythonClassName': f'{_FEATURES}.video_feature.Video',
      'video': {'encodingFormat': 'png'},
    },
    'label': {
      'pythonClassName': f'{_FEATURES}.class_label_feature.ClassLabel',
      'classLabel': {'numClasses': '2'},
    },
  }
  (root / 'dataset_info.json').write_text(json.dumps(info))
  (root / 'features.json').write_text(
    json.dumps(
      {
        'pythonClassName': f'{_FEATURES}.features_dict.FeaturesDict',
        'featuresDict': {'features': features},
      }
    )
  )
  (root / 'label.labels.txt').write_text('\n'.join(_NAMES))


_STORED = {
  'folders': ('frames', _folders),
  'tars': ('frames', _tars),
  'dmvr': ('dmvr', _dmvr),
  'tfds': ('tfds', _tfds),
}


@pytest.fixture(scope='module')
def sources(tmp_path_factory):
  found = {}
  for name, (kind, write) in _STORED.items():
    root = tmp_path_factory.mktemp(name)
    write(root)
    found[name] = datasets.open_source(kind, str(root), fps=10)
  return found


@pytest.mark.parametrize('stored', ['tars', 'dmvr', 'tfds'])
def test_streams_are_the_same(sources, stored):
  one, other = sources['folders'], sources[stored]
  assert other.class_names == tuple(_NAMES)
  for a, b in zip(take(train(one), 3), take(train(other), 3), strict=True):
    assert a['valid'].all()
    for key in ('video', 'label', 'index'):
      np.testing.assert_array_equal(a[key], b[key])
  for a, b in zip(evaluate(one), evaluate(other), strict=True):
    np.testing.assert_array_equal(a['video'], b['video'])


def test_pictures_are_read_by_workers(sources):
  source = sources['dmvr']
  here, there = train(source), train(source, num_workers=1)
  np.testing.assert_array_equal(next(here)['video'], next(there)['video'])


def test_clips_show_the_pictures(sources):
  """Shades rise by 8 a frame and frames lie 2 apart."""
  for source in sources.values():
    batch = next(train(source, crop='center', flip=False))
    shades = batch['video'].astype(float).mean((2, 3, 4))
    counts = [_VIDEOS[i][1] for i in batch['index']]
    for shade, count in zip(shades, counts, strict=True):
      assert count >= 5
      np.testing.assert_allclose(np.diff(shade), 16, atol=1)
