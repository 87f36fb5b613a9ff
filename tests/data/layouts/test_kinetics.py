import logging

import pytest

from tests.data.layouts import trees
from vivit_mae.data import layouts

_HEADER = 'label,youtube_id,time_start,time_end,split'
_A, _B, _C, _D = '-0aBcDeFgH_', '__bbbbbbbbb', 'ccccccccccc', 'ddddddddddd'


def _lists(root, train='train.csv', val='val.csv', test='test.csv'):
  trees.write(
    root,
    train,
    f'{_HEADER},is_cc',
    f'"massaging person\'s head",{_A},5,15,train,0',
    f'zumba,{_B},000012,22,train,1',
    f'passing American football (in game),{_C},84.0,94.0,train,0',
  )
  trees.write(
    root,
    val,
    _HEADER,
    f'abseiling,{_D},0,10,val',
    f'zumba,{_D},100,110,val',
  )
  trees.write(root, test, _HEADER.removeprefix('label,'), f'{_C},7,17,test')


_NAMES = (
  'abseiling',
  "massaging person's head",
  'passing American football (in game)',
  'zumba',
)


def test_flat_folders_as_cvdf_packs_them(tmp_path):
  _lists(tmp_path)
  trees.touch(
    tmp_path,
    f'train/{_A}_000005_000015.mp4',
    f'train/{_B}_000012_000022.webm',
    f'train/{_C}_000084_000094.MKV',
    f'val/{_D}_000000_000010.mp4',
    f'val/{_D}_000100_000110.mp4',
    f'test/{_C}_000007_000017.mp4',
  )
  listed = layouts.read('kinetics400', tmp_path)
  assert listed.class_names == _NAMES
  assert list(listed.splits) == ['train', 'test', 'validation']
  assert trees.names(listed, 'train') == {
    f'{_A}_000005_000015': "massaging person's head",
    f'{_B}_000012_000022': 'zumba',
    f'{_C}_000084_000094': 'passing American football (in game)',
  }
  assert trees.names(listed, 'validation') == {
    f'{_D}_000000_000010': 'abseiling',
    f'{_D}_000100_000110': 'zumba',
  }
  assert trees.names(listed, 'test') == {f'{_C}_000007_000017': None}
  assert trees.paths(listed, 'train', tmp_path)[f'{_B}_000012_000022'] == (
    f'train/{_B}_000012_000022.webm'
  )
  assert listed.missing == listed.skipped == listed.duplicates == ()


@pytest.mark.parametrize(
  'lists',
  [
    ('annotations/train.csv', 'annotations/val.csv', 'annotations/test.csv'),
    ('train.csv', 'validate.csv', 'test.csv'),
    ('kinetics400/train.csv', 'kinetics400/validate.csv', 'kinetics400/t.csv'),
    ('annotations/kinetics_train.csv', 'annotations/kinetics_val.csv', 't.csv'),
  ],
)
@pytest.mark.parametrize(
  ('train', 'val'),
  [('train', 'val'), ('videos/train', 'videos/val'), ('videos_train', 'val')],
)
@pytest.mark.parametrize('spelling', [str, lambda s: s.replace(' ', '_')])
def test_class_folders(tmp_path, lists, train, val, spelling):
  _lists(tmp_path, *lists)
  trees.touch(
    tmp_path,
    f'{train}/{spelling(_NAMES[1])}/{_A}_000005_000015.mp4',
    f'{train}/{spelling(_NAMES[2])}/{_C}_000084_000094.mp4',
    f'{val}/{spelling("zumba")}/{_D}_000100_000110.mp4',
  )
  listed = layouts.read('kinetics400', tmp_path)
  assert listed.class_names == _NAMES
  assert [e.label for e in listed.splits['train']] == [1, 2]
  assert [e.label for e in listed.splits['validation']] == [3]
  assert f'{_B}_000012_000022' in dict(listed.missing)
  assert f'{_D}_000000_000010' in dict(listed.missing)


