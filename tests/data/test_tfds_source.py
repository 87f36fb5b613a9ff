"""Datasets of TFDS in TFRecord files, and those whose videos are pictures.

What `prepare` writes, in ArrayRecord, is tested in test_writer.
"""

import json
import logging
import pickle
import subprocess
import sys
from collections.abc import Mapping

import numpy as np
import pytest

from tests.data import records
from vivit_mae.data import datasets, decode, frames, video

_FEATURES = 'tensorflow_datasets.core.features'
_LABEL = {
  'pythonClassName': f'{_FEATURES}.class_label_feature.ClassLabel',
  'classLabel': {'numClasses': '3'},
}
_TEXT = {'pythonClassName': f'{_FEATURES}.text_feature.Text', 'text': {}}


def _video(*arguments):
  shape = {'dimensions': ['-1', '24', '32', '3']}
  return {
    'pythonClassName': f'{_FEATURES}.video_feature.Video',
    'video': {
      'dtype': 'uint8',
      'encodingFormat': 'png',
      'ffmpegExtraArgs': arguments,
      'shape': shape,
    },
  }


def _sequence(inner):
  return {
    'pythonClassName': f'{_FEATURES}.sequence_feature.Sequence',
    'sequence': {'feature': inner, 'length': '-1'},
  }


def _prepared(root, shards, fields=None, names='run\njump\nsit\n', **info):
  """Writes what TFDS 4.9 does, for the splits train (some shards) and test."""
  fields = fields or {'video': _video(), 'label': _LABEL}
  splits = {'train': shards[:-1], 'test': shards[-1:]}
  root.mkdir(parents=True)
  for split, parts in splits.items():
    for k, part in enumerate(parts):
      name = f'tiny-{split}.tfrecord-{k:05d}-of-{len(parts):05d}'
      records.write(root / name, part)
  (root / 'dataset_info.json').write_text(
    json.dumps(
      {
        'name': 'tiny',
        'version': '1.0.0',
        'fileFormat': 'tfrecord',
        'splits': [
          {
            'name': split,
            'filepathTemplate': '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}',
            'shardLengths': [str(len(part)) for part in parts],
          }
          for split, parts in splits.items()
        ],
        **info,
      }
    )
  )
  (root / 'features.json').write_text(
    json.dumps(
      {
        'pythonClassName': f'{_FEATURES}.features_dict.FeaturesDict',
        'featuresDict': {'features': fields},
      }
    )
  )
  (root / 'label.labels.txt').write_text(names)
  return root


def _shards():
  """Videos 0, 1 and 2, 3 for training, 4 for testing; of 3 to 7 pictures."""
  made = [
    records.example(
      video=records.pictures(i, 3 + i), label=[i % 3], other=[0.5]
    )
    for i in range(5)
  ]
  return [made[:2], made[2:4], made[4:]]


def _pixels(source):
  def plan(info):
    return [video.Clip(np.arange(info.num_frames), (info.height, info.width))]

  return decode.read_clips(source, plan)[0]


def test_videos_of_pictures_in_tfrecord_files(tmp_path):
  path = _prepared(tmp_path / 'tiny', _shards())
  source = datasets.open_source('tfds', str(path), fps=12)
  source[0]
  source = pickle.loads(pickle.dumps(source))
  assert isinstance(source, datasets.Source)
  assert (len(source), source.class_names) == (4, ('run', 'jump', 'sit'))
  for i in (3, 0, 1, 2):
    example = source[i]
    assert (example.label, example.id) == (i % 3, f'train-{i:08d}')
    assert isinstance(example.video, frames.EncodedFrames)
    assert example.video.fps == 12
    np.testing.assert_array_equal(
      _pixels(example.video), records.pixels(i, 3 + i)
    )


def test_slices_of_splits(tmp_path):
  path = str(_prepared(tmp_path / 'tiny', _shards()))

  def counts(split):
    source = datasets.TfdsSource(path, split)
    found = [source[i].video for i in range(len(source))]
    assert all(isinstance(v, frames.EncodedFrames) for v in found)
    return [len(v) for v in found if not isinstance(v, str)]

  assert counts('train[1:3]') == [4, 5]
  assert counts('test+train[75%:]') == [7, 6]
  assert counts('all') == [3, 4, 5, 6, 7]
  with pytest.raises(ValueError, match=r"split 'val'.*train \(4\), test \(1\)"):
    datasets.TfdsSource(path, 'val')


@pytest.mark.parametrize(
  ('arguments', 'fps'),
  [
    ((), 30.0),
    (('-r', '10'), 10.0),
    (('-qscale:v', '2', '-r', '30000/1001', '-t', '20'), 30000 / 1001),
    (('-vf', 'fps=12.5,scale=64x64'), 12.5),
    (('-r', 'pal'), 30.0),
  ],
)
def test_rate_at_which_pictures_were_extracted(tmp_path, arguments, fps):
  fields = {'video': _video(*arguments), 'label': _LABEL}
  path = _prepared(tmp_path / 'tiny', _shards(), fields)
  example = datasets.TfdsSource(str(path))[0]
  assert isinstance(example.video, frames.Frames)
  assert example.video.fps == fps


def test_sequence_of_images_without_labels_but_ids(tmp_path):
  image = {'pythonClassName': f'{_FEATURES}.image_feature.Image', 'image': {}}
  # A label that is no number of a class is no label.
  fields = {'video': _sequence(image), 'id': _TEXT, 'label': _TEXT}
  made = [
    records.example(video=records.pictures(i, 2), id=[b'v%d' % i], label=[b'x'])
    for i in range(2)
  ]
  source = datasets.TfdsSource(
    str(_prepared(tmp_path / 'tiny', [made[:1], made[1:]], fields))
  )
  assert source.class_names == ()
  assert (source[0].id, source[0].label) == ('v0', -1)


