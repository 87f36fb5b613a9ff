import pickle

from vivit_mae.data import datasets
from vivit_mae.evaluation import subsets


def make_source(count):
  examples = [datasets.Example(b'', i % 2, f'{i}') for i in range(count)]
  return datasets.FileSource('mine', examples, ('a', 'b'))


def test_videos_are_taken_evenly_over_the_source():
  for even in (
    subsets.take(make_source(9), 3),
    pickle.loads(pickle.dumps(subsets.Evenly(make_source(9), 3))),
  ):
    assert [even[i].id for i in range(len(even))] == ['0', '4', '8']
    assert even.class_names == ('a', 'b')
    assert even.name == 'mine'
    assert not even.multi_label


def test_more_than_there_are_is_all():
  source = make_source(4)
  for count in (None, 4, 9):
    assert subsets.take(source, count) is source
