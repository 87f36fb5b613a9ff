"""A part of a dataset, for quick looks."""

import numpy as np

from vivit_mae.data import datasets


class Evenly:
  """As many videos of a source, taken evenly over it. Picklable."""

  def __init__(self, source: datasets.Source, count: int):
    self.name = source.name
    self.class_names = source.class_names
    self.multi_label = source.multi_label
    self._source = source
    self._indices = np.linspace(0, len(source) - 1, count).astype(int)

  def __len__(self) -> int:
    return len(self._indices)

  def __getitem__(self, index: int, /) -> datasets.Example:
    return self._source[int(self._indices[index])]


def take(source: datasets.Source, count: int | None) -> datasets.Source:
  """At most so many videos, taken evenly; all if None."""
  if count is None or count >= len(source):
    return source
  return Evenly(source, count)