def test_as_the_first_versions_described_features(tmp_path):
  path = _prepared(tmp_path / 'tiny', _shards())
  content = {'shape': [None, 24, 32, 3], 'encoding_format': 'png'}
  content['ffmpeg_extra_args'] = ['-r', '8']
  fields = {
    'video': {'type': f'{_FEATURES}.video_feature.Video', 'content': content},
    'label': {
      'type': f'{_FEATURES}.class_label_feature.ClassLabel',
      'content': {'num_classes': 3},
    },
  }
  kind = f'{_FEATURES}.features_dict.FeaturesDict'
  (path / 'features.json').write_text(
    json.dumps({'type': kind, 'content': fields})
  )
  source = datasets.TfdsSource(str(path))
  assert source.class_names == ('run', 'jump', 'sit')
  assert isinstance(source[1].video, frames.Frames)
  assert (len(source[1].video), source[1].video.fps) == (4, 8.0)


def test_encoded_videos_in_tfrecord_files(tmp_path):
  fields = {'video': _TEXT, 'label': _LABEL}
  made = [records.example(video=[b'mp4 %d' % i], label=[i]) for i in range(2)]
  path = _prepared(tmp_path / 'tiny', [made[:1], made[1:]], fields)
  source = datasets.TfdsSource(str(path), 'all')
  assert [source[i].video for i in range(2)] == [b'mp4 0', b'mp4 1']
  assert [source[i].label for i in range(2)] == [0, 1]


def test_several_labels_and_heads(tmp_path):
  several = {'video': _TEXT, 'label': _sequence(_LABEL)}
  made = [
    records.example(video=[b'x'], label=label) for label in ([2, 0], [-1], [1])
  ]
  path = _prepared(tmp_path / 'a', [made, made[:1]], several)
  source = datasets.TfdsSource(str(path), unlabelled=('jump',))
  assert source.multi_label
  assert source.class_names == ('run', 'sit')
  assert [source[i].label for i in range(3)] == [(0, 1), (-1,), (-1,)]
  heads = {
    'pythonClassName': f'{_FEATURES}.features_dict.FeaturesDict',
    'featuresDict': {'features': {'verb': _LABEL, 'noun': _LABEL}},
  }
  made = [
    records.example(video=[b'x'], **{'label/verb': [2], 'label/noun': [-1]})
  ]
  path = _prepared(
    tmp_path / 'b', [made, made], {'video': _TEXT, 'label': heads}
  )
  source = datasets.TfdsSource(str(path), unlabelled=('0',))
  assert isinstance(source.class_names, Mapping)
  # TFDS does not keep the order of heads.
  assert list(source.class_names.items()) == [
    ('noun', ('1', '2')),
    ('verb', ('1', '2')),
  ]
  assert not source.multi_label
  assert source[0].label == (-1, 1)


def test_datasets_by_name_and_by_a_folder_above(tmp_path):
  _prepared(tmp_path / 'tiny' / 'small' / '1.0.0', _shards())
  for name in ('tiny', 'tiny/small', 'tiny/small:1.0.0', 'tiny/small/1.0.0'):
    assert len(datasets.TfdsSource(name, data_dir=str(tmp_path))) == 4
  assert len(datasets.TfdsSource(str(tmp_path / 'tiny'))) == 4
  _prepared(tmp_path / 'tiny' / 'large' / '1.0.0', _shards())
  with pytest.raises(ValueError, match=r'several .*large/1\.0\.0, .*small/1'):
    datasets.TfdsSource('tiny', data_dir=str(tmp_path))


def test_shards_that_are_damaged_or_gone(tmp_path):
  path = _prepared(tmp_path / 'tiny', _shards())
  source = datasets.TfdsSource(str(path))
  shard = path / 'tiny-train.tfrecord-00001-of-00002'
  shard.write_bytes(shard.read_bytes()[:-5])
  with pytest.raises(video.VideoError, match=r'00001-of-00002: truncated'):
    source[3]
  assert source[0].label == 0
  records.write(shard, _shards()[1][:1])
  with pytest.raises(video.VideoError, match='2 records are declared'):
    source[3]
  records.write(shard, [b'no example', b'at all'])
  source = datasets.TfdsSource(str(path))
  with pytest.raises(video.VideoError, match=r'train-00000003: corrupt'):
    source[3]
  shard.unlink()
  with pytest.raises(video.VideoError, match='missing'):
    datasets.TfdsSource(str(path))[3]


def test_formats_that_are_not_read(tmp_path):
  path = _prepared(tmp_path / 'tiny', _shards(), fileFormat='riegeli')
  with pytest.raises(ValueError, match='stored as riegeli; array_record and'):
    datasets.TfdsSource(str(path))


def test_the_cost_is_said_once(tmp_path, caplog):
  path = str(_prepared(tmp_path / 'tiny', _shards()))
  with caplog.at_level(logging.WARNING):
    for split in ('train', 'test'):
      datasets.open_source('tfds', path, split, fps=7)
  said = [r.getMessage() for r in caplog.records if 'stores each' in r.message]
  assert len(said) == 1
  assert path in said[0]
  assert '7 a second' in said[0]


def test_tensorflow_is_not_imported(tmp_path):
  path = _prepared(tmp_path / 'tiny', _shards())
  code = (
    'import sys; from vivit_mae.data import datasets; '
    f's = datasets.TfdsSource({str(path)!r}); s[0]; '
    "assert 'tensorflow' not in sys.modules"
  )
  subprocess.run([sys.executable, '-c', code], check=True)
