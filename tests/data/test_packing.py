import pickle

import pytest

from tests.data import tiny_videos
from vivit_mae.data import datasets, packing
from vivit_mae.data.listing import Box, Example

_BOX = Box(0.0, 0.1, 0.5, 1.0, 3, (0, 2))
_EXAMPLES = {
  'one class': [
    Example('/a/b/1.mp4', 3, '1'),
    Example('/a/b/ü ☃/2.mp4', -1, 'ü ☃/2'),
    Example('/a/b/odd\udce9.mp4', 0, 'odd\udce9'),
    Example('/a/', 0, ''),
  ],
  'several classes': [
    Example('a.mp4', (0, 5), 'a'),
    Example('a.mp4', (), 'b'),
    Example('c.mp4', (-1,), 'c'),
  ],
  'segments and boxes': [
    Example('a.mp4', (1, 2), 'a#t=0,1', (0.0, 1.25), (_BOX, _BOX)),
    Example('a.mp4', (1, -1), 'a', None, ()),
    Example('b.mp4', (1, 0), 'b', (901, 903)),
  ],
  'one': [Example('a.mp4', 0, 'a')],
  'none': [],
}


@pytest.mark.parametrize('name', _EXAMPLES)
def test_what_is_packed_comes_out_again(name):
  examples = _EXAMPLES[name]
  packed = packing.pack(examples)
  assert isinstance(packed, packing.Packed)
  again = pickle.loads(pickle.dumps(packed))
  assert list(again) == examples
  assert [again[i] for i in range(len(again))] == examples
  assert again[1:] == examples[1:]
  assert packing.pack(packed) is packed


def test_rows_from_the_end_and_beyond():
  packed = packing.pack(_EXAMPLES['one class'])
  assert packed[-1] == _EXAMPLES['one class'][-1]
  for index in (4, -5):
    with pytest.raises(IndexError):
      packed[index]


def test_videos_in_memory_stay_as_they_are():
  examples = [Example('a.mp4', 0, 'a'), Example(b'bytes', 0, 'b')]
  assert packing.pack(examples) is examples
  with pytest.raises(ValueError, match='Only examples whose videos are paths'):
    packing.Packed(examples)


def test_sources_are_sent_packed(tmp_path):
  tiny_videos.folder(tmp_path, ['run/1.mp4', 'walk/2.mp4'])
  source = datasets.open_source('folder', str(tmp_path))
  assert isinstance(source, datasets.FileSource)
  sent = pickle.loads(pickle.dumps(source))
  assert isinstance(sent.examples, packing.Packed)
  assert list(sent.examples) == list(source.examples)
  assert (sent.name, sent.class_names) == (source.name, source.class_names)


def test_many_take_little():
  examples = [
    Example(
      f'/data/kinetics/train/class {i % 700}/{i:029d}.mp4', i, f'{i:025d}'
    )
    for i in range(2000)
  ]
  assert len(pickle.dumps(packing.pack(examples))) < 120 * len(examples)
