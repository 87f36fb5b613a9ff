import pytest

from tests.data.layouts import trees
from vivit_mae.data import layouts

_VOCABULARY = [
  ['Back', '15som', '05Twis', 'FREE'],
  ['Inward', 'Dive', 'NoTwis', 'PIKE'],
  ['Forward', '45som', 'NoTwis', 'TUCK'],
]


def _item(name, label):
  return {'vid_name': name, 'label': label, 'start_frame': 0, 'end_frame': 8}


def _lists(root, folder='.'):
  train = [_item('_8Vy3dlHg2w_00000', 2), _item('-mmq0PT-u8k_00001', 0)]
  trees.dump(root / folder, 'Diving48_vocab.json', _VOCABULARY)
  trees.dump(root / folder, 'Diving48_V2_train.json', train)
  test = [_item('2x00lRzlTVQ_00000', 1), _item('2x00lRzlTVQ_00000', 2)]
  trees.dump(root / folder, 'Diving48_V2_test.json', test)


@pytest.mark.parametrize(
  ('lists', 'folder'),
  [('.', 'rgb'), ('annotations', 'videos'), ('.', 'Diving48_rgb/rgb')],
)
def test_layouts(tmp_path, lists, folder):
  _lists(tmp_path, lists)
  trees.touch(
    tmp_path / folder, '_8Vy3dlHg2w_00000.mp4', '2x00lRzlTVQ_00000.mp4'
  )
  listed = layouts.read('diving48', tmp_path)
  assert listed.class_names == (
    *('Back+15som+05Twis+FREE', 'Inward+Dive+NoTwis+PIKE'),
    'Forward+45som+NoTwis+TUCK',
  )
  assert [(e.id, e.label) for e in listed.splits['train']] == [
    ('_8Vy3dlHg2w_00000', 2)
  ]
  assert [(e.id, e.label) for e in listed.splits['test']] == [
    ('2x00lRzlTVQ_00000', 1)
  ]
  assert dict(listed.missing).keys() == {'-mmq0PT-u8k_00001'}
  assert dict(listed.duplicates).keys() == {'2x00lRzlTVQ_00000'}


@pytest.mark.parametrize('label', [3, -1, '1.5', None])
def test_labels_that_are_none(tmp_path, label):
  _lists(tmp_path)
  trees.dump(tmp_path, 'Diving48_V2_test.json', [_item('a_0', label)])
  with pytest.raises(ValueError, match=r'test\.json, item 0: (the )?label is'):
    layouts.read('diving48', tmp_path)


def test_a_list_that_is_not_there(tmp_path):
  _lists(tmp_path)
  (tmp_path / 'Diving48_V2_test.json').unlink()
  with pytest.raises(ValueError, match=r'has no Diving48_V2_test\.json'):
    layouts.read('diving48', tmp_path)
