"""Our models in the formats of others.

'hf' is a folder that `from_pretrained` of Hugging Face's transformers opens:
`VideoMAEForPreTraining`, `VideoMAEForVideoClassification` or
`VivitForVideoClassification`. Its names are those that transformers 4 and 5.20
or later write. From 5.6 to 5.16 transformers itself could not read the biases
of a VideoMAE by these names, as they are on the hub, and started them at zero.

'videomae' are the names of the authors' repository, for its `load_state_dict`.
"""

import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy
from flax import traverse_util

from vivit_mae.convert import (
  hf_config,
  hf_videomae,
  hf_vivit,
  ours,
  rules,
  videomae,
  weights,
)
from vivit_mae.models import heads, video_mae, vivit

FORMATS = ('hf', 'videomae')

# What a field has to hold; the first is named as what would do.
_Fields = Mapping[str, tuple[Any, ...]]


class _Format(NamedTuple):
  """What a model can be written as.

  Attributes:
    name: For people.
    table: Our names and theirs.
    fields: What the model's fields have to hold.
    poolings: Pairs of `pooling` and `norm` of a classifier.
    config: Makes config.json, but for classes and loss; None writes none.
    key_bias: Whether keys may have a bias.
    oblong_patches: Whether the height and width of patches may differ.
  """

  name: str
  table: rules.Table
  fields: _Fields
  poolings: tuple[tuple[str, str], ...] = ()
  config: Callable[[Any], dict[str, Any]] | None = None
  key_bias: bool = False
  oblong_patches: bool = False


_JOINT: _Fields = {'factorisation': ('none',), 'channels': (3,)}
_SINCOS: _Fields = {
  **_JOINT,
  'positions': ('sincos_1d',),
  'class_token': ('none',),
}
_PLAIN: _Fields = {'cosine_attention': (False,), 'layer_scale': (0.0,)}
_ORIGINAL: _Fields = {
  'qkv_bias': ('qv', 'qkv'),
  'gelu': ('erf',),
  'epsilons': ('published',),
}
_DECODER: _Fields = {
  'decoder_positions': ('sincos_1d',),
  'bridge_bias': (False,),
}
_LINEAR_HEAD: _Fields = {
  'embedding': ('tubelet',),
  'head': ('linear',),
  'representation_size': (None,),
  'probe_batch_norm': (False,),
}
# The mean of the tokens and a norm behind it, or the normed first token.
_POOLINGS = (('mean', 'after_pooling'), ('first', 'before_pooling'))

_ORIGINAL_PRETRAINING = _Format(
  "VideoMAE's repository",
  videomae.PRETRAINING.table,
  {**_SINCOS, **_ORIGINAL, **_DECODER},
)
_ORIGINAL_CLASSIFIER = _Format(
  "VideoMAE's repository",
  videomae.CLASSIFIER.table,
  {**_SINCOS, **_ORIGINAL, **_LINEAR_HEAD},
  _POOLINGS,
)
_HUB_PRETRAINING = _Format(
  "transformers' VideoMAE",
  hf_videomae.PRETRAINING.table,
  {**_SINCOS, **_PLAIN, **_DECODER},
  config=hf_config.of_videomae,
)
_HUB_CLASSIFIER = _Format(
  "transformers' VideoMAE",
  hf_videomae.CLASSIFIER.table,
  {**_SINCOS, **_PLAIN, **_LINEAR_HEAD},
  _POOLINGS,
  hf_config.of_videomae,
)
_VIVIT = _Format(
  "transformers' ViViT",
  hf_vivit.CLASSIFIER.table,
  {
    **_JOINT,
    **_PLAIN,
    **_LINEAR_HEAD,
    'positions': ('learned_1d',),
    'class_token': ('before_positions',),
    'qkv_bias': ('qkv', 'none'),
  },
  (('token', 'before_pooling'),),
  hf_config.of_vivit,
  key_bias=True,
  oblong_patches=True,
)


