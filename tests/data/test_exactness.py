"""Every video once in an epoch, whoever loads it and wherever it goes on."""

import numpy as np
import pytest

from tests.data import streams
from tests.data.streams import Fake, assert_same, take, train
from vivit_mae.data import datasets, pipeline


def test_state_is_one_row_and_goes_on_with_other_workers(ten):
  """Over the borders of two epochs of ten videos."""
  straight = take(train(ten), 7)
  batches, state = [], {'row': 0}
  for workers, count in ((0, 1), (2, 4), (1, 2)):
    iterator = train(ten, num_workers=workers)
    iterator.set_state(state)
    batches += take(iterator, count)
    state = iterator.get_state()
    assert state == {'row': 4 * len(batches)}
    iterator.close()
  assert_same(batches, straight)
  # Nothing is left in the workers' memory.
  arrays = [array for batch in batches for array in batch.values()]
  assert all(type(array) is np.ndarray for array in arrays)


def test_state_may_be_set_at_any_time(ten):
  iterator = train(ten)
  straight = take(iterator, 6)
  for start in (5, 0, 2):
    iterator.set_state({'row': 4 * start})
    assert_same(take(iterator, 6 - start), straight[start:])


def test_state_goes_on_with_another_batch_size(ten):
  straight = take(train(ten, batch_size=2), 4)
  iterator = train(ten, batch_size=6)
  iterator.set_state({'row': 2})
  batch = next(iterator)
  for key in batch:
    joined = np.concatenate([other[key] for other in straight[1:]])
    np.testing.assert_array_equal(batch[key], joined)


@pytest.mark.parametrize('state', [{}, {'row': -1}, {'next_index': 3}])
def test_wrong_state(ten, state):
  with pytest.raises(ValueError, match='state of the data'):
    train(ten).set_state(state)


def _hosts(source, batch_size, count, state=None):
  """The streams of all of some hosts."""
  hosts = [
    train(source, batch_size, repeats=1, processes=(p, count))
    for p in range(count)
  ]
  if state is not None:
    for host in hosts:
      host.set_state(state)
  return hosts


def _together(hosts, batches):
  """What some hosts see, in the order of the stream."""
  return np.concatenate(
    [np.concatenate([next(h)['index'] for h in hosts]) for _ in range(batches)]
  )


@pytest.mark.parametrize('hosts', range(1, 9))
@pytest.mark.parametrize('videos', [1, 13])
def test_every_video_once_in_an_epoch(without_decoding, videos, hosts):
  """Neither hosts nor batches divide the videos."""
  source, batch_size = Fake(videos), 2 * hosts
  batches = -(-3 * videos // batch_size)
  stream = _together(_hosts(source, batch_size, hosts), batches)
  epochs = np.split(stream[: 3 * videos], 3)
  for epoch in epochs:
    assert sorted(epoch) == list(range(videos))
  if videos > 1:
    assert (epochs[0] != epochs[1]).any()
  alone = train(source, 1, repeats=1)
  whole = [next(alone)['index'][0] for _ in stream]
  np.testing.assert_array_equal(stream, whole)


def test_other_hosts_go_on_where_some_stood(without_decoding):
  source = Fake(31)
  straight = _together(_hosts(source, 12, 1), 12)
  stream, state = [], None
  for count in (1, 4, 3, 2, 6, 12):
    hosts = _hosts(source, 12, count, state)
    stream.append(_together(hosts, 2))
    (state,) = {tuple(host.get_state().items()) for host in hosts}
    state = dict(state)
  np.testing.assert_array_equal(np.concatenate(stream), straight)


def test_clips_do_not_depend_on_hosts(ten):
  whole = next(train(ten, 6))
  parts = [next(train(ten, 6, processes=(p, 3))) for p in range(3)]
  for key in whole:
    joined = np.concatenate([part[key] for part in parts])
    np.testing.assert_array_equal(joined, whole[key])


@pytest.mark.parametrize('videos', [3, 20])
@pytest.mark.parametrize('hosts', [1, 3, 5, 8])
def test_an_evaluation_sees_every_video_once(without_decoding, videos, hosts):
  parts = [
    streams.evaluate(Fake(videos), 2 * hosts, (p, hosts)) for p in range(hosts)
  ]
  # All hosts take the same number of steps.
  assert len({len(part) for part in parts}) == 1
  rows = [
    (batch['index'], batch['valid'])
    for group in zip(*parts, strict=True)
    for batch in group
  ]
  index, valid = (np.concatenate(column) for column in zip(*rows, strict=True))
  assert index[valid].tolist() == list(range(videos))
  assert (index[~valid] == -1).all()


def test_batch_must_split_evenly(ten):
  with pytest.raises(ValueError, match='batch_size is 4; it must be a mult'):
    train(ten, processes=(0, 3))


def test_the_first_batches_of_the_built_in_videos(tmp_path):
  """The stream of a seed stays what it is, from one version to the next.

  The order is pinned exactly: another would change every run that is resumed.
  Pixels are pinned by the mean of each clip, to a grey level, as builds of
  x264 may differ in a few bits.
  """
  source = datasets.open_source(
    'synthetic', num_videos=18, cache_dir=str(tmp_path)
  )
  iterator = pipeline.train_iterator(
    source, {}, num_frames=4, image_size=(32, 32), batch_size=4, seed=0
  )
  batches = take(iterator, 3)
  iterator.close()
  index = [batch['index'].tolist() for batch in batches]
  means = [batch['video'].mean((1, 2, 3, 4)) for batch in batches]
  assert index == [[1, 2, 13, 14], [9, 7, 10, 6], [0, 3, 8, 4]]
  pinned = [
    [102.0, 102.4, 99.8, 112.6],
    [83.0, 103.4, 94.3, 104.3],
    [104.5, 103.5, 85.1, 95.9],
  ]
  np.testing.assert_allclose(means, pinned, atol=1.0)
