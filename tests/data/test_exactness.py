"""Every video once in an epoch, whoever loads it and wherever it goes on."""

import numpy as np
import pytest

from tests.data.streams import Fake, assert_same, take, train


def test_stream_does_not_depend_on_workers(ten):
  iterators = [train(ten, num_workers=n) for n in (0, 1, 2)]
  streams = [take(iterator, 5) for iterator in iterators]
  for iterator in iterators:
    iterator.close()
  assert_same(streams[0], streams[1])
  assert_same(streams[0], streams[2])
  # Nothing is left in the workers' memory.
  arrays = [array for batch in streams[2] for array in batch.values()]
  assert all(type(array) is np.ndarray for array in arrays)


def test_state_is_one_row_and_goes_on_with_other_workers(ten):
  straight = take(train(ten), 7)
  first = train(ten, num_workers=2)
  assert_same(take(first, 3), straight[:3])
  state = first.get_state()
  first.close()
  assert state == {'row': 12}
  for workers in (0, 1):
    second = train(ten, num_workers=workers)
    second.set_state(state)
    assert_same(take(second, 4), straight[3:])
    assert second.get_state() == {'row': 28}
    second.close()


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


@pytest.mark.parametrize('processes', [1, 2, 4])
@pytest.mark.parametrize('count', [1, 13, 40])
def test_every_video_once_in_an_epoch(without_decoding, count, processes):
  source = Fake(count)
  parts = [
    train(source, 4, repeats=1, processes=(p, processes))
    for p in range(processes)
  ]
  batches = [
    np.concatenate([next(part)['index'] for part in parts]) for _ in range(30)
  ]
  stream = np.concatenate(batches)
  epochs = [
    stream[i : i + count] for i in range(0, len(stream) - count + 1, count)
  ]
  for epoch in epochs:
    assert sorted(epoch) == list(range(count))
  if count == 40:
    assert any((epochs[0] != epoch).any() for epoch in epochs[1:])
  whole = take(train(source, 4, repeats=1), 30)
  np.testing.assert_array_equal(
    stream, np.concatenate([batch['index'] for batch in whole])
  )


def test_batch_must_split_evenly(ten):
  with pytest.raises(ValueError, match='batch_size is 4; it must be a mult'):
    train(ten, processes=(0, 3))