def export(
  params: Mapping[str, Any],
  model: hf_config.Model,
  directory: str | os.PathLike[str],
  *,
  format: str,
  preprocess: hf_config.Statistics | None = None,
  target_normalise: str = 'channel',
  class_names: Sequence[str] | None = None,
  overwrite: bool = False,
) -> tuple[pathlib.Path, ...]:
  """Writes a model in another project's format.

  The norms of transformers' VideoMAE have the epsilon that config.json says,
  here 1e-6, but for the last ones (`decoder.norm`, `fc_norm`), which always
  have 1e-5: outputs differ by some millionths.

  Args:
    params: The parameters, nested. A masked autoencoder's may be without its
      decoder.
    model: The model that they are of.
    directory: Where to write; made where it does not exist.
    format: 'hf' (model.safetensors, config.json, preprocessor_config.json) or
      'videomae' (model.safetensors).
    preprocess: 'mean' and 'std' of the pixels in [0, 1], which 'hf' needs.
    target_normalise: `normalise` of the target in pretraining, of 'hf'.
    class_names: The classes in the order of the head, of 'hf'; None where
      they are not known.
    overwrite: Replaces files that are there.

  Returns:
    The files.

  Raises:
    ValueError: The format cannot express the model, and why; the parameters
      are not the model's; there are files in the way.
  """
  if format not in FORMATS:
    raise ValueError(f'format {format!r} is unknown: take one of {FORMATS}.')
  wanted = _wanted(model, format)
  _check(model, wanted)
  flat = _checked_params(params, model)
  if not wanted.key_bias:
    # A softmax does not change with it.
    flat = {k: v for k, v in flat.items() if not k.endswith('/k_bias')}
  arrays = rules.written(wanted.table, flat)
  contents = {}
  if wanted.config is not None:
    if preprocess is None:
      raise ValueError(
        "format 'hf' needs preprocess: the mean and std of the pixels that the "
        'model was trained with.'
      )
    config = wanted.config(model)
    if isinstance(model, vivit.ViViT):
      config |= hf_config.of_classes(model.total_classes, class_names)
    elif 'mask_token' in params:
      config |= hf_config.of_loss(target_normalise, preprocess)
    else:
      config['architectures'] = ['VideoMAEModel']
    contents['config.json'] = config
    contents['preprocessor_config.json'] = hf_config.preprocessor(
      model.image_size, preprocess, config['model_type']
    )
  return _write(pathlib.Path(directory), arrays, contents, overwrite)


def _wanted(model: hf_config.Model, format: str) -> _Format:
  """What the model would be in a format."""
  if isinstance(model, video_mae.VideoMAE):
    return _HUB_PRETRAINING if format == 'hf' else _ORIGINAL_PRETRAINING
  if format != 'hf':
    return _ORIGINAL_CLASSIFIER
  return _VIVIT if model.pooling == 'token' else _HUB_CLASSIFIER


def _check(model: hf_config.Model, wanted: _Format) -> None:
  """Refuses a model that a format cannot express."""
  for name, allowed in wanted.fields.items():
    value = getattr(model, name)
    if value not in allowed:
      raise ValueError(
        f'{wanted.name} cannot express {name} {value!r}; {allowed[0]!r} would '
        'do.'
      )
  if isinstance(model, vivit.ViViT):
    pair = (model.pooling, model.norm)
    if pair not in wanted.poolings:
      would = ' or '.join(f'{p!r} with {n!r}' for p, n in wanted.poolings)
      raise ValueError(
        f'{wanted.name} cannot express pooling {pair[0]!r} with norm '
        f'{pair[1]!r}; {would} would do.'
      )
    if set(heads.named_classes(model.num_classes)) != {heads.SINGLE}:
      raise ValueError(
        f'{wanted.name} has one head, and num_classes is {model.num_classes}.'
      )
  elif model.target_dim not in (None, model.patch_dim):
    raise ValueError(
      f'{wanted.name} predicts all {model.patch_dim} values of a tubelet, and '
      f'target_dim is {model.target_dim}.'
    )
  _, height, width = model.tubelet
  if height != width and not wanted.oblong_patches:
    raise ValueError(
      f'{wanted.name} has square patches, and those of tubelet {model.tubelet} '
      'are not.'
    )
  learned = model.positions == 'learned_1d'
  if not learned and model.position_grid not in (None, model.grid):
    raise ValueError(
      f'{wanted.name} makes its positions for the grid {model.grid} itself, '
      f'and those of the model are resized from {model.position_grid}.'
    )


def _checked_params(
  params: Mapping[str, Any], model: hf_config.Model
) -> dict[str, np.ndarray]:
  """The parameters by name, all that the model has and no others."""
  flat = {
    name: np.asarray(value, np.float32)
    for name, value in traverse_util.flatten_dict(params, sep='/').items()
  }
  expected: dict[str, Any] = traverse_util.flatten_dict(
    weights.shapes_of(model), sep='/'
  )
  if isinstance(model, video_mae.VideoMAE) and 'mask_token' not in flat:
    expected = {k: v for k, v in expected.items() if k.startswith('encoder/')}
  wrong = sorted(flat.keys() ^ expected.keys()) or [
    name for name, value in flat.items() if value.shape != expected[name].shape
  ]
  if wrong:
    raise ValueError(
      f'The parameters are not those of the model: {wrong[0]} and '
      f'{len(wrong) - 1} more differ.'
    )
  return flat


def _write(
  directory: pathlib.Path,
  arrays: dict[str, np.ndarray],
  contents: Mapping[str, Any],
  overwrite: bool,
) -> tuple[pathlib.Path, ...]:
  """Writes the files, or none where one is in the way."""
  weights_path = directory / 'model.safetensors'
  paths = (weights_path, *(directory / name for name in contents))
  ours.check_free(paths, overwrite)
  directory.mkdir(parents=True, exist_ok=True)
  for name, content in contents.items():
    text = json.dumps(content, indent=2, ensure_ascii=False) + '\n'
    (directory / name).write_text(text, encoding='utf-8')
  # transformers 4 asks for the format.
  safetensors.numpy.save_file(arrays, weights_path, metadata={'format': 'pt'})
  return paths
