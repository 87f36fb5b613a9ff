"""Transformers for images as models of one frame; those of timm and of MAE.

github.com/huggingface/pytorch-image-models, vision_transformer.py, and
facebookresearch/mae, models_mae.py and models_vit.py, which has its names.
`big_vision` and `hf_vit` build on what stands here.

A file without classes is a masked autoencoder's without its decoder. MAE's
positions are fixed, but its files hold them: tables that are equal to those
made here are left out, others are learned ones. Its decoder's targets are
pixels less the mean and over the deviation of each channel, standardised by
patch; those of the weights for `visualize` are not standardised.
"""

import functools
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vivit_mae.convert.family import (
  HALF,
  IMAGENET,
  Description,
  Family,
  HubConfig,
  Shapes,
  count,
  decoder_fields,
  encoder_fields,
  square,
)
from vivit_mae.convert.rules import (
  CONV2D,
  LINEAR,
  TABLE,
  THIRDS,
  TOKEN,
  Table,
  linear,
  norm,
  rule,
  under,
)
from vivit_mae.models import positions

Fields = dict[str, Any]
Unknown = dict[str, str]
Arrays = Mapping[str, Any]

ENCODER_TABLE = 'encoder/position_embedding'
DECODER_TABLE = 'decoder/position_embedding'

_KERNEL = 'patch_embed.proj.weight'
_BLOCK: Table = (
  *norm('norm1', 'norm1'),
  rule('attention/qkv/kernel', 'attn.qkv.weight', LINEAR),
  rule('attention/q_bias', 'attn.qkv.bias', THIRDS[0]),
  rule('attention/k_bias', 'attn.qkv.bias', THIRDS[1]),
  rule('attention/v_bias', 'attn.qkv.bias', THIRDS[2]),
  *linear('attention/proj', 'attn.proj'),
  rule('scale1/gamma', 'ls1.gamma'),
  *norm('norm2', 'norm2'),
  *linear('mlp/fc1', 'mlp.fc1'),
  *linear('mlp/fc2', 'mlp.fc2'),
  rule('scale2/gamma', 'ls2.gamma'),
)
_ENCODER: Table = (
  rule('encoder/embedding/kernel', _KERNEL, CONV2D),
  rule('encoder/embedding/bias', 'patch_embed.proj.bias'),
  rule('encoder/cls_token', 'cls_token', TOKEN),
  *under('encoder/block_{i}/', 'blocks.{i}.', _BLOCK),
  *norm('encoder/norm', 'norm'),
)
_DECODER: Table = (
  *linear('bridge', 'decoder_embed'),
  rule('mask_token', 'mask_token', TOKEN),
  *under('decoder/block_{i}/', 'decoder_blocks.{i}.', _BLOCK),
  *norm('decoder/norm', 'decoder_norm'),
  *linear('decoder/head', 'decoder_pred'),
)
_HEAD: Table = (*norm('head/norm', 'fc_norm'), *linear('head/label', 'head'))


def places(rows: int, has_token: bool, patch: int) -> tuple[Fields, Unknown]:
  """The fields that a learned table of positions tells.

  Args:
    rows: Of the table. A square is that of the patches, one more of them and
      the class token.
    has_token: Whether there is a class token.
    patch: Side of a patch in pixels.

  Returns:
    Fields of the model, and those that the table does not tell.
  """
  if not has_token:
    place = 'none'
  elif math.isqrt(rows) ** 2 == rows:
    place = 'after_positions'
  else:
    place, rows = 'before_positions', rows - 1
  image, unknown = square(rows, patch)
  return {'class_token': place, 'positions': 'learned_1d', **image}, unknown


