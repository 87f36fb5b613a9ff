"""Weights as a model that can be used: `vivit_mae.load`.

A workdir of this library, a file of another project, or a name of the zoo
becomes a Flax module, its parameters, and what else has to be known to use
them.
"""

import dataclasses
import json
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from vivit_mae import config as config_lib
from vivit_mae import targets, tasks
from vivit_mae.convert import class_names as class_names_lib
from vivit_mae.convert import files, ours, public, weights
from vivit_mae.convert.family import Description
from vivit_mae.convert.weights import ClassNames
from vivit_mae.loaded import Info, Loaded
from vivit_mae.models import vivit
from vivit_mae.tasks import classify, mae
from vivit_mae.training import checkpoints, sharding

_log = logging.getLogger(__name__)


def load(
  path_or_name: str | os.PathLike[str],
  *,
  partial: bool = False,
  class_names: str | ClassNames | None = None,
  class_rows: Sequence[int] | None = None,
  **fields: Any,
) -> Loaded:
  """Loads weights: `model, params, info = vivit_mae.load(...)`.

  Args:
    path_or_name: A workdir of this library (the newest checkpoint, averaged
      parameters if there are any), a file or folder of any format that
      `convert.files` reads, or a name in docs/model_zoo.md, which is fetched
      once and kept.
    partial: Takes what fits of a foreign file, see `convert.weights.convert`;
      what is missing stays out of the parameters.
    class_names: The classes of a head, in its order, or the name of a dataset
      in `convert.class_names.DATASETS`; None for what comes with the weights.
      Of VideoMAE V2's head of 710 classes, 'kinetics_400' takes its classes.
    class_rows: Which classes of the head to keep, by number, in the order
      wanted: what misc/label_710to600.json and its like in VideoMAE V2's
      repository hold. None for all.
    **fields: Fields of the model that should differ, or that a foreign file
      does not tell: `num_frames=32` resizes the positions. Not of workdirs.

  Returns:
    Model, parameters and what else has to be known.

  Raises:
    ValueError: There is nothing of that name, it is no known model, it does
      not fit, or the class names are not as many as the classes.
  """
  source = os.fspath(path_or_name)
  if epath.Path(source).exists() and checkpoints.holds_any(source):
    if partial or any(value is not None for value in fields.values()):
      raise ValueError(
        f'{source} is a workdir, which is loaded as it was trained: take its '
        'weights into another model with config.init_from.path.'
      )
    loaded = _of_run(source)
  else:
    loaded = _of_file(source, partial, fields)
  num_classes = getattr(loaded.model, 'num_classes', None)
  if class_rows is not None:
    loaded = _taken(loaded, class_rows)
  elif isinstance(class_names, str) and num_classes == 710:
    loaded = _taken(loaded, class_names_lib.rows_of_710(class_names).tolist())
  if class_names is None:
    return loaded
  if isinstance(class_names, str):
    class_names = class_names_lib.class_names(class_names)
  return loaded._replace(
    info=dataclasses.replace(
      loaded.info, class_names=_checked(class_names, loaded.info)
    )
  )


def _of_run(path: str) -> Loaded:
  """What a run of this library has trained."""
  saved = checkpoints.saved_config(path, 'path')
  if saved is None:
    raise ValueError(
      f'{path} has checkpoints and no config.json beside them, which says what '
      'model they are of.'
    )
  config = config_lib.from_saved(saved)
  found = checkpoints.weights_of(path)
  names = _names_of_run(path)
  if config.task == 'classify' and config.model.num_classes is None:
    heads = {
      name.split('/')[1]: shape[-1]
      for name, shape in found.shapes.items()
      if name.startswith('head/')
      and name.endswith('/kernel')
      and name.split('/')[1] not in ('norm', 'pool', 'pre_logits')
    }
    numbered = {k: tuple(map(str, range(n))) for k, n in heads.items()}
    several = set(numbered) != {'label'}
    task = tasks.build(
      config, class_names=numbered if several else numbered['label']
    )
  else:
    task = tasks.build(config)
  assert isinstance(task, (mae.MaskedAutoencoding, classify.Classification))
  with jax.set_mesh(sharding.make_mesh()):
    variables, step = checkpoints.load_variables(path, task.init)
  info = Info(
    source=path,
    kind=f'a run of task {config.task}, step {step}',
    task=task,
    description=_described(config, task),
    stride=config.data.stride,
    class_names=names,
    has_decoder=config.task == 'mae',
  )
  return Loaded(task.model, variables['params'], info)


