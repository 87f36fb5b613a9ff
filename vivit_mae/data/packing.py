"""Many examples in little memory: what is sent to data workers.

Every worker holds all examples of its source. As objects those of Kinetics-700
take 200 MB and seconds to unpickle, in each of them; packed, a quarter of that
and no time.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np

from vivit_mae.data.labels import Label
from vivit_mae.data.listing import Box, Example, Segment


class _Texts:
  """Texts one after the other, without what they all begin with."""

  def __init__(self, texts: Sequence[str]):
    self._start = _common_start(texts)
    rest = [_encode(text[len(self._start) :]) for text in texts]
    self._ends = np.cumsum([0, *map(len, rest)])
    self._bytes = b''.join(rest)

  def __getitem__(self, index: int) -> str:
    begin, end = self._ends[index : index + 2]
    return self._start + _decode(self._bytes[begin:end])


class _Labels:
  """Numbers, or tuples of numbers."""

  def __init__(self, labels: Sequence[Label]):
    self._single = np.array([isinstance(label, int) for label in labels])
    rows = [(x,) if isinstance(x, int) else x for x in labels]
    self._ends = np.cumsum([0, *map(len, rows)])
    self._numbers = np.array([x for row in rows for x in row], np.int32)

  def __getitem__(self, index: int) -> Label:
    begin, end = self._ends[index : index + 2]
    numbers = self._numbers[begin:end].tolist()
    return numbers[0] if self._single[index] else tuple(numbers)


class Packed(Sequence[Example]):
  """Examples that are files."""

  def __init__(self, examples: Iterable[Example]):
    """Packs them.

    Args:
      examples: Their videos are paths.
    """
    examples = list(examples)
    paths = [e.video for e in examples if isinstance(e.video, str)]
    if len(paths) != len(examples):
      raise ValueError('Only examples whose videos are paths can be packed.')
    self._count = len(examples)
    self._paths = _Texts(paths)
    self._ids = _Texts([e.id for e in examples])
    self._labels = _Labels([e.label for e in examples])
    self._segments = None
    if any(e.segment for e in examples):
      whole = (np.nan, np.nan)
      self._segments = np.array([e.segment or whole for e in examples])
    self._boxes: tuple[tuple[Box, ...] | None, ...] | None = None
    if any(e.boxes is not None for e in examples):
      self._boxes = tuple(e.boxes for e in examples)

  def __len__(self) -> int:
    return self._count

  @overload
  def __getitem__(self, index: int) -> Example: ...

  @overload
  def __getitem__(self, index: slice) -> list[Example]: ...

  def __getitem__(self, index: int | slice) -> Example | list[Example]:
    if isinstance(index, slice):
      return [self[i] for i in range(*index.indices(self._count))]
    index = range(self._count)[index]  # the rules of negative ones, and errors
    return Example(
      self._paths[index],
      self._labels[index],
      self._ids[index],
      self._segment(index),
      None if self._boxes is None else self._boxes[index],
    )

  def __iter__(self) -> Iterator[Example]:
    return map(self.__getitem__, range(self._count))

  def _segment(self, index: int) -> Segment | None:
    if self._segments is None or np.isnan(self._segments[index, 0]):
      return None
    start, end = self._segments[index].tolist()
    return start, end


def pack(examples: Sequence[Example]) -> Sequence[Example]:
  """Examples that are quick to pickle.

  Args:
    examples: Any.

  Returns:
    The same ones: packed, or as they are where a video is no path.
  """
  if isinstance(examples, Packed) or not all(
    isinstance(example.video, str) for example in examples
  ):
    return examples
  return Packed(examples)


def _common_start(texts: Sequence[str]) -> str:
  first, last = min(texts, default=''), max(texts, default='')
  pairs = zip(first, last, strict=False)
  same = itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)
  return ''.join(letter for letter, _ in same)


def _encode(text: str) -> bytes:
  return text.encode('utf-8', 'surrogateescape')


def _decode(text: bytes) -> str:
  return text.decode('utf-8', 'surrogateescape')
