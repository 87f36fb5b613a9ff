import pytest

from tests.data.layouts import trees
from vivit_mae.data import layouts

_COLUMNS = (
  'uid,narration_id,participant_id,video_id,narration_timestamp,'
  'start_timestamp,stop_timestamp,start_frame,stop_frame'
)
_CLASSES = (
  'narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes'
)


def _line(name, video, start, stop, verb, noun):
  return (
    f'6374,{name},P01,{video},00:00:01.089,{start},{stop},8,202,open door,open,'
    f"""{verb},door,{noun},"['door', 'tap']","[1, 0]\""""
  )


def _lists(root, folder='.', nouns='EPIC_100_noun_classes.csv'):
  place = root / folder
  trees.write(
    place,
    'EPIC_100_train.csv',
    f'{_COLUMNS},{_CLASSES}',
    _line('P01_01_0', 'P01_01', '00:00:00.14', '00:00:03.37', 1, 2),
    _line('P01_01_1', 'P01_01', '00:00:03.00', '01:00:06.17', 0, 0),
    _line('P02_109_2', 'P02_109', '00:10:00.00', '00:10:01.50', 1, 1),
  )
  trees.write(
    place,
    'EPIC_100_validation.csv',
    f'{_COLUMNS},{_CLASSES}',
    _line('P01_11_0', 'P01_11', '00:00:00.00', '00:00:01.89', 0, 2),
  )
  trees.write(
    place,
    'EPIC_100_test_timestamps.csv',
    _COLUMNS,
    '1924,P01_101_0,P01,P01_101,00:00:02.851,00:00:02.86,00:00:03.87,143,193',
  )
  trees.write(
    place,
    'EPIC_100_verb_classes.csv',
    'id,key,instances,category',
    """0,take,"['fetch', 'take']",retrieve""",
    "1,knead,['knead'],manipulate",
  )
  trees.write(
    place,
    nouns,
    'id,key,instances,category',
    '''0,"tap","['tap']","appliances"''',
    '''1,"maker:coffee","['maker:coffee']","appliances"''',
    '''2,"bread","['bread']","baked goods and grains"''',
  )


@pytest.mark.parametrize(
  ('lists', 'pattern'),
  [
    ('.', 'EPIC-KITCHENS/{person}/videos/{video}.MP4'),
    ('annotations', '{person}/videos/{video}.MP4'),
    ('epic-kitchens-100-annotations', 'videos/{video}.mp4'),
    ('.', 'videos/{person}/{video}.mp4'),
  ],
)
def test_layouts(tmp_path, lists, pattern):
  _lists(tmp_path, lists)
  for video in ('P01_01', 'P01_11', 'P01_101'):
    name = pattern.format(person='P01', video=video)
    trees.touch(tmp_path, name)
  listed = layouts.read('epic_kitchens100', tmp_path)
  assert listed.class_names == {
    'verb': ('take', 'knead'),
    'noun': ('tap', 'maker:coffee', 'bread'),
  }
  film = pattern.format(person='P01', video='P01_01')
  train = listed.splits['train']
  assert [e.id for e in train] == ['P01_01_0', 'P01_01_1']
  assert [e.label for e in train] == [(1, 2), (0, 0)]
  assert [e.segment for e in train] == [(0.14, 3.37), (3.0, 3606.17)]
  assert {e.video for e in train} == {str(tmp_path / film)}
  (validation,) = listed.splits['validation']
  assert (validation.id, validation.label) == ('P01_11_0', (0, 2))
  (test,) = listed.splits['test']
  assert (test.id, test.label) == ('P01_101_0', (-1, -1))
  assert test.segment == (2.86, 3.87)
  assert dict(listed.missing).keys() == {'P02_109_2'}


def test_the_second_list_of_nouns_will_do(tmp_path):
  _lists(tmp_path, nouns='EPIC_100_noun_classes_v2.csv')
  trees.touch(tmp_path, 'videos/P01_01.MP4')
  listed = layouts.read('epic_kitchens100', tmp_path)
  assert listed.splits['train'][0].label == (1, 2)


def test_unlabelled_classes_of_one_head(tmp_path):
  _lists(tmp_path)
  trees.touch(tmp_path, 'videos/P01_01.MP4')
  listed = layouts.read('epic_kitchens100', tmp_path, ('tap', 'take'))
  assert listed.class_names == {
    'verb': ('knead',),
    'noun': ('maker:coffee', 'bread'),
  }
  assert [e.label for e in listed.splits['train']] == [(0, 1), (-1, -1)]
  none = layouts.read('epic_kitchens100', tmp_path, ('*',))
  assert none.class_names == ()
  assert [e.label for e in none.splits['train']] == [-1, -1]


def test_empty_segments_are_left_out_and_reported(tmp_path):
  _lists(tmp_path)
  trees.write(
    tmp_path,
    'EPIC_100_validation.csv',
    f'{_COLUMNS},{_CLASSES}',
    _line('P01_11_0', 'P01_11', '00:00:02.00', '00:00:02.00', 0, 2),
    _line('P01_11_1', 'P01_11', '00:00:02.00', '00:00:03.00', 0, 2),
  )
  trees.touch(tmp_path, 'videos/P01_11.MP4')
  listed = layouts.read('epic_kitchens100', tmp_path)
  assert [e.id for e in listed.splits['validation']] == ['P01_11_1']
  ((name, reason),) = listed.skipped
  assert name == 'P01_11_0'
  assert 'is empty' in reason


@pytest.mark.parametrize(
  ('name', 'lines', 'message'),
  [
    (
      'EPIC_100_train.csv',
      (f'{_COLUMNS},{_CLASSES}', _line('a', 'b', '0:0:1', '0:0:2', 2, 0)),
      r'line 2: verb_class is 2, and there are 2 verbs',
    ),
    (
      'EPIC_100_train.csv',
      (_COLUMNS, '1,a,P01,b,0:0:1,0:0:1,0:0:2,1,2'),
      r'train\.csv has no column verb_class, noun_class',
    ),
    (
      'EPIC_100_verb_classes.csv',
      ('id,key', '0,take', '2,put'),
      r'line 3: the ids must be 0, 1, 2',
    ),
    ('EPIC_100_train.csv', (), r'train\.csv is empty'),
  ],
)
def test_wrong_files(tmp_path, name, lines, message):
  _lists(tmp_path)
  trees.touch(tmp_path, 'videos/P01_01.MP4')
  trees.write(tmp_path, name, *lines)
  with pytest.raises(ValueError, match=message):
    layouts.read('epic_kitchens100', tmp_path)


def test_what_is_not_there(tmp_path):
  with pytest.raises(ValueError, match=r'has no EPIC_100_verb_classes\.csv'):
    layouts.read('epic_kitchens100', tmp_path)
  _lists(tmp_path)
  with pytest.raises(ValueError, match=r'none of the 5 videos of the lists'):
    layouts.read('epic_kitchens100', tmp_path)
  for name in ('train', 'validation', 'test_timestamps'):
    (tmp_path / f'EPIC_100_{name}.csv').unlink()
  with pytest.raises(ValueError, match=r'has none of EPIC_100_train\.csv'):
    layouts.read('epic_kitchens100', tmp_path)