def torch_sizes(
  shapes: Shapes, kernel: str, mlp: str, depth: int
) -> tuple[Fields, Unknown, int]:
  """The fields of an encoder, and the side of a patch.

  Args:
    shapes: Of a file.
    kernel: The name of the embedding's.
    mlp: The name of the weight of some block's first linear layer.
    depth: Blocks.
  """
  width, _, height, patch = shapes[kernel]
  fields, unknown = encoder_fields(
    width, depth, shapes[mlp][0], (1, height, patch), frames=1
  )
  return fields | {'gelu': 'erf'}, unknown, patch


def decoder(
  shapes: Shapes, embed: str, mlp: str, depth: int
) -> tuple[Fields, Unknown]:
  """The fields of MAE's decoder; arguments as of `torch_sizes`."""
  width, encoder_width = shapes[embed]
  fields, unknown = decoder_fields(
    'image_mae', encoder_width, width, depth, shapes[mlp][0]
  )
  return fields | {'decoder_positions': 'learned_1d'}, unknown


def classifier(
  fields: Fields, unknown: Unknown, preprocess: Mapping[str, Any]
) -> Description:
  """The description of a classifier."""
  pooling = 'mean' if fields['class_token'] == 'none' else 'token'
  return Description(
    task='classify',
    model={'recipe': 'vivit', 'pooling': pooling, **fields},
    preprocess=preprocess,
    unknown=unknown,
  )


def autoencoder(
  fields: Fields,
  unknown: Unknown,
  preprocess: Mapping[str, Any],
  *,
  fixed: bool = False,
  normalise: str = 'patch',
  target_dim: int | None = None,
) -> Description:
  """The description of MAE, or of an encoder as that of one.

  Args:
    fields: Of the model, with learned positions.
    unknown: See `Description`.
    preprocess: See `Description`.
    fixed: Puts MAE's own positions in place of learned ones.
    normalise: Of the target.
    target_dim: See `Description`.
  """
  if fixed:
    learned = {'class_token', 'positions', 'decoder_positions'}
    fields = {k: v for k, v in fields.items() if k not in learned}
  return Description(
    task='mae',
    model={'recipe': 'image_mae', **fields},
    preprocess=preprocess,
    mask={'kind': 'random', 'ratio': 0.75, 'rounding': 'visible_down'},
    target={'normalise': normalise, 'frames': 'all'},
    target_dim=target_dim,
    unknown=unknown,
  )


def of_images(kernel: str) -> Callable[[Arrays], bool]:
  """Whether the kernel of some name is of images, not of clips."""
  return lambda arrays: len(arrays[kernel].shape) == 4


def families(
  name: str,
  table: Table,
  tables: Mapping[str, str],
  marks: tuple[str, ...],
  describe: Callable[..., Description],
  *,
  when: Callable[[Arrays], bool],
  absent: tuple[str, ...] = (),
  unused: Mapping[str, str] | None = None,
) -> tuple[Family, Family]:
  """Two families of one model: with MAE's fixed positions, and with others.

  Args:
    name: See `Family`.
    table: Without the rules of positions.
    tables: Our names of the tables of positions, and theirs.
    marks: See `Family`.
    describe: As of `Family`, and takes `fixed` besides.
    when: See `Family`.
    absent: See `Family`.
    unused: See `Family`.
  """
  theirs = tuple(tables.values())
  learned = Family(
    name=f'{name}, learned positions',
    table=(*table, *(rule(*pair, TABLE) for pair in tables.items())),
    marks=(*marks, *theirs),
    describe=functools.partial(describe, fixed=False),
    when=when,
    absent=absent,
    unused=unused or {},
  )
  made = dict.fromkeys(map(re.escape, theirs), 'the fixed table, made anew')
  fixed = Family(
    name=f'{name}, fixed positions',
    table=table,
    marks=learned.marks,
    describe=functools.partial(describe, fixed=True),
    when=lambda arrays: (
      when(arrays) and all(_is_fixed(arrays[each]) for each in theirs)
    ),
    absent=absent,
    unused={**learned.unused, **made},
  )
  return fixed, learned


