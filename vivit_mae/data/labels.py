"""What a label can be: one class, several, or one for each of several heads.

A label is a number, or a tuple of numbers, that index class names; -1 = none.
With one tuple of names it is one of them or, in multi-label data, a tuple of
all that apply, which may be empty. With a mapping from heads to names it holds
one number for each head.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Label = int | tuple[int, ...]
ClassNames = tuple[str, ...] | Mapping[str, tuple[str, ...]]

# What workers send is flat: 'label/verb' for a head.
_HEAD = 'label/'


def numbering(
  class_names: ClassNames, multi_label: bool = False
) -> Callable[[Any], Label]:
  """How names become a label.

  Args:
    class_names: See the module.
    multi_label: Whether several may apply.

  Returns:
    A function of a name, or, for several labels or heads, of a tuple of names.
    '' is no label.
  """

  def table(names):
    return {name: i for i, name in enumerate(names)} | {'': -1}

  if isinstance(class_names, Mapping):
    tables = [table(names) for names in class_names.values()]
    return lambda names: tuple(
      one[name] for one, name in zip(tables, names, strict=True)
    )
  numbers = table(class_names)
  if multi_label:
    return lambda names: tuple(sorted({numbers[name] for name in names}))
  return numbers.__getitem__


def is_known(label: Label) -> bool:
  """Whether a video has a label; of several heads, one for each."""
  return -1 not in (label if isinstance(label, tuple) else (label,))


def is_partly_known(label: Label) -> bool:
  """Whether a video has a label; of several heads, one for any."""
  if isinstance(label, tuple):
    return not label or set(label) != {-1}
  return label != -1


def blank(
  rows: int, class_names: ClassNames, multi_label: bool = False
) -> dict[str, np.ndarray]:
  """Arrays for the labels of a batch, in which no row has one yet.

  Args:
    rows: Rows of the batch.
    class_names: See the module; empty = no labels, and no array.
    multi_label: Whether several may apply.

  Returns:
    'label': int32 [rows], or for multi-label data float32 [rows, classes];
    with heads, 'label/<head>' for each. All hold -1.
  """
  if not class_names:
    return {}
  if isinstance(class_names, Mapping):
    return {f'{_HEAD}{h}': np.full(rows, -1, np.int32) for h in class_names}
  if multi_label:
    return {'label': np.full((rows, len(class_names)), -1, np.float32)}
  return {'label': np.full(rows, -1, np.int32)}


def put(batch: Mapping[str, np.ndarray], rows: slice, label: Label) -> None:
  """Writes a video's label into its rows of a batch.

  Args:
    batch: Holds what `blank` has made.
    rows: The video's rows.
    label: Its label. In multi-label data a class that applies is 1 and another
      0; rows without a label stay -1 throughout.
  """
  heads = [array for key, array in batch.items() if key.startswith(_HEAD)]
  if heads:
    assert isinstance(label, tuple)
    for array, number in zip(heads, label, strict=True):
      array[rows] = number
  elif 'label' in batch and isinstance(label, tuple):
    if is_known(label):
      batch['label'][rows] = 0
      batch['label'][rows, list(label)] = 1
  elif 'label' in batch:
    batch['label'][rows] = label


def nest(batch: dict[str, Any]) -> None:
  """Gathers the labels of several heads in one dict, `batch['label']`."""
  keys = sorted(key for key in batch if key.startswith(_HEAD))
  if keys:
    batch['label'] = {key.removeprefix(_HEAD): batch.pop(key) for key in keys}
