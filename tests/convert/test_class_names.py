import numpy as np
import pytest

from vivit_mae.convert import class_names

# Places that a source tells by number: the first and the last of each, and
# where lists of one data set differ.
_PLACES = {
  'ava': {0: 'bend/bow (at the waist)', 11: 'stand', 79: 'watch (a person)'},
  'diving48': {
    0: 'Back+15som+05Twis+FREE',
    30: 'Forward+Dive+NoTwis+STR',
    47: 'Reverse+Dive+NoTwis+TUCK',
  },
  'epic_kitchens_100_nouns': {
    0: 'tap',
    114: 'light',
    250: 'machine:sous:vide',
    299: 'extract:vanilla',
  },
  'epic_kitchens_100_verbs': {0: 'take', 46: 'add', 96: 'unfreeze'},
  'hmdb51': {0: 'brush_hair', 33: 'shake_hands', 50: 'wave'},
  'kinetics_400': {
    0: 'abseiling',
    96: 'doing laundry',
    99: 'dribbling basketball',
    116: 'eating spaghetti',
    161: 'hurling (sport)',
    196: "massaging person's head",
    209: 'passing American football (not in game)',
    320: 'sniffing',
    325: 'somersaulting',
    399: 'zumba',
  },
  'kinetics_600': {0: 'abseiling', 58: 'bull fighting', 599: 'zumba'},
  'kinetics_700': {0: 'abseiling', 13: 'arresting', 699: 'zumba'},
  'something_something_v2': {
    0: 'Approaching something with your camera',
    140: 'Spinning something that quickly stops spinning',
    173: 'Wiping something off of something',
  },
  'ucf101': {
    0: 'ApplyEyeMakeup',
    34: 'Hammering',
    35: 'HammerThrow',
    46: 'JumpingJack',
    47: 'JumpRope',
    100: 'YoYo',
  },
}
_COUNTS = {
  'ava': 80,
  'diving48': 48,
  'epic_kitchens_100_nouns': 300,
  'epic_kitchens_100_verbs': 97,
  'hmdb51': 51,
  'kinetics_400': 400,
  'kinetics_600': 600,
  'kinetics_700': 700,
  'something_something_v2': 174,
  'ucf101': 101,
}
# Places in VideoMAE V2's label_map_k710.txt that others quote; Kinetics-710
# has other words for some, none of which is here.
_IN_710 = (
  *('riding a bike', 'marching', 'dodgeball', 'playing cymbals'),
  *('checking tires', 'roller skating'),
)
_LINES_OF_710 = {
  11: 'bobsledding',
  22: 'pole vault',
  28: 'skateboarding',
  29: 'dunking basketball',
  37: 'stretching leg',
  46: 'ski jumping',
  54: 'kicking field goal',
  123: 'folding clothes',
  129: 'tai chi',
  132: 'slapping',
  155: 'throwing discus',
  219: 'ironing',
  222: 'shot put',
  248: 'knitting',
  249: 'reading book',
  262: 'stretching arm',
  267: 'hammer throw',
  290: 'folding napkins',
  295: 'javelin throw',
  299: 'long jump',
  300: 'parkour',
  311: 'playing chess',
  319: 'arranging flowers',
  331: 'watering plants',
  371: 'yoga',
}


def test_every_data_set_is_tested():
  assert set(class_names.DATASETS) == set(_COUNTS) == set(_PLACES)


@pytest.mark.parametrize('dataset', class_names.DATASETS)
def test_names_are_complete_and_distinct(dataset):
  names = class_names.class_names(dataset)
  assert len(names) == len(set(names)) == _COUNTS[dataset]
  assert all(name and name == name.strip() for name in names)


@pytest.mark.parametrize('dataset', class_names.DATASETS)
def test_known_places(dataset):
  names = class_names.class_names(dataset)
  places = _PLACES[dataset]
  assert {place: names[place] for place in places} == places


@pytest.mark.parametrize(
  'dataset',
  [
    *('diving48', 'hmdb51', 'kinetics_400', 'kinetics_600', 'kinetics_700'),
    'something_something_v2',
  ],
)
def test_alphabetical_order(dataset):
  names = class_names.class_names(dataset)
  assert list(names) == sorted(names)


def test_ucf101_ignores_case():
  names = class_names.class_names('ucf101')
  assert list(names) == sorted(names, key=str.lower) != sorted(names)


def test_kinetics_grew_by_classes():
  """368 classes of the 400 stayed in 600 (Carreira et al. 2018)."""
  four, six, seven = (
    set(class_names.class_names(f'kinetics_{count}'))
    for count in (400, 600, 700)
  )
  assert six - seven == {
    'bull fighting',
    'chopping vegetables',
    'passing american football (not in game)',
    'picking fruit',
  }
  assert len(four & six) == 368
  assert {'balloon blowing', 'drinking', 'sniffing', 'tying tie'} < four - six


def test_an_unknown_data_set_is_told_the_known_ones():
  with pytest.raises(ValueError, match=r"'kinetics_710'; they are for ava, .*"):
    class_names.class_names('kinetics_710')


def test_rows_of_710_are_its_first_400():
  rows = class_names.rows_of_710('kinetics_400')
  assert rows.dtype == np.int32
  np.testing.assert_array_equal(np.sort(rows), np.arange(400))


def test_rows_of_710_agree_with_names():
  names = class_names.class_names('kinetics_400')
  name_of_row = {
    int(row): name
    for name, row in zip(
      names, class_names.rows_of_710('kinetics_400'), strict=True
    )
  }
  assert tuple(name_of_row[row] for row in range(6)) == _IN_710
  lines = {line: name_of_row[line - 1] for line in _LINES_OF_710}
  assert lines == _LINES_OF_710


@pytest.mark.parametrize('dataset', ['kinetics_600', 'ucf101', 'kinetics400'])
def test_rows_that_are_not_known_are_refused(dataset):
  with pytest.raises(ValueError, match=rf"'{dataset}' is not known"):
    class_names.rows_of_710(dataset)
