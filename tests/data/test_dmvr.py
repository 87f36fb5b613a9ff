"""Scenic's TFRecords: pictures, labels, names and splits."""

import pickle
from typing import Any

import numpy as np
import pytest

from tests.data import records
from vivit_mae.data import datasets, dmvr, frames, record_files


def _record(number, label, text=None, count=3, **context):
  if label is not None:
    context['clip__label__index'] = [label] if isinstance(label, int) else label
  if text is not None:
    context['clip__label__text'] = [
      t.encode() for t in ([text] if isinstance(text, str) else text)
    ]
  return records.sequence_example(records.pictures(number, count), **context)


def _hmdb(root):
  """Two classes; the training set lies in two files."""
  for k, rows in enumerate([[(0, 0, 'run'), (1, 1, 'jump')], [(2, 0, 'run')]]):
    records.write(
      root / f'train-{k:05d}-of-00002',
      [
        _record(n, label, text, count=3 + n, video__filename=[b'v%d.avi' % n])
        for n, label, text in rows
      ],
    )
  records.write(root / 'test.tfrecord', [_record(3, 2, 'sit')])
  return root


def _pixels(video):
  def plan(info):
    return [frames.Clip(np.arange(info.num_frames), (info.height, info.width))]

  return frames.read_clips(video, plan)[0]


def test_videos_labels_and_names(tmp_path):
  source = datasets.open_source('dmvr', str(_hmdb(tmp_path)), fps=10)
  source = pickle.loads(pickle.dumps(source))
  assert isinstance(source, datasets.Source)
  assert len(source) == 3
  # Class 2 is in the test set alone, and yet has its place.
  assert source.class_names == ('run', 'jump', 'sit')
  assert not source.multi_label
  found = [source[i] for i in range(3)]
  assert [e.label for e in found] == [0, 1, 0]
  assert [e.id for e in found] == [
    'train-00000-of-00002:0 v0.avi',
    'train-00000-of-00002:1 v1.avi',
    'train-00001-of-00002:0 v2.avi',
  ]
  for n, example in enumerate(found):
    assert isinstance(example.video, frames.Frames)
    assert example.video.fps == 10
    np.testing.assert_array_equal(
      _pixels(example.video), records.pixels(n, 3 + n)
    )
  with pytest.raises(IndexError):
    source[3]


def test_splits(tmp_path):
  path = str(_hmdb(tmp_path))
  assert len(dmvr.DmvrSource(path, 'test')) == 1
  assert len(dmvr.DmvrSource(path, 'all')) == 4
  for pattern, classes in (
    ('train*', ('run', 'jump')),
    ('train@2', ('run', 'jump')),
    ('train-00001-of-00002', ('run',)),
  ):
    source = dmvr.DmvrSource(f'{path}/{pattern}')
    assert source.class_names == classes
  with pytest.raises(ValueError, match=r"no split 'val'. .* test, train"):
    dmvr.DmvrSource(path, 'val')


def test_ids_tell_files_of_subfolders_apart(tmp_path):
  for split in ('train', 'val'):
    records.write(tmp_path / split / '0.tfrecord', [_record(0, 0)])
  source = dmvr.DmvrSource(str(tmp_path), 'all')
  ids = [source[i].id for i in range(2)]
  assert sorted(ids) == ['train/0.tfrecord:0', 'val/0.tfrecord:0']


def test_unlabelled_classes_and_records(tmp_path):
  rows = [_record(0, 0, 'rest'), _record(1, 1, 'run'), _record(2, None)]
  records.write(tmp_path / 'a.tfrecord', rows)
  source = dmvr.DmvrSource(str(tmp_path), unlabelled=('re*',))
  assert source.class_names == ('run',)
  assert [source[i].label for i in range(3)] == [-1, 0, -1]
  with pytest.raises(ValueError, match='names walk, which fits no class'):
    dmvr.DmvrSource(str(tmp_path), unlabelled=('walk',))


def test_several_labels(tmp_path):
  rows = [
    _record(0, [2, 0], ['sit', 'run']),
    _record(1, []),
    _record(2, None),
    _record(3, [1], ['jump']),
  ]
  records.write(tmp_path / 'a.tfrecord', rows)
  source = dmvr.DmvrSource(str(tmp_path))
  assert source.multi_label
  assert source.class_names == ('run', 'jump', 'sit')
  assert [source[i].label for i in range(4)] == [(0, 2), (), (-1,), (1,)]
  source = dmvr.DmvrSource(str(tmp_path), unlabelled=('run',))
  assert [source[i].label for i in range(4)] == [(-1,), (), (-1,), (0,)]


@pytest.mark.parametrize(
  'rows',
  [
    [(0, None), (2, None)],
    [(0, 'a'), (0, 'b'), (2, 'c')],
    [(0, 'a'), (2, 'a')],
  ],
)
def test_classes_without_clear_texts_are_numbers(tmp_path, rows):
  encoded = [_record(0, label, text) for label, text in rows]
  records.write(tmp_path / 'a.tfrecord', encoded)
  assert dmvr.DmvrSource(str(tmp_path)).class_names == ('0', '1', '2')


