"""Public weights as a start of training: files of other projects, by name.

`config.init_from.path` may be a file or a folder that `convert.files` reads, or
a name of the zoo.
"""

import functools
import logging
import os
from typing import Any

import jax
import numpy as np

from vivit_mae.convert import download, files, weights, zoo
from vivit_mae.convert.family import Description
from vivit_mae.training import naming, transfer

_log = logging.getLogger(__name__)
_FIELD = 'config.init_from.path'


def describe(path: str) -> Description:
  """What public weights say of their model.

  Args:
    path: A file, a folder, or a name of the zoo.

  Returns:
    The description.

  Raises:
    ValueError: There is nothing of that name, or it is no known model.
  """
  checkpoint = _read(path)
  return weights.describe(checkpoint)


def weights_of(
  path: str, mean: tuple[float, ...], std: tuple[float, ...]
) -> transfer.Weights:
  """Public weights under our names.

  What a file holds beyond them is logged; so is it where they were trained
  with other statistics of the pixels.

  Args:
    path: A file, a folder, or a name of the zoo.
    mean: `config.preprocess.mean` of the run that takes them.
    std: Likewise.

  Returns:
    The weights.

  Raises:
    ValueError: See `describe`.
  """
  checkpoint = _read(path)
  family = weights.recognise(checkpoint)
  description = weights.describe(checkpoint)
  arrays, left = weights.renamed(checkpoint)
  for name, trained in description.preprocess.items():
    if not np.allclose(trained, {'mean': mean, 'std': std}[name]):
      _log.warning(
        '%s was trained with preprocess.%s %s, and this run has %s',
        path,
        name,
        tuple(trained),
        {'mean': mean, 'std': std}[name],
      )
  if left:
    _log.warning('%s: not understood: %s', path, naming.listed(sorted(left)))

  def read(item: dict[str, Any]) -> Any:
    return naming.map_named(
      lambda name, leaf: _placed(arrays[name], leaf), item
    )

  return transfer.Weights(
    source=f'{family.name} ({path})',
    shapes={name: tuple(array.shape) for name, array in arrays.items()},
    read=read,
  )


def _placed(array: np.ndarray, leaf: jax.ShapeDtypeStruct) -> Any:
  return array if leaf.sharding is None else transfer.put(array, leaf)


@functools.lru_cache(maxsize=1)
def _read(path: str) -> files.Checkpoint:
  """The arrays of a file, or of one that the zoo knows."""
  if os.path.exists(path):
    return files.read(path)
  if path in zoo.ZOO:
    entry = zoo.lookup(path)
    download.note_licence(entry)
    return files.read(download.fetch(entry))
  raise ValueError(
    f'{_FIELD}={path!r} is no workdir, no file and no folder, nor a name in '
    f'docs/model_zoo.md: {_nearest(path)}'
  )


def _nearest(path: str) -> str:
  try:
    zoo.lookup(path)
  except ValueError as error:
    return str(error)
  return ''