def test_lists_without_names_of_columns(tmp_path):
  trees.write(tmp_path, 'train.csv', f'zumba,{_A},5,15,train')
  trees.write(tmp_path, 'val.csv', f'yoga,{_B},5,15,val,0')
  trees.write(tmp_path, 'test.csv', f'{_C},5,15,test')
  for split, name in (('train', _A), ('val', _B), ('test', _C)):
    trees.touch(tmp_path, f'{split}/{name}_000005_000015.mp4')
  listed = layouts.read('kinetics700', tmp_path)
  assert listed.class_names == ('yoga', 'zumba')
  assert [e.label for e in listed.splits['train']] == [1]
  assert [e.label for e in listed.splits['validation']] == [0]
  assert [e.label for e in listed.splits['test']] == [-1]


def test_duplicates_are_reported(tmp_path):
  trees.write(
    tmp_path,
    'train.csv',
    _HEADER,
    f'yoga,{_A},5,15,train',
    f'yoga,{_A},5,15,train',
    f'zumba,{_A},5,15,train',
    f'zumba,{_A},15,25,train',
  )
  trees.write(tmp_path, 'val.csv', _HEADER, f'yoga,{_A},5,15,val')
  for name in ('train', 'val'):
    trees.touch(tmp_path, f'{name}/{_A}_000005_000015.mp4')
  trees.touch(tmp_path, f'train/{_A}_000015_000025.mp4')
  listed = layouts.read('kinetics700', tmp_path)
  # Once in each split; what the first line of a split says counts.
  assert trees.names(listed, 'train') == {
    f'{_A}_000005_000015': 'yoga',
    f'{_A}_000015_000025': 'zumba',
  }
  assert len(listed.splits['validation']) == 1
  assert [name for name, _ in listed.duplicates] == [f'{_A}_000005_000015'] * 3
  reasons = [reason for _, reason in listed.duplicates]
  assert reasons[0] == f'{tmp_path}/train.csv, line 3: named before, in train'
  assert "there as 'yoga'" in reasons[1]
  assert 'val.csv' in reasons[2]


def test_missing_and_unlisted_videos_are_reported(tmp_path, caplog):
  _lists(tmp_path)
  trees.touch(
    tmp_path,
    f'train/{_A}_000005_000015.mp4',
    f'train/zumba/{_A}_000005_000015.webm',
    'train/aaaaaaaaaaa_000000_000010.mp4',
    'train/list.txt',
    f'val/{_D}_000000_000010.mp4',
  )
  (tmp_path / f'train/{_B}_000012_000022.mp4').symlink_to(tmp_path / 'gone')
  with caplog.at_level(logging.INFO):
    for _ in range(2):
      listed = layouts.read('kinetics400', tmp_path)
  assert dict(listed.missing).keys() == {
    f'{_B}_000012_000022',
    f'{_C}_000084_000094',
    f'{_D}_000100_000110',
    f'{_C}_000007_000017',
  }
  assert dict(listed.skipped) == {
    f'train/zumba/{_A}_000005_000015.webm': (
      f'another file of train/{_A}_000005_000015.mp4'
    ),
    'train/aaaaaaaaaaa_000000_000010.mp4': 'in none of the lists',
  }
  logged = [record.message for record in caplog.records]
  assert [m for m in logged if 'train 1 of 3, validation 1 of 2, ' in m] == [
    f'data: kinetics400 at {tmp_path}: train 1 of 3, validation 1 of 2, test '
    '0 of 1 videos are there, 2 left out'
  ]
  assert (
    sum('more than half' in m and 'train (1 of 3)' in m for m in logged) == 1
  )


def test_of_two_files_that_in_the_folder_of_the_class_counts(tmp_path):
  trees.write(tmp_path, 'val.csv', _HEADER, f'zumba,{_A},5,15,val')
  trees.touch(
    tmp_path,
    f'val/air drumming/{_A}_000005_000015.mp4',
    f'val/zumba/{_A}_000005_000015.mp4',
  )
  listed = layouts.read('kinetics700', tmp_path)
  assert trees.paths(listed, 'validation', tmp_path) == {
    f'{_A}_000005_000015': f'val/zumba/{_A}_000005_000015.mp4'
  }


