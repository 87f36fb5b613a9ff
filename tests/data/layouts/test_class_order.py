"""Labels are numbered as the heads of published models number them."""

import random

import pytest

from tests.data.layouts import trees
from vivit_mae.convert import class_names
from vivit_mae.data import layouts


def _shuffled(dataset):
  names = list(class_names.class_names(dataset))
  random.Random(0).shuffle(names)
  return names


@pytest.mark.parametrize('number', [400, 600, 700])
def test_kinetics(tmp_path, number):
  trees.write(
    tmp_path,
    'val.csv',
    'label,youtube_id,time_start,time_end,split',
    *(
      f'"{name}",aaaaaaaaaaa,{i},{i + 10},val'
      for i, name in enumerate(_shuffled(f'kinetics_{number}'))
    ),
  )
  trees.touch(tmp_path, 'val/aaaaaaaaaaa_000007_000017.mp4')
  listed = layouts.read(f'kinetics{number}', tmp_path)
  assert listed.class_names == class_names.class_names(f'kinetics_{number}')


def test_hmdb51(tmp_path):
  for name in _shuffled('hmdb51'):
    trees.write(tmp_path, f'{name}_test_split1.txt', f'a_{name}_0.avi 1 ')
  trees.touch(tmp_path, 'videos/wave/a_wave_0.avi')
  listed = layouts.read('hmdb51', tmp_path)
  assert listed.class_names == class_names.class_names('hmdb51')
  assert [e.label for e in listed.splits['train']] == [50]


def test_diving48_joins_words_alike(tmp_path):
  names = class_names.class_names('diving48')
  vocabulary = [name.split('+') for name in names]
  trees.dump(tmp_path, 'Diving48_vocab.json', vocabulary)
  for split in ('train', 'test'):
    item = {'vid_name': split, 'label': 47}
    trees.dump(tmp_path, f'Diving48_V2_{split}.json', [item])
  trees.touch(tmp_path, 'rgb/train.mp4')
  listed = layouts.read('diving48', tmp_path)
  assert listed.class_names == names
  assert trees.names(listed, 'train') == {'train': 'Reverse+Dive+NoTwis+TUCK'}
