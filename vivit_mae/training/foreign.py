"""Public weights as a start of training: files of other projects, by name.

`config.init_from.path` may be a file or a folder that `convert.files` reads, or
a name of the zoo.
"""

import functools
import logging
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from vivit_mae.convert import files, inflation, public, weights
from vivit_mae.convert.coverage import LEFT, LOADED, RESIZED
from vivit_mae.convert.family import Description
from vivit_mae.models import video_mae, vivit
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


def is_inflated(description: Description, num_frames: int) -> bool:
  """Whether weights are those of an image model, and clips are asked for."""
  return description.model.get('num_frames') == 1 < num_frames


def weights_of(
  path: str,
  statistics: Mapping[str, tuple[float, ...]],
  model: video_mae.VideoMAE | vivit.ViViT,
  inflate: Mapping[str, str],
) -> transfer.Weights:
  """Public weights under our names.

  What a file holds beyond them is logged; so is it where they were trained
  with other statistics of the pixels. Those of an image model are inflated.

  Args:
    path: A file, a folder, or a name of the zoo.
    statistics: `config.preprocess` of the run that takes them: mean and std.
    model: What is trained.
    inflate: `config.init_from.inflate`.

  Returns:
    The weights.

  Raises:
    ValueError: See `describe`.
  """
  checkpoint = _read(path)
  # It served `describe`, and is not to lie in memory while training goes on.
  _read.cache_clear()
  family = weights.recognise(checkpoint)
  description = weights.describe(checkpoint)
  kind = family.name
  if is_inflated(description, model.num_frames):
    kind += ', inflated'
    arrays, left = _inflated(checkpoint, model, inflate)
  else:
    arrays, left = weights.renamed(checkpoint)
  for name, trained in description.preprocess.items():
    if not np.allclose(trained, statistics[name]):
      _log.warning(
        '%s was trained with preprocess.%s %s, and this run has %s',
        path,
        name,
        tuple(trained),
        statistics[name],
      )
  for note in description.notes:
    _log.warning('%s: %s', path, note)
  if left:
    _log.warning('%s: not understood: %s', path, naming.listed(sorted(left)))

  def read(item: dict[str, Any]) -> Any:
    return naming.map_named(
      lambda name, leaf: _placed(arrays[name], leaf), item
    )

  return transfer.Weights(
    source=f'{kind} ({path})',
    shapes={name: tuple(array.shape) for name, array in arrays.items()},
    read=read,
  )


def _inflated(
  checkpoint: files.Checkpoint,
  model: video_mae.VideoMAE | vivit.ViViT,
  how: Mapping[str, str],
) -> tuple[dict[str, Any], list[str]]:
  """The arrays of a video model that an image's make, and what is left."""
  # Only the shapes are of use: what stays fresh does so in the run.
  blank = jax.tree.map(
    lambda x: np.broadcast_to(np.float32(0), x.shape), weights.shapes_of(model)
  )
  params, coverage = inflation.inflated(
    checkpoint,
    blank,
    model,
    kernel=how['kernel'],
    positions=how['positions'],
    temporal=how['temporal'],
    partial=True,
  )
  flat = naming.flat(params)
  made = {row.ours for row in coverage.of(LOADED, RESIZED)}
  left = [name for row in coverage.of(LEFT) for name in row.theirs]
  return {name: flat[name] for name in made}, left


def _placed(array: np.ndarray, leaf: jax.ShapeDtypeStruct) -> Any:
  return array if leaf.sharding is None else transfer.put(array, leaf)


@functools.lru_cache(maxsize=1)
def _read(path: str) -> files.Checkpoint:
  checkpoint, _ = public.read(path, _FIELD)
  return checkpoint