def test_a_folder_that_contradicts_the_list_is_said(tmp_path, caplog):
  trees.write(
    tmp_path,
    'val.csv',
    _HEADER,
    f'zumba,{_A},5,15,val',
    f'yoga,{_B},5,15,train',
  )
  trees.touch(
    tmp_path,
    f'val/yoga/{_A}_000005_000015.mp4',
    f'val/part_0/{_B}_000005_000015.mp4',
  )
  listed = layouts.read('kinetics400', tmp_path)
  assert trees.names(listed, 'validation') == {
    f'{_A}_000005_000015': 'zumba',
    f'{_B}_000005_000015': 'yoga',
  }
  assert '1 videos lie in the folder of another class' in caplog.text
  assert "1 of 2 lines say another split, such as 'train'" in caplog.text


def test_replacements_of_broken_videos_count(tmp_path):
  _lists(tmp_path)
  good = 'replacement/replacement_for_corrupted_k400'
  trees.touch(
    tmp_path,
    f'train/{_A}_000005_000015.mp4',
    f'train/{_B}_000012_000022.mp4',
    f'{good}/{_A}_000005_000015.mp4',
    f'{good}/{_C}_000084_000094.mp4',
  )
  listed = layouts.read('kinetics400', tmp_path)
  assert trees.paths(listed, 'train', tmp_path) == {
    f'{_A}_000005_000015': f'{good}/{_A}_000005_000015.mp4',
    f'{_B}_000012_000022': f'train/{_B}_000012_000022.mp4',
    f'{_C}_000084_000094': f'{good}/{_C}_000084_000094.mp4',
  }
  assert not listed.skipped


def test_unlabelled(tmp_path):
  _lists(tmp_path)
  trees.touch(
    tmp_path,
    f'train/{_A}_000005_000015.mp4',
    f'train/{_B}_000012_000022.mp4',
  )
  listed = layouts.read('kinetics400', tmp_path, ('massaging*', 'abseiling'))
  assert listed.class_names == (_NAMES[2], 'zumba')
  assert [e.label for e in listed.splits['train']] == [-1, 1]
  none = layouts.read('kinetics400', tmp_path, ('*',))
  assert none.class_names == ()
  assert [e.label for e in none.splits['train']] == [-1, -1]
  with pytest.raises(ValueError, match='names zoomba, which fits no class'):
    layouts.read('kinetics400', tmp_path, ('zoomba',))


def _many_classes(root):
  lines = [f'class {i:03d},{_A},{i},{i + 10},train' for i in range(401)]
  trees.write(root, 'train.csv', _HEADER, *lines)
  trees.touch(root, f'train/{_A}_000005_000015.mp4')


def _no_videos(root):
  _lists(root)
  trees.touch(root, 'clips/a.mp4', 'train/other.mp4')


def _two_lists(root):
  _lists(root)
  trees.write(root, 'validate.csv', _HEADER)


def _paths_and_labels(root):
  trees.write(root, 'train.csv', 'train/a.mp4 0', 'train/b.mp4 1')


def _bad_time(root):
  trees.write(root, 'train.csv', _HEADER, f'yoga,{_A},soon,later,train')


def _short_line(root):
  trees.write(root, 'train.csv', _HEADER, f'yoga,{_A},5,15,train', 'yoga')


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda root: None, r'has no list of kinetics400: train\.csv'),
    (_many_classes, r'name 401 classes; kinetics400 has 400'),
    (_no_videos, r'none of the 6 videos of the lists .* 1 other .* train'),
    (_two_lists, r'holds val\.csv and validate\.csv'),
    (_paths_and_labels, r'train\.csv has no column youtube_id, time_start'),
    (_bad_time, r"line 2: time_start is 'soon', which is no whole number"),
    (_short_line, r'line 3 has 1 fields and not 5'),
  ],
)
def test_what_is_no_kinetics(tmp_path, make, message):
  make(tmp_path)
  with pytest.raises(ValueError, match=message):
    layouts.read('kinetics400', tmp_path)


def test_no_folder_no_layout_no_split(tmp_path):
  with pytest.raises(ValueError, match='No such folder'):
    layouts.read('kinetics600', tmp_path / 'nowhere')
  with pytest.raises(ValueError, match="No such layout: 'kinetics'; known are"):
    layouts.read('kinetics', tmp_path)
  with pytest.raises(ValueError, match=r'official_split is 2; .* leave it 1'):
    layouts.read('kinetics400', tmp_path, (), 2)
