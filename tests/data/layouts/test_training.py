"""Public datasets all the way to batches."""

import numpy as np
import pytest

from tests.data import tiny_videos
from tests.data.layouts import trees
from vivit_mae.data import datasets, encode, pipeline

_SHADES = (40, 120, 200)


def _batches(source, count, **data):
  iterator = pipeline.train_iterator(
    source,
    {'stride': 1, 'crop': 'center', **data},
    num_frames=3,
    image_size=(16, 16),
    batch_size=2,
    seed=0,
  )
  try:
    return [next(iterator) for _ in range(count)]
  finally:
    iterator.close()


@pytest.mark.parametrize('official_split', [1, 2])
def test_whole_videos(tmp_path, official_split):
  files = ['Run/v_Run_g01_c01.mp4', 'Jump/v_Jump_g01_c01.mp4']
  tiny_videos.folder(tmp_path / 'UCF-101', files)
  lists = 'ucfTrainTestlist'
  trees.write(tmp_path, f'{lists}/classInd.txt', '1 Run', '2 Jump', '3 Sit')
  trees.write(tmp_path, f'{lists}/trainlist01.txt', *files)
  trees.write(tmp_path, f'{lists}/trainlist02.txt', 'Sit/v_Sit_g01_c01.avi')
  for k in (1, 2):
    trees.write(tmp_path, f'{lists}/testlist0{k}.txt', files[-1])
  fields = {
    'source': 'ucf101',
    'path': str(tmp_path),
    'official_split': official_split,
  }
  test = datasets.source_from(fields, 'test')
  assert test.class_names == ('Run', 'Jump', 'Sit')
  assert [e.id for e in (test[i] for i in range(len(test)))] == [
    'v_Jump_g01_c01'
  ]
  if official_split == 2:
    with pytest.raises(ValueError, match=r"no videos in the split 'train'"):
      datasets.source_from(fields)
    return
  train = datasets.source_from(fields)
  (batch,) = _batches(train, 1)
  assert batch['valid'].all()
  assert sorted(zip(batch['index'], batch['label'], strict=True)) == [
    (0, 0),
    (1, 1),
  ]


def test_where_it_lies_must_be_said():
  with pytest.raises(ValueError, match=r'data\.path is empty: .* ssv2 is'):
    datasets.open_source('ssv2')


def test_segments_of_a_long_video(tmp_path):
  (tmp_path / 'videos').mkdir()
  shown = np.repeat(np.array(_SHADES, np.uint8), 10)
  frames = np.broadcast_to(shown[:, None, None, None], (30, 32, 32, 3))
  video = tmp_path / 'videos' / 'P01_01.MP4'
  encode.write_video(video, np.ascontiguousarray(frames), fps=10.0)
  trees.write(tmp_path, 'EPIC_100_verb_classes.csv', 'id,key', '0,a', '1,b')
  nouns = [f'{i},noun {i}' for i in range(3)]
  trees.write(tmp_path, 'EPIC_100_noun_classes.csv', 'id,key', *nouns)
  trees.write(
    tmp_path,
    'EPIC_100_train.csv',
    'narration_id,video_id,start_timestamp,stop_timestamp,verb_class,noun_class',
    *(
      f'P01_01_{i},P01_01,00:00:0{i}.00,00:00:0{i + 1}.00,{i % 2},{i}'
      for i in range(3)
    ),
  )
  source = datasets.open_source('epic_kitchens100', str(tmp_path))
  assert len(source) == 3
  seen = set()
  for batch in _batches(source, 6, repeats=2, repeat='windows'):
    assert batch['valid'].all()
    for row, index in enumerate(batch['index']):
      seen.add(int(index))
      assert batch['label']['verb'][row] == index % 2
      assert batch['label']['noun'][row] == index
      pixels = batch['video'][row].astype(int)
      assert np.abs(pixels - _SHADES[index]).max() < 6
  assert seen == {0, 1, 2}
