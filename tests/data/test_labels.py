"""Several labels, and several heads, from a list to a batch."""

import numpy as np
import pytest

from tests.data import tiny_videos
from vivit_mae.data import datasets, labels, lists, pipeline
from vivit_mae.tools import dataset_prepare


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  root = tmp_path_factory.mktemp('labels')
  return tiny_videos.folder(root, [f'{name}.mp4' for name in 'abcd'])


def _listed(folder, text, *more, **options):
  (folder / 'l.csv').write_text(text)
  return lists.read_csv(folder / 'l.csv', *more, **options)


_SEVERAL = 'path,labels\na.mp4,run; jump\nb.mp4,\nc.mp4,run\nd.mp4,-1\n'
_HEADS = (
  'path,label.verb,order,label.noun\n'
  'a.mp4,take,1,cup\nb.mp4,put,2,cup\nc.mp4,take,3,\nd.mp4,wash,4,plate\n'
)


def test_csv_of_several_labels(folder):
  listed = _listed(folder, _SEVERAL)
  assert listed.multi_label
  assert listed.class_names == ('jump', 'run')
  train = listed.splits['train']
  assert [e.label for e in train] == [(0, 1), (), (1,), (-1,)]
  known = [labels.is_known(e.label) for e in train]
  assert known == [True, True, True, False]


def test_numbers_among_several_labels(folder):
  listed = _listed(folder, 'path,labels\na.mp4,3;01\nb.mp4,1\n')
  assert listed.class_names == ('0', '1', '2', '3')
  assert [e.label for e in listed.splits['train']] == [(1, 3), (1,)]


def test_one_unlabelled_class_suffices(folder):
  listed = _listed(folder, _SEVERAL, ('jump',))
  assert listed.class_names == ('run',)
  assert [e.label for e in listed.splits['train']] == [
    (-1,),
    (),
    (0,),
    (-1,),
  ]


def test_csv_of_heads(folder):
  listed = _listed(folder, _HEADS)
  assert not listed.multi_label
  assert listed.class_names == {
    'verb': ('put', 'take', 'wash'),
    'noun': ('cup', 'plate'),
  }
  train = listed.splits['train']
  assert [e.label for e in train] == [(1, 0), (0, 0), (1, -1), (2, 1)]
  assert [labels.is_known(e.label) for e in train] == [True, True, False, True]
  listed = _listed(folder, _HEADS, ('wash',))
  assert isinstance(listed.class_names, dict)
  assert listed.class_names['verb'] == ('put', 'take')
  assert listed.splits['train'][3].label == (-1, 1)


def test_a_single_label_comes_first(folder):
  listed = _listed(folder, 'path,labels,label\na.mp4,x;y,z\n')
  assert (listed.class_names, listed.multi_label) == (('z',), False)


def test_lists_must_agree(folder, tmp_path):
  (tmp_path / 'train.csv').write_text('path,labels\na.mp4,x;y\n')
  (tmp_path / 'val.csv').write_text('path,label\nb.mp4,x\n')
  with pytest.raises(ValueError, match=r'train\.csv has labels; .*has label$'):
    lists.read_csv(tmp_path, root=folder)


def _batches(folder, text, **options):
  (folder / 'l.csv').write_text(text)
  source = datasets.open_source('csv', str(folder / 'l.csv'))
  train = pipeline.train_iterator(
    source,
    {'stride': 1, 'repeats': 2, **options},
    num_frames=2,
    image_size=(8, 8),
    batch_size=4,
    seed=0,
  )
  batch = next(train)
  train.close()
  (views,) = pipeline.multiview_iterator(
    source,
    {'stride': 1, **options},
    num_frames=2,
    image_size=(8, 8),
    batch_size=10,
    num_crops=2,
  )
  return batch, views


@pytest.mark.parametrize('workers', [0, 1])
def test_batches_of_several_labels(folder, workers):
  hot = np.array([[1, 1], [0, 0], [0, 1], [-1, -1], [-1, -1]], np.float32)
  for batch in _batches(folder, _SEVERAL, num_workers=workers):
    assert batch['label'].dtype == np.float32
    np.testing.assert_array_equal(batch['label'], hot[batch['index']])


@pytest.mark.parametrize('workers', [0, 1])
def test_batches_of_heads(folder, workers):
  verbs, nouns = np.array([[1, 0, 1, 2, -1], [0, 0, -1, 1, -1]], np.int32)
  for batch in _batches(folder, _HEADS, num_workers=workers):
    assert list(batch['label']) == ['noun', 'verb']
    for name, numbers in (('verb', verbs), ('noun', nouns)):
      found = batch['label'][name]
      assert type(found) is np.ndarray
      assert found.dtype == np.int32
      np.testing.assert_array_equal(found, numbers[batch['index']])


@pytest.mark.parametrize('text', [_SEVERAL, _HEADS])
def test_prepared_datasets_keep_them(folder, tmp_path, text):
  (folder / 'l.csv').write_text(text)
  listed = datasets.open_source('csv', str(folder / 'l.csv'))
  out = str(tmp_path / 'out')
  dataset_prepare.prepare(str(folder / 'l.csv'), out, progress=False)
  prepared = datasets.open_source('tfds', out)
  assert prepared.class_names == listed.class_names
  assert prepared.multi_label == listed.multi_label

  def by_head(source, i):
    names, label = source.class_names, source[i].label
    if isinstance(names, tuple):
      return label
    return dict(zip(names, label, strict=True))

  assert [by_head(prepared, i) for i in range(len(prepared))] == [
    by_head(listed, i) for i in range(len(listed))
  ]


def test_labelled_leaves_out_what_no_head_knows(folder):
  for text, ids in (
    (_SEVERAL, ['a.mp4', 'b.mp4', 'c.mp4']),
    (_HEADS.replace('d.mp4,wash,4,plate', 'd.mp4,,4,'), ['a', 'b', 'c']),
    ('path,label\na.mp4,x\nb.mp4,-1\nc.mp4,\nd.mp4,y\n', ['a', 'd']),
  ):
    (folder / 'l.csv').write_text(text)
    source = datasets.open_source('csv', str(folder / 'l.csv'))
    kept = datasets.labelled(source)
    names = [kept[i].id for i in range(len(kept))]
    assert len(names) == len(ids)
    assert all(a.startswith(b[0]) for a, b in zip(names, ids, strict=True))
    assert kept.class_names == source.class_names
    assert datasets.labelled(kept) is kept
