"""What was predicted for each video, as a table for other programs."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float

from vivit_mae.tasks import metrics

_TOP = 5
# Share from which on a class counts as predicted, of several a video.
_PREDICTED = 0.5

Columns = dict[str, list[Any]]


def columns(
  scores: metrics.Scores,
  ids: Sequence[str],
  class_names: Mapping[str, Sequence[str]],
) -> Columns:
  """The table, by columns.

  `video` is its id; then for each head `label` and `predicted` (the names of
  the classes, joined by semicolons where a video may have several, empty where
  there is none) and the likeliest classes with their probabilities, `class_1`,
  `probability_1` to at most `class_5`, `probability_5`. The names of several
  heads begin with the head's and a point: `verb.label`.

  Args:
    scores: of the videos.
    ids: of the same videos.
    class_names: for each head.

  Returns:
    Columns of one length.
  """
  table: Columns = {'video': list(ids)}
  for head, probabilities in scores.probabilities.items():
    prefix = f'{head}.' if len(scores.probabilities) > 1 else ''
    names = np.asarray(class_names[head], object)
    labels = scores.labels.get(head)
    several = labels is not None and labels.ndim == 2
    order = np.argsort(-probabilities, axis=1, kind='stable')[:, :_TOP]
    if labels is None:
      label = [''] * len(ids)
    elif several:
      label = _joined(labels, names)
    else:
      label = [str(names[x]) if x >= 0 else '' for x in labels]
    if several:
      predicted = _joined(probabilities, names)
    else:
      predicted = names[order[:, 0]].tolist()
    table[f'{prefix}label'] = label
    table[f'{prefix}predicted'] = predicted
    likeliest = np.take_along_axis(probabilities, order, axis=1)
    for place in range(order.shape[1]):
      found = names[order[:, place]].tolist()
      table[f'{prefix}class_{place + 1}'] = found
      table[f'{prefix}probability_{place + 1}'] = likeliest[:, place].tolist()
  return table


def write(path: epath.Path, table: Columns) -> None:
  """Writes a table in the format that the path ends in.

  Args:
    path: ends in one of `FORMATS`; its folder is made.
    table: see `columns`.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(FORMATS[path.suffix.removeprefix('.')](table))


def check_format(name: str) -> None:
  """Refuses a format that can not be written.

  Args:
    name: a key of `FORMATS`, or '' for none.

  Raises:
    ValueError: it is unknown, or what it needs is not installed.
  """
  if name and name not in FORMATS:
    raise ValueError(
      f'predictions {name!r} is unknown: take one of {tuple(FORMATS)}, or an '
      'empty string for no file.'
    )
  if name == 'parquet':
    try:
      import pyarrow.parquet  # noqa: F401
    except ImportError as error:
      raise ValueError(
        "predictions 'parquet' needs pyarrow: pip install pyarrow, or take "
        "'csv'."
      ) from error


def _csv(table: Columns) -> bytes:
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  writer.writerow(table)
  for row in zip(*table.values(), strict=True):
    writer.writerow([f'{x:.6g}' if isinstance(x, float) else x for x in row])
  return text.getvalue().encode()


def _parquet(table: Columns) -> bytes:
  import pyarrow
  import pyarrow.parquet

  buffer = io.BytesIO()
  pyarrow.parquet.write_table(pyarrow.table(table), buffer)
  return buffer.getvalue()


FORMATS: dict[str, Callable[[Columns], bytes]] = {
  'csv': _csv,
  'parquet': _parquet,
}


def _joined(shares: Float[np.ndarray, 'n c'], names: np.ndarray) -> list[str]:
  """The classes of each video that has several."""
  return [';'.join(names[row >= _PREDICTED].tolist()) for row in shares]
