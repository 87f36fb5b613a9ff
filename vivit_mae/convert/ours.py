"""Weights in a folder of our own: `model.safetensors` and `config.json`.

The arrays have our names, the config says what model they are, how its input
is normalised and what its classes are called.
"""

import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import safetensors.numpy
from flax import traverse_util

from vivit_mae.convert import rules
from vivit_mae.convert.family import Description, Family, HubConfig, Shapes

# The key of config.json that tells it from those of others.
_KEY = 'vivit_mae'
_FIELDS = ('task', 'model', 'preprocess', 'mask', 'target', 'target_dim')


def _describe(shapes: Shapes, config: HubConfig) -> Description:
  del shapes
  about = (config or {}).get(_KEY)
  if about is None:
    raise ValueError(
      'A file with names of this library needs the config.json beside it that '
      'was written with it, which says what model it is.'
    )
  fields = {name: about[name] for name in _FIELDS if name in about}
  model = {name: _tuples(value) for name, value in about['model'].items()}
  return Description(**{**fields, 'model': model})


def _tuples(value: Any) -> Any:
  return tuple(map(_tuples, value)) if isinstance(value, list) else value


FAMILY = Family(
  name='vivit_mae',
  table=(rules.rule('{any}', '{any}'),),
  marks=('encoder/embedding/kernel',),
  describe=_describe,
)


def write(
  directory: str | os.PathLike[str],
  params: Mapping[str, Any],
  description: Description,
  *,
  class_names: Any = None,
  stride: int | None = None,
  overwrite: bool = False,
) -> None:
  """Writes weights as a folder that `files.read` reads.

  Args:
    directory: The folder; made if it is not there.
    params: The parameters, nested.
    description: What model they are.
    class_names: Of a classifier, for several heads those of each; None where
      they are not known.
    stride: Frames from one of a clip to the next, where it is known.
    overwrite: Replaces files that are there.

  Raises:
    ValueError: There are files already.
  """
  folder = pathlib.Path(directory)
  weights, config = folder / 'model.safetensors', folder / 'config.json'
  check_free((weights, config), overwrite)
  folder.mkdir(parents=True, exist_ok=True)
  arrays = traverse_util.flatten_dict(dict(params), sep='/')
  safetensors.numpy.save_file(
    {name: np.ascontiguousarray(value) for name, value in arrays.items()},
    weights,
  )
  about = {name: getattr(description, name) for name in _FIELDS}
  about |= {'class_names': class_names, 'stride': stride}
  config.write_text(json.dumps({_KEY: about}, indent=2) + '\n')


def check_free(paths: Iterable[pathlib.Path], overwrite: bool) -> None:
  """Refuses to replace files unless it is asked for.

  Raises:
    ValueError: One of them is there.
  """
  there = [str(path) for path in paths if path.exists()]
  if there and not overwrite:
    raise ValueError(
      f'{", ".join(there)} would be replaced: give another folder, or ask for '
      'it (overwrite=True, --overwrite).'
    )


def about(config: HubConfig) -> Mapping[str, Any]:
  """What `write` noted of classes and stride; empty of other configs."""
  return (config or {}).get(_KEY) or {}
