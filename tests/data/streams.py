"""Streams of training batches for tests, and sources that go wrong.

Workers import this module, so it imports no pytest.
"""

import signal
import time
from typing import Any

import numpy as np

from vivit_mae.data import decode, labels, pipeline
from vivit_mae.data.datasets import Source
from vivit_mae.data.listing import Example

SHAPE: dict[str, Any] = dict(num_frames=3, image_size=(16, 24))
DATA: dict[str, Any] = dict(stride=2, repeats=2, flip=True)

_started = []


class Fake:
  """Videos without content; some can not be read."""

  def __init__(self, count, bad=()):
    self.name, self.multi_label = 'fake', False
    self.class_names: labels.ClassNames = ()
    self.count, self.bad = count, frozenset(bad)

  def __len__(self):
    return self.count

  def __getitem__(self, index):
    return Example(bytes([index in self.bad, index]), -1, f'id {index}')


class Wrapped:
  """The videos of another source, of which some do something."""

  def __init__(self, source: Source, *special: int):
    self.source, self.special = source, special
    self.name, self.multi_label = source.name, source.multi_label
    self.class_names = source.class_names

  def __len__(self):
    return len(self.source)

  def __getitem__(self, index):
    if index in self.special:
      self.act(index)
    return self.source[index]

  def act(self, index: int) -> None:
    raise NotImplementedError


class Broken(Wrapped):
  """Some can't be read."""

  def act(self, index):
    raise decode.VideoError('corrupt', f'video {index}')


class Deadly(Wrapped):
  """Some end the process that reads them, by a signal."""

  signal = signal.SIGSEGV

  def act(self, index):
    signal.raise_signal(self.signal)


class Stuck(Wrapped):
  """Some take for ever."""

  def act(self, index):
    time.sleep(60)


def train(source, batch_size=4, seed=7, processes=(0, 1), **data: Any):
  """A stream that ends with the test."""
  report = data.pop('report_dir', None)
  iterator = pipeline.train_iterator(
    source,
    DATA | data,
    batch_size=batch_size,
    seed=seed,
    process_index=processes[0],
    process_count=processes[1],
    report_dir=report,
    **SHAPE,
  )
  _started.append(iterator)
  return iterator


def evaluate(source, batch_size=4, processes=(0, 1), **data):
  return list(
    pipeline.eval_iterator(
      source,
      data,
      batch_size=batch_size,
      process_index=processes[0],
      process_count=processes[1],
      **SHAPE,
    )
  )


def close_all():
  while _started:
    _started.pop().close()


def take(iterator, count):
  return [next(iterator) for _ in range(count)]


def assert_same(batches, others):
  assert len(batches) == len(others)
  for batch, other in zip(batches, others, strict=True):
    assert batch.keys() == other.keys()
    for key in batch:
      np.testing.assert_array_equal(batch[key], other[key])
