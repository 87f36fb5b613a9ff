import threading

import pytest

from vivit_mae.training import prefetch


class Numbers:
  """Counts, up to an error, and says how far it was read."""

  def __init__(self, end=10**9, error: Exception | None = None):
    self.row, self.end, self.closed = 0, end, 0
    self.error = error
    self.read = threading.Condition()
    self.threads = set()

  def __next__(self):
    self.threads.add(threading.current_thread())
    with self.read:
      if self.row == self.end:
        raise self.error or StopIteration
      self.row += 1
      self.read.notify_all()
      return self.row

  def get_state(self):
    return {'row': self.row}

  def set_state(self, state):
    self.row = state['row']

  def close(self):
    self.closed += 1

  def wait_for(self, row):
    with self.read:
      return self.read.wait_for(lambda: self.row >= row, timeout=10)


def double(number):
  return 2 * number


@pytest.mark.parametrize('ahead', [0, 1, 3])
def test_batches_come_in_order_and_the_state_is_of_those_handed_out(ahead):
  numbers = Numbers()
  ready = prefetch.Prefetch(numbers, double, ahead)
  assert ready.get_state() == {'row': 0}
  for number in range(1, 9):
    assert next(ready) == 2 * number
    assert ready.get_state() == {'row': number}
  # So many lie ready, and no more.
  assert numbers.wait_for(8 + ahead)
  ready.close()
  assert numbers.closed == 1
  assert numbers.row == 8
  # Closed, it goes on where it was.
  assert next(ready) == 18
  ready.close()


@pytest.mark.parametrize('ahead', [1, 4])
def test_no_more_is_read_than_was_asked_for(ahead):
  numbers = Numbers()
  most = []

  def put(number):
    most.append(number)
    return number

  ready = prefetch.Prefetch(numbers, put, ahead)
  for _ in range(20):
    taken = next(ready)
    assert max(most) <= taken + ahead
  ready.close()


@pytest.mark.parametrize('ahead', [0, 2])
def test_a_state_is_gone_on_from(ahead):
  numbers = Numbers()
  ready = prefetch.Prefetch(numbers, double, ahead)
  next(ready)
  ready.set_state({'row': 41})
  assert ready.get_state() == {'row': 41}
  assert next(ready) == 84
  ready.close()


@pytest.mark.parametrize('ahead', [0, 2])
@pytest.mark.parametrize('error', [ValueError('too many'), None])
def test_errors_come_after_the_batches_before_them(ahead, error):
  numbers = Numbers(end=3, error=error)
  ready = prefetch.Prefetch(numbers, double, ahead)
  assert [next(ready) for _ in range(3)] == [2, 4, 6]
  for _ in range(2):
    with pytest.raises(type(error) if error else StopIteration):
      next(ready)
    assert ready.get_state() == {'row': 3}
  ready.close()


def test_what_can_not_be_put_is_an_error_too():
  def put(number):
    return 1 / (number - 2)

  ready = prefetch.Prefetch(Numbers(), put, 2)
  assert next(ready) == -1
  with pytest.raises(ZeroDivisionError):
    next(ready)
  ready.close()


def test_another_thread_reads_and_ends():
  numbers = Numbers()
  ready = prefetch.Prefetch(numbers, double, 1)
  next(ready)
  ready.close()
  (thread,) = numbers.threads
  assert thread is not threading.current_thread()
  assert not thread.is_alive()
