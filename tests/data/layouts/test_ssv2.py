import logging

import pytest

from tests.data.layouts import trees
from vivit_mae.data import datasets, layouts

_LABELS = {
  'Pushing something from right to left': '2',
  'Holding something': '0',
  "Pretending to put something on something's top": '1',
}
_NAMES = tuple(sorted(_LABELS, key=lambda name: int(_LABELS[name])))
_PREFIX = 'something-something-v2-'


def _item(number, template):
  return {
    'id': number,
    'label': 'holding a cup',
    'template': template,
    'placeholders': ['a cup'],
  }


def _lists(root, start=_PREFIX, validation=True):
  trees.dump(root, f'{start}labels.json', _LABELS)
  train = [
    _item('78687', 'Holding [something]'),
    _item('7', 'Pushing [something] from right to left'),
    _item('42', "Pretending to put [something] on [something's] top"),
  ]
  trees.dump(root, f'{start}train.json', train)
  if validation:
    items = [_item('9', 'Holding [something]')]
    trees.dump(root, f'{start}validation.json', items)
  trees.dump(root, f'{start}test.json', [{'id': '1420'}, {'id': '1421'}])


@pytest.mark.parametrize(
  ('start', 'folder'),
  [
    (_PREFIX, '20bn-something-something-v2'),
    (f'labels/{_PREFIX}', 'videos'),
    ('labels/', '20bn-something-something-v2'),
    (f'annotations/{_PREFIX}', 'videos/20bn-something-something-v2'),
    ('', '.'),
  ],
)
def test_layouts(tmp_path, start, folder):
  _lists(tmp_path, start)
  trees.touch(
    tmp_path / folder, '78687.webm', '7.mp4', '42.webm', '9.webm', '1420.webm'
  )
  listed = layouts.read('ssv2', tmp_path)
  assert listed.class_names == _NAMES
  assert [
    (e.id, e.label) for split in listed.splits.values() for e in split
  ] == [('78687', 0), ('7', 2), ('42', 1), ('1420', -1), ('9', 0)]
  assert list(listed.splits) == ['train', 'test', 'validation']
  assert dict(listed.missing).keys() == {'1421'}


def test_answers_label_the_test_split(tmp_path):
  _lists(tmp_path, 'labels/')
  trees.write(
    tmp_path,
    'labels/test-answers.csv',
    '1420;Pushing something from right to left',
    '1421;Holding something',
  )
  trees.touch(tmp_path / 'videos', '1420.webm', '1421.webm', '5.webm')
  listed = layouts.read('ssv2', tmp_path)
  assert trees.names(listed, 'test') == {'1420': _NAMES[2], '1421': _NAMES[0]}
  assert listed.skipped == (('videos/5.webm', 'in none of the lists'),)


def test_one_list_is_enough_and_a_double_is_told(tmp_path):
  _lists(tmp_path)
  items = [_item('9', 'Holding [something]')] * 2
  trees.dump(tmp_path, f'{_PREFIX}validation.json', items)
  for name in ('train', 'test'):
    (tmp_path / f'{_PREFIX}{name}.json').unlink()
  trees.touch(tmp_path / 'videos', '9.webm')
  listed = layouts.read('ssv2', tmp_path)
  assert trees.names(listed, 'validation') == {'9': 'Holding something'}
  assert [name for name, _ in listed.duplicates] == ['9']


@pytest.mark.parametrize(
  ('name', 'content', 'message'),
  [
    ('labels.json', {'Holding something': '1'}, 'number its 1 classes from 0'),
    ('labels.json', {'Holding something': 'x'}, "something' is 'x', which is"),
    ('labels.json', ['Holding something'], r'holds a list; a dict is expected'),
    ('train.json', [{'id': '7'}], r'item 0 has no field template'),
    ('train.json', [_item('7', 'Eating [something]')], r"7 has .*'Eating some"),
    ('train.json', {'id': '7'}, r'holds a dict; a list is expected'),
  ],
)
def test_wrong_files(tmp_path, name, content, message):
  _lists(tmp_path)
  trees.touch(tmp_path / 'videos', '7.webm', '9.webm')
  trees.dump(tmp_path, _PREFIX + name, content)
  with pytest.raises(ValueError, match=message):
    layouts.read('ssv2', tmp_path)


def test_what_is_not_there(tmp_path):
  with pytest.raises(ValueError, match=r'no something-something-v2-labels\.js'):
    layouts.read('ssv2', tmp_path)
  trees.dump(tmp_path, 'labels.json', _LABELS)
  with pytest.raises(ValueError, match=r'none of .*train\.json'):
    layouts.read('ssv2', tmp_path)
  _lists(tmp_path, 'labels/')
  with pytest.raises(ValueError, match=r'none of the 6 videos .* 20bn-'):
    layouts.read('ssv2', tmp_path)
  trees.write(tmp_path, 'labels/train.json', '[{')
  with pytest.raises(ValueError, match=r'train\.json is no JSON'):
    layouts.read('ssv2', tmp_path)


def test_flips_are_warned_of(tmp_path, caplog):
  _lists(tmp_path)
  trees.touch(tmp_path / 'videos', '78687.webm')
  data = {'source': 'ssv2', 'path': str(tmp_path), 'flip': False}
  with caplog.at_level(logging.WARNING):
    assert len(datasets.source_from(data)) == 1
    assert 'data.flip' not in caplog.text
    datasets.source_from(data | {'flip': True})
  assert 'data.flip is on, and classes of ssv2 tell left from' in caplog.text