def _is_fixed(table: Any) -> bool:
  """Whether a table [1, 1 + n, d] is MAE's of a square; of shapes, may be."""
  *_, rows, width = table.shape
  side = math.isqrt(rows - 1)
  if side * side != rows - 1 or width % 4:
    return False
  if isinstance(table, jax.ShapeDtypeStruct):
    return True
  made = positions.fixed((1, side, side), width, None, 1, 'sincos_2d')
  value = np.asarray(table, np.float32).reshape(rows, width)
  tolerance = max(1e-5, float(jnp.finfo(table.dtype).eps))
  return bool(np.abs(value - made).max() <= tolerance)


def _fields(shapes: Shapes) -> tuple[Fields, Unknown]:
  fields, unknown, patch = torch_sizes(
    shapes,
    _KERNEL,
    'blocks.0.mlp.fc1.weight',
    count(shapes, 'blocks.{i}.norm1.weight'),
  )
  told, more = places(shapes['pos_embed'][1], 'cls_token' in shapes, patch)
  if 'blocks.0.ls1.gamma' in shapes:
    told['layer_scale'] = 1e-5
  return fields | told, unknown | more


def _statistics(
  config: HubConfig, default: Mapping[str, Any]
) -> Mapping[str, Any]:
  """Those that timm writes into its config.json."""
  told = (config or {}).get('pretrained_cfg') or {}
  if 'mean' in told and 'std' in told:
    return {name: tuple(told[name]) for name in ('mean', 'std')}
  return default


def _classifier(shapes: Shapes, config: HubConfig) -> Description:
  fields, unknown = _fields(shapes)
  fields['num_classes'] = shapes['head.weight'][0]
  if (config or {}).get('global_pool') == 'avg':
    fields['pooling'] = 'mean'
  if 'fc_norm.weight' not in shapes:
    return classifier(fields, unknown, _statistics(config, HALF))
  fields |= {'pooling': 'mean', 'norm': 'after_pooling'}
  return classifier(fields, unknown, _statistics(config, IMAGENET))


def _encoder(shapes: Shapes, config: HubConfig, *, fixed: bool) -> Description:
  statistics = IMAGENET if fixed else _statistics(config, HALF)
  return autoencoder(*_fields(shapes), statistics, fixed=fixed)


def _mae(shapes: Shapes, config: HubConfig, *, fixed: bool) -> Description:
  del config
  fields, unknown = _fields(shapes)
  told, more = decoder(
    shapes,
    'decoder_embed.weight',
    'decoder_blocks.0.mlp.fc1.weight',
    count(shapes, 'decoder_blocks.{i}.norm1.weight'),
  )
  return autoencoder(
    fields | told,
    unknown | more,
    IMAGENET,
    fixed=fixed,
    target_dim=shapes['decoder_pred.weight'][0],
  )


_MARKS = (_KERNEL, 'blocks.0.attn.qkv.bias', 'blocks.0.mlp.fc1.weight')

FAMILIES = (
  *families(
    'MAE for images',
    (*_ENCODER, *_DECODER),
    {ENCODER_TABLE: 'pos_embed', DECODER_TABLE: 'decoder_pos_embed'},
    (*_MARKS, 'decoder_embed.weight', 'decoder_pred.weight', 'mask_token'),
    _mae,
    when=of_images(_KERNEL),
  ),
  Family(
    name='ViT of timm, classifier',
    table=(*_ENCODER, rule(ENCODER_TABLE, 'pos_embed', TABLE), *_HEAD),
    marks=(*_MARKS, 'pos_embed', 'head.weight'),
    describe=_classifier,
    when=of_images(_KERNEL),
  ),
  *families(
    'ViT of timm or MAE, encoder',
    _ENCODER,
    {ENCODER_TABLE: 'pos_embed'},
    _MARKS,
    _encoder,
    when=of_images(_KERNEL),
    absent=('mask_token', 'fc_norm.weight'),
  ),
)
