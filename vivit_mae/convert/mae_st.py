"""MAE-ST by the names of its own repository and of PySlowFast.

github.com/facebookresearch/mae_st, models_mae.py and models_vit.py; its
released weights are those of facebookresearch/SlowFast, models/masked.py, whose
decoder has a joint table of positions, goes on with the encoder's class token
and has heads of 64.
"""

from typing import Any

from vivit_mae.convert.family import (
  MAE_ST,
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
  CONV3D,
  LINEARS,
  TABLE,
  TOKEN,
  Rule,
  linear,
  norm,
  rule,
  under,
)

_BLOCK = (
  *norm('norm1', 'norm1'),
  Rule(
    'attention/qkv/kernel',
    ('attn.q.weight', 'attn.k.weight', 'attn.v.weight'),
    LINEARS,
  ),
  rule('attention/q_bias', 'attn.q.bias'),
  rule('attention/k_bias', 'attn.k.bias'),
  rule('attention/v_bias', 'attn.v.bias'),
  *linear('attention/proj', 'attn.proj'),
  *norm('norm2', 'norm2'),
  *linear('mlp/fc1', 'mlp.fc1'),
  *linear('mlp/fc2', 'mlp.fc2'),
)

_ENCODER = (
  rule('encoder/embedding/kernel', 'patch_embed.proj.weight', CONV3D),
  rule('encoder/embedding/bias', 'patch_embed.proj.bias'),
  rule('encoder/cls_token', 'cls_token', TOKEN),
  rule('encoder/position_space', 'pos_embed_spatial', TABLE),
  rule('encoder/position_time', 'pos_embed_temporal', TABLE),
  rule('encoder/position_class', 'pos_embed_class', TOKEN),
  rule('encoder/position_embedding', 'pos_embed', TABLE),
  *under('encoder/block_{i}/', 'blocks.{i}.', _BLOCK),
  *norm('encoder/norm', 'norm'),
)

_BRIDGE = (
  *linear('bridge', 'decoder_embed'),
  rule('mask_token', 'mask_token', TOKEN),
)

_DECODER = (
  *_BRIDGE,
  rule('decoder/cls_token', 'decoder_cls_token', TOKEN),
  rule('decoder/position_space', 'decoder_pos_embed_spatial', TABLE),
  rule('decoder/position_time', 'decoder_pos_embed_temporal', TABLE),
  rule('decoder/position_class', 'decoder_pos_embed_class', TOKEN),
  rule('decoder/position_embedding', 'decoder_pos_embed', TABLE),
  *under('decoder/block_{i}/', 'decoder_blocks.{i}.', _BLOCK),
  *norm('decoder/norm', 'decoder_norm'),
  *linear('decoder/head', 'decoder_pred'),
)

_SLOWFAST_DECODER = (
  *_BRIDGE,
  rule('decoder/position_embedding', 'decoder_pos_embed', TABLE),
  *under('decoder/block_{i}/', 'pred_head.transforms.0.{i}.', _BLOCK),
  # Behind the blocks, in one list with them.
  rule('decoder/norm/scale', 'pred_head.transforms.0.{i}.weight'),
  rule('decoder/norm/bias', 'pred_head.transforms.0.{i}.bias'),
  *linear('decoder/head', 'pred_head.projections.0'),
)

_FIRST = 'pred_head.transforms.0.0.norm1.weight'


def _encoder(shapes: Shapes) -> tuple[dict[str, Any], dict[str, str]]:
  width, _, frames, _, patch = shapes['patch_embed.proj.weight']
  depth = count(shapes, 'blocks.{i}.norm1.weight')
  fields, unknown = encoder_fields(
    width,
    depth,
    shapes['blocks.0.mlp.fc1.weight'][0],
    (frames, patch, patch),
  )
  if 'pos_embed_spatial' in shapes:
    image, more = square(shapes['pos_embed_spatial'][1], patch)
    fields |= image
    fields['num_frames'] = shapes['pos_embed_temporal'][1] * frames
    return fields, unknown | more
  fields['positions'] = 'learned_1d'
  # Sixteen frames, as every recipe has them.
  image, more = square((shapes['pos_embed'][1] - 1) * frames // 16, patch)
  return fields | image, unknown | more


def _pretraining(shapes: Shapes, config: HubConfig) -> Description:
  del config
  slowfast = _FIRST in shapes
  recipe = 'pyslowfast' if slowfast else 'mae_st'
  blocks = 'pred_head.transforms.0.' if slowfast else 'decoder_blocks.'
  head = 'pred_head.projections.0' if slowfast else 'decoder_pred'
  model, unknown = _encoder(shapes)
  decoder, more = decoder_fields(
    recipe,
    shapes['cls_token'][-1],
    shapes['mask_token'][-1],
    count(shapes, f'{blocks}{{i}}.norm1.weight'),
    shapes[f'{blocks}0.mlp.fc1.weight'][0],
  )
  if not slowfast and 'decoder_pos_embed' in shapes:
    decoder['decoder_positions'] = 'learned_1d'
  target_dim = shapes[f'{head}.weight'][0]
  _, channels, _, *sides = shapes['patch_embed.proj.weight']
  one = target_dim == channels * sides[0] * sides[1]
  frames_of_target = ('one' if slowfast else 'linspace') if one else 'all'
  return _described(
    recipe, model | decoder, unknown | more, target_dim, frames_of_target
  )


def _described(
  recipe: str,
  model: dict[str, Any],
  unknown: dict[str, str],
  target_dim: int | None,
  frames: str,
) -> Description:
  return Description(
    task='mae',
    model={'recipe': recipe, **model},
    preprocess=MAE_ST,
    mask={'kind': 'random', 'ratio': 0.9, 'rounding': 'visible_down'},
    target={
      'normalise': 'patch',
      'frames': frames,
      'epsilon': 1e-6 * 0.225**2,
    },
    target_dim=target_dim,
    unknown=unknown,
  )


def _encoder_only(shapes: Shapes, config: HubConfig) -> Description:
  del config
  return _described('mae_st', *_encoder(shapes), None, 'linspace')


def _classifier(shapes: Shapes, config: HubConfig) -> Description:
  del config
  model, unknown = _encoder(shapes)
  head = 'head' if 'head.weight' in shapes else 'head.projection'
  return Description(
    task='classify',
    model={
      'recipe': 'mae_st',
      **model,
      'num_classes': shapes[f'{head}.weight'][0],
    },
    preprocess=MAE_ST,
    unknown=unknown,
  )


_OURS = ('patch_embed.proj.weight', 'blocks.0.attn.q.weight')

FAMILIES = (
  Family(
    name='MAE-ST, pretraining',
    table=(*_ENCODER, *_DECODER),
    marks=(*_OURS, 'decoder_embed.weight', 'decoder_pred.weight'),
    describe=_pretraining,
  ),
  Family(
    name='MAE-ST of PySlowFast, pretraining',
    table=(*_ENCODER, *_SLOWFAST_DECODER),
    marks=(*_OURS, _FIRST),
    describe=_pretraining,
  ),
  Family(
    name='MAE-ST, classifier',
    table=(*_ENCODER, *linear('head/label', 'head')),
    marks=(*_OURS, 'head.weight'),
    describe=_classifier,
  ),
  Family(
    name='MAE-ST of PySlowFast, classifier',
    table=(*_ENCODER, *linear('head/label', 'head.projection')),
    marks=(*_OURS, 'head.projection.weight'),
    describe=_classifier,
  ),
  Family(
    name='MAE-ST, encoder',
    table=_ENCODER,
    marks=_OURS,
    absent=('mask_token',),
    describe=_encoder_only,
  ),
)
