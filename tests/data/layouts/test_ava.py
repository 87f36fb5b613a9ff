import pytest

from tests.data.layouts import trees
from vivit_mae.data import layouts
from vivit_mae.data.listing import Box

_FILM, _OTHER, _TEST = '-5KQ66BBWC4', '053oq2xB3oU', '2bxKkUgcqpk'
_ALL = {1: 'bend/bow (at the waist)', 11: 'sit', 12: 'stand', 80: 'watch'}


def _actions(root, name, ids, number='label_id'):
  trees.write(
    root,
    name,
    *(
      f'label {{\n  name: "{_ALL[i]}"\n  {number}: {i}\n'
      '  label_type: PERSON_MOVEMENT\n}'
      for i in ids
    ),
  )


def _lists(root, folder='.'):
  place = root / folder
  _actions(place, 'ava_action_list_v2.2.pbtxt', _ALL)
  trees.write(
    place,
    'ava_train_v2.2.csv',
    f'{_FILM},0902,0.077,0.151,0.283,0.811,80,1',
    f'{_FILM},0902,0.077,0.151,0.283,0.811,12,1',
    f'{_FILM},0902,0.5,0.1,0.9,1.0,11,0',
    f'{_FILM},0903,0.5,0.1,0.9,1.0,11,0',
    f'{_FILM},0904,0.5,0.1,0.9,1.0,11,0',
    f'{_FILM},0905,,,,,,',
  )
  trees.write(place, 'ava_train_excluded_timestamps_v2.2.csv', f'{_FILM},0903')
  trees.write(place, 'ava_val_v2.2.csv', f'{_OTHER},1798,0.0,0.0,1.000,1.0,1,7')
  trees.write(place, 'ava_test_v2.2.txt', f'{_TEST}.mkv')
  trees.write(
    place,
    'ava_test_excluded_timestamps_v2.2.csv',
    *(f'{_TEST},{second:04d}' for second in range(904, 1799)),
  )


@pytest.mark.parametrize(
  ('lists', 'films'),
  [
    ('.', ('trainval/{0}.mp4', 'trainval/{1}.mkv', 'test/{2}.mkv')),
    ('annotations', ('videos/{0}.mp4', 'videos/{1}.webm', 'videos/{2}.mkv')),
    ('ava_v2.2', ('{0}.mp4', '{1}.mkv', '{2}.mkv')),
  ],
)
def test_key_frames(tmp_path, lists, films):
  _lists(tmp_path, lists)
  films = [film.format(_FILM, _OTHER, _TEST) for film in films]
  trees.touch(tmp_path, *films)
  listed = layouts.read('ava', tmp_path)
  assert listed.multi_label
  assert listed.class_names == tuple(_ALL.values())
  first, second, nobody = listed.splits['train']
  assert first.id == f'{_FILM},0902'
  assert first.video == str(tmp_path / films[0])
  assert first.segment == (901, 903)
  assert first.label == (1, 2, 3)
  assert first.boxes == (
    Box(0.077, 0.151, 0.283, 0.811, 1, (2, 3)),
    Box(0.5, 0.1, 0.9, 1.0, 0, (1,)),
  )
  assert (second.id, second.label) == (f'{_FILM},0904', (1,))
  assert (nobody.label, nobody.boxes) == ((), ())
  (validation,) = listed.splits['validation']
  assert validation.boxes == (Box(0.0, 0.0, 1.0, 1.0, 7, (0,)),)
  test = listed.splits['test']
  assert [e.id for e in test] == [f'{_TEST},0902', f'{_TEST},0903']
  assert {(e.label, e.boxes) for e in test} == {((-1,), None)}
  assert listed.skipped == ((f'{_FILM},0903', 'an excluded timestamp'),)
  assert listed.missing == ()


def test_films_cut_at_the_fifteenth_minute(tmp_path):
  _lists(tmp_path)
  trees.touch(tmp_path, f'videos_15min/{_FILM}.mp4', f'videos/{_OTHER}.mp4')
  listed = layouts.read('ava', tmp_path)
  assert listed.splits['train'][0].segment == (1, 3)
  assert listed.splits['validation'][0].segment == (1797, 1799)
  assert dict(listed.missing).keys() == {f'{_TEST},0902', f'{_TEST},0903'}


def test_actions_of_the_benchmark(tmp_path):
  _lists(tmp_path)
  (tmp_path / 'ava_action_list_v2.2.pbtxt').unlink()
  _actions(
    tmp_path,
    'ava_action_list_v2.2_for_activitynet_2019.pbtxt',
    (12, 11),
    'id',
  )
  trees.touch(tmp_path, f'videos/{_FILM}.mp4', f'videos/{_OTHER}.mp4')
  listed = layouts.read('ava', tmp_path)
  assert listed.class_names == ('sit', 'stand')
  first = listed.splits['train'][0]
  assert first.label == (0, 1)
  assert first.boxes is not None
  assert [box.classes for box in first.boxes] == [(1,), (0,)]
  assert listed.splits['validation'][0].label == ()


def test_no_labels(tmp_path):
  _lists(tmp_path)
  trees.touch(tmp_path, f'videos/{_FILM}.mp4')
  listed = layouts.read('ava', tmp_path, ('*',))
  assert (listed.class_names, listed.multi_label) == ((), False)
  assert {(e.label, e.boxes) for e in listed.splits['train']} == {(-1, None)}
  with pytest.raises(ValueError, match=r"data\.unlabelled is \['sit'\]"):
    layouts.read('ava', tmp_path, ('sit',))


@pytest.mark.parametrize(
  ('line', 'message'),
  [
    (f'{_FILM},0902,0.1,0.1,0.5,0.5,81,0', 'the action is 81; AVA has 1 to 80'),
    (f'{_FILM},0902,0.1,0.1,0.5,0.5,,0', "the action is '', which is no whole"),
    (f'{_FILM},0902,100,20,400,500,12,0', '100,20,400,500 is no box'),
    (f'{_FILM},0902,0.5,0.1,0.1,0.5,12,0', r'is no box; x1, y1, x2, y2'),
    (f'{_FILM},0902,a,0.1,0.1,0.5,12,0', r'a,0.1,0.1,0.5 is no box'),
    (f'{_FILM},0002,0.1,0.1,0.5,0.5,12,0', 'timestamp is 0002; AVA has second'),
    (f'{_FILM},0902,0.1,0.1,0.5,0.5,12', 'has no column video_id'),
  ],
)
def test_wrong_lines(tmp_path, line, message):
  _lists(tmp_path)
  trees.touch(tmp_path, f'videos/{_FILM}.mp4')
  trees.write(tmp_path, 'ava_train_v2.2.csv', line)
  with pytest.raises(ValueError, match=message):
    layouts.read('ava', tmp_path)


def test_what_is_not_there(tmp_path):
  with pytest.raises(ValueError, match=r'has no ava_action_list_v2\.2\.pbtxt'):
    layouts.read('ava', tmp_path)
  trees.write(tmp_path, 'ava_action_list_v2.2.pbtxt', 'nothing')
  with pytest.raises(ValueError, match=r'pbtxt names no actions'):
    layouts.read('ava', tmp_path)
  trees.write(tmp_path, 'ava_action_list_v2.2.pbtxt', 'label { name: "sit" }')
  with pytest.raises(ValueError, match=r'one number of its own; .*name: "sit"'):
    layouts.read('ava', tmp_path)
  _actions(tmp_path, 'ava_action_list_v2.2.pbtxt', _ALL)
  with pytest.raises(ValueError, match=r'has none of ava_train_v2\.2\.csv'):
    layouts.read('ava', tmp_path)
