"""Arrays travel in slots that are used again, and no memory is left behind."""

import os
import pickle
import shutil
import types

import numpy as np
import pytest

from vivit_mae.data import handover, workers

_LARGE = np.arange(2**17, dtype=np.int16).reshape(2, -1)


@pytest.fixture
def slots():
  """Two slots for each of two workers, as the workers' parent has them."""
  made = handover.Handover(2, 2)
  yield made
  made.close()


def _worker(slots: handover.Handover) -> handover.Handover:
  """The same, as a worker gets them."""
  return pickle.loads(pickle.dumps(slots))


def test_arrays_arrive_and_their_slots_are_used_again(slots):
  worker = _worker(slots)
  names = set()
  for k in range(5):
    lent = worker.lend(1, _LARGE + k)
    assert isinstance(lent, handover.Lent)
    names.add(lent.name)
    taken = slots.take(pickle.loads(pickle.dumps(lent)))
    np.testing.assert_array_equal(taken, _LARGE + k)
    assert taken.flags.owndata
  assert len(names) == 1


def test_an_array_stays_as_it_is_until_it_is_taken(slots):
  worker = _worker(slots)
  lent = [worker.lend(0, _LARGE + k) for k in range(2)]
  waiting = _LARGE + 2
  assert worker.lend(0, waiting) is waiting  # no slot is free
  for k in (1, 0):
    np.testing.assert_array_equal(slots.take(lent[k]), _LARGE + k)
  assert isinstance(worker.lend(0, waiting), handover.Lent)


def test_workers_have_slots_of_their_own(slots):
  one, other = _worker(slots), _worker(slots)
  first, second = one.lend(0, _LARGE), other.lend(1, -_LARGE)
  np.testing.assert_array_equal(slots.take(first), _LARGE)
  np.testing.assert_array_equal(slots.take(second), -_LARGE)


@pytest.mark.parametrize('what', [np.zeros(3), 'text', None, [_LARGE]])
def test_what_is_small_or_no_array_goes_its_usual_way(slots, what):
  assert slots.lend(0, what) is what


def test_without_room_it_says_how_to_get_some(slots, monkeypatch):
  full = types.SimpleNamespace(free=_LARGE.nbytes)
  monkeypatch.setattr(shutil, 'disk_usage', lambda folder: full)
  monkeypatch.setattr(os.path, 'isdir', lambda folder: True)
  with pytest.raises(workers.WorkersError, match='--shm-size'):
    slots.lend(0, _LARGE)


def test_a_larger_array_than_before_goes_its_usual_way(slots):
  worker = _worker(slots)
  for _ in range(2):
    worker.lend(0, _LARGE)
  larger = np.concatenate([_LARGE, _LARGE])
  assert worker.lend(0, larger) is larger


def test_closing_frees_what_a_worker_has_left():
  slots = handover.Handover(2, 2)
  worker = _worker(slots)
  lent = worker.lend(1, _LARGE)
  slots.close()
  with pytest.raises(FileNotFoundError):
    handover.Handover(2, 2).take(lent)