def _described(
  config: ConfigDict, task: mae.MaskedAutoencoding | classify.Classification
) -> Description:
  """What model a run has trained."""
  model = {k: v for k, v in config.model.items() if v is not None}
  target_dim = None
  if isinstance(task, classify.Classification):
    model['num_classes'] = task.model.num_classes
  else:
    target_dim = task.target.dim
  return Description(
    task=config.task,
    model=model,
    preprocess=config.preprocess.to_dict(),
    mask={} if target_dim is None else config.mask.to_dict(),
    target={} if target_dim is None else config.target.to_dict(),
    target_dim=target_dim,
  )


def _noted_stride(checkpoint: files.Checkpoint) -> int | None:
  stride = ours.about(checkpoint.config).get('stride')
  return stride if isinstance(stride, int) else None


def _names_of_run(path: str) -> ClassNames | None:
  """The class names that a run has noted."""
  file = checkpoints.folder_of(path) / 'class_names.json'
  if not file.exists():
    return None
  names = json.loads(file.read_text())
  if isinstance(names, dict):
    return {head: tuple(these) for head, these in names.items()}
  return tuple(names)


def _of_file(source: str, partial: bool, fields: Mapping[str, Any]) -> Loaded:
  """Weights of another project, from a file or from the zoo."""
  checkpoint, entry = public.read(source)
  converted = weights.convert(checkpoint, partial=partial, **fields)
  for note in converted.description.notes:
    _log.warning('%s: %s', source, note)
  names = converted.class_names
  if entry is not None and entry.dataset in class_names_lib.DATASETS:
    names = class_names_lib.class_names(entry.dataset)
  info = Info(
    source=source,
    kind=converted.family,
    task=_task(converted),
    description=converted.description,
    stride=entry.stride if entry else _noted_stride(checkpoint),
    class_names=names,
    has_decoder=converted.has_decoder,
    licence=entry.licence if entry else '',
    coverage=converted.coverage,
  )
  if names is not None:
    info = dataclasses.replace(info, class_names=_checked(names, info))
  params = jax.tree.map(jnp.asarray, converted.params)
  return Loaded(converted.model, params, info)


def _task(
  converted: weights.Converted,
) -> mae.MaskedAutoencoding | classify.Classification:
  """The training task that converted weights fit."""
  description, model = converted.description, converted.model
  statistics = {
    name: tuple(description.preprocess[name]) for name in ('mean', 'std')
  }
  if isinstance(model, vivit.ViViT):
    return classify.Classification(
      model=model,
      multi_label=False,
      smoothing=0.0,
      erase={'probability': 0.0},
      mix={'mixup': 0.0, 'cutmix': 0.0},
      **statistics,
    )
  mask = {'rounding': 'masked_down', **description.mask}
  return mae.MaskedAutoencoding(
    model=model,
    target=targets.build(
      tubelet=model.tubelet, channels=model.channels, **description.target
    ),
    mask_kind=mask['kind'],
    mask_ratio=mask['ratio'],
    mask_rounding=mask['rounding'],
    decoder_mask_kind=mask.get('decoder_kind'),
    decoder_mask_ratio=mask.get('decoder_ratio', 0.5),
    **statistics,
  )


def _taken(loaded: Loaded, rows: Sequence[int]) -> Loaded:
  """Keeps some classes of a head."""
  model, params, info = loaded
  if (
    not isinstance(model, vivit.ViViT)
    or not isinstance(info.task, classify.Classification)
    or not isinstance(model.num_classes, int)
  ):
    raise ValueError(
      f'class_rows are of a single head, and {info.source} is {info.kind}.'
    )
  kept = np.asarray(rows, np.int64)
  if (
    kept.ndim != 1
    or not len(kept)
    or not (0 <= kept.min() <= kept.max() < model.num_classes)
  ):
    raise ValueError(
      f'class_rows have to be numbers from 0 to {model.num_classes - 1}, as '
      f'{info.source} has {model.num_classes} classes.'
    )
  head = dict(params['head'])
  head['label'] = {name: x[..., kept] for name, x in head['label'].items()}
  model = model.clone(num_classes=len(kept))
  fields = {**info.description.model, 'num_classes': len(kept)}
  info = dataclasses.replace(
    info,
    class_names=None,
    task=dataclasses.replace(info.task, model=model),
    description=dataclasses.replace(info.description, model=fields),
  )
  return Loaded(model, {**params, 'head': head}, info)


def _checked(names: ClassNames, info: Info) -> ClassNames:
  """Class names that are as many as the classes."""
  if not isinstance(info.task, classify.Classification):
    raise ValueError(f'{info.source} is {info.kind} and has no classes.')
  heads = info.task.heads
  named = names if isinstance(names, Mapping) else {'label': names}
  counts = {head: len(these) for head, these in named.items()}
  if counts != heads:
    raise ValueError(
      f'{info.source} tells {heads} classes apart, and class_names has '
      f'{counts} of them.'
    )
  return names