def test_without_labels(tmp_path):
  records.write(tmp_path / 'a.tfrecord', [_record(0, None)])
  source = dmvr.DmvrSource(str(tmp_path))
  assert source.class_names == ()
  assert source[0].label == -1
  assert source[0].id == 'a.tfrecord:0'


def test_forms_of_records(tmp_path):
  encoded = records.pictures(7, 4)
  context: dict[str, Any] = dict(
    clip__label__index=[1],
    clip__label__string=[b'jump'],
    clip__media_id=[b'm'],
    image__frame_rate=[12.5],
    filler=[b'x' * 5000],  # A context that one small read does not hold.
  )
  rows = [
    records.sequence_example(encoded, in_one_feature=True, **context),
    # Fields may stand in any order: the context last.
    records.sequence_example(encoded) + records.sequence_example([], **context),
  ]
  records.write(tmp_path / 'a.tfrecord', rows)
  source = dmvr.DmvrSource(str(tmp_path))
  assert source.class_names == ('0', 'jump')
  for i in range(2):
    example = source[i]
    assert (example.label, example.id) == (1, f'a.tfrecord:{i} m')
    assert isinstance(example.video, frames.EncodedFrames)
    assert example.video.fps == 12.5
    assert list(example.video.pictures) == encoded


def test_damaged_files(tmp_path):
  path = records.write(tmp_path / 'a.tfrecord', [_record(0, 0), b'no record'])
  with pytest.raises(ValueError, match='record 1 is no SequenceExample'):
    dmvr.DmvrSource(str(tmp_path))
  path = records.write(path, [_record(0, 0), _record(1, 0)])
  path.write_bytes(path.read_bytes()[:-9])
  with pytest.raises(ValueError, match=r'a\.tfrecord: truncated .* record 1'):
    dmvr.DmvrSource(str(tmp_path))
  records.write(path, [])
  with pytest.raises(ValueError, match='hold no records'):
    dmvr.DmvrSource(str(tmp_path))


def test_a_file_is_read_again_when_it_has_changed(tmp_path):
  path = records.write(tmp_path / 'a.tfrecord', [_record(0, 0)])
  assert len(dmvr.DmvrSource(str(path))) == 1
  records.write(path, [_record(0, 0), _record(1, 1)])
  assert len(dmvr.DmvrSource(str(path))) == 2


def _touch(root, *names):
  for name in names:
    records.write(root / name, [])


@pytest.mark.parametrize(
  ('names', 'split', 'expected'),
  [
    (['x-00000-of-00001'], 'train', ['x']),
    (['train_1-00000-of-00001', 'test_1-00000-of-00001'], 'test', ['test_1']),
    (['hmdb_val.tfrecord', 'hmdb_train.tfrecord'], 'val', ['hmdb_val']),
    (['a.tfrecord-00000-of-00001', 'valid.tfrecords'], 'a', ['a']),
    (['train/a-0-of-1', 'val/train.tfrecord'], 'val', ['val']),
    (['train/0.tfrecord', 'train/1.tfrecord'], 'train', ['train']),
    (['train/00000-of-00001.tfrecord'], 'train', ['train']),
    (['train_1-0-of-1', 'train_2-0-of-1'], 'train_2', ['train_2']),
    (['train-0-of-1', 'val-0-of-1', 'n.txt'], 'all', ['train', 'val']),
  ],
)
def test_sets_and_splits(tmp_path, names, split, expected):
  _touch(tmp_path, *names)
  _, sets = record_files.find(str(tmp_path))
  assert sorted(record_files.choose(sets, split, 'here')) == expected


def test_sets_that_may_overlap_are_not_mixed(tmp_path):
  _touch(tmp_path, 'train_1-0-of-1', 'train_2-0-of-1')
  _, sets = record_files.find(str(tmp_path))
  for split in ('train', 'all'):
    with pytest.raises(ValueError, match="split 'train': train_1, train_2"):
      record_files.choose(sets, split, 'here')
  _, sets = record_files.find(f'{tmp_path}/*_1-*')
  assert record_files.choose(sets, 'train', 'here') == ['train_1']


def test_missing_files_of_a_set(tmp_path):
  _touch(tmp_path, 'train-00001-of-00003')
  with pytest.raises(ValueError, match=r'3 files train-\*, 2 .* 0, 2'):
    record_files.find(str(tmp_path))
  with pytest.raises(ValueError, match=r'2 files train-\*, 2 are missing'):
    record_files.find(f'{tmp_path}/train@2')
  _touch(tmp_path, 'train-00000-of-00001')
  with pytest.raises(ValueError, match='different sizes: 1, 3'):
    record_files.find(str(tmp_path))


def test_no_files(tmp_path):
  with pytest.raises(ValueError, match='path is empty'):
    record_files.find('')
  for path in (tmp_path, tmp_path / 'x', tmp_path / 'x*'):
    with pytest.raises(ValueError, match='No TFRecord files at'):
      record_files.find(str(path))
  (tmp_path / 'dataset_info.json').touch()
  with pytest.raises(ValueError, match="source 'tfds'"):
    record_files.find(str(tmp_path))
