"""VideoMAE and VideoMAE V2, by the names of their own repositories.

github.com/MCG-NJU/VideoMAE and OpenGVLab/VideoMAEv2, models/modeling_*.py: the
pretraining model, with its decoder or without, the classifier, and that of
action detection (MCG-NJU/VideoMAE-Action-Detection), whose head stands on
regions: here it classifies whole clips by the mean of the same tokens.
"""

from typing import Any

from vivit_mae.convert.family import (
  IMAGENET,
  Description,
  Family,
  HubConfig,
  Shapes,
  count,
  decoder_fields,
  encoder_fields,
)
from vivit_mae.convert.rules import (
  CONV3D,
  LINEAR,
  TOKEN,
  Rule,
  Transform,
  linear,
  norm,
  rule,
  under,
)

_PER_HEAD = Transform(lambda x: x.reshape(-1), lambda x: (x[:, None, None],))

_BLOCK = under(
  'block_{i}/',
  'blocks.{i}.',
  (
    *norm('norm1', 'norm1'),
    rule('attention/qkv/kernel', 'attn.qkv.weight', LINEAR),
    rule('attention/q_bias', 'attn.q_bias'),
    rule('attention/v_bias', 'attn.v_bias'),
    rule('attention/scale', 'attn.scale', _PER_HEAD),
    *linear('attention/proj', 'attn.proj'),
    rule('scale1/gamma', 'gamma_1'),
    *norm('norm2', 'norm2'),
    *linear('mlp/fc1', 'mlp.fc1'),
    *linear('mlp/fc2', 'mlp.fc2'),
    rule('scale2/gamma', 'gamma_2'),
  ),
)

_EMBEDDING = (
  rule('encoder/embedding/kernel', 'patch_embed.proj.weight', CONV3D),
  rule('encoder/embedding/bias', 'patch_embed.proj.bias'),
)

ENCODER: tuple[Rule, ...] = (
  *_EMBEDDING,
  *under('encoder/', '', _BLOCK),
  *norm('encoder/norm', 'norm'),
)

DECODER: tuple[Rule, ...] = (
  rule('bridge/kernel', 'encoder_to_decoder.weight', LINEAR),
  rule('mask_token', 'mask_token', TOKEN),
  *under('decoder/', 'decoder.', _BLOCK),
  *norm('decoder/norm', 'decoder.norm'),
  *linear('decoder/head', 'decoder.head'),
)

HEAD: tuple[Rule, ...] = (
  *norm('head/norm', 'fc_norm'),
  *linear('head/label', 'head'),
)


def _encoder(shapes: Shapes, prefix: str = '') -> tuple[dict, dict]:
  width, _, *tubelet = shapes[f'{prefix}patch_embed.proj.weight']
  frames, height, patch = tubelet
  fields, unknown = encoder_fields(
    width,
    count(shapes, f'{prefix}blocks.{{i}}.norm1.weight'),
    shapes[f'{prefix}blocks.0.mlp.fc1.weight'][0],
    (frames, height, patch),
  )
  if f'{prefix}blocks.0.gamma_1' in shapes:
    fields['layer_scale'] = 1e-5
  scale = shapes.get(f'{prefix}blocks.0.attn.scale')
  if scale:
    fields |= {'cosine_attention': True, 'heads': scale[0]}
    unknown.pop('heads', None)
  return fields, unknown


def _pretraining(shapes: Shapes, config: HubConfig) -> Description:
  del config
  model, unknown = _encoder(shapes, 'encoder.')
  sizes = (
    shapes['encoder.patch_embed.proj.weight'][0],
    shapes['mask_token'][-1],
    count(shapes, 'decoder.blocks.{i}.norm1.weight'),
    shapes['decoder.blocks.0.mlp.fc1.weight'][0],
  )
  decoder, more = decoder_fields('videomae', *sizes)
  if more:
    decoder, more = decoder_fields('videomae_v2', *sizes)
  scale = shapes.get('decoder.blocks.0.attn.scale')
  if scale:
    decoder['decoder_heads'], more = scale[0], {}
  return _described(
    model | decoder, unknown | more, shapes['decoder.head.weight'][0]
  )


def _described(
  model: dict[str, Any], unknown: dict[str, str], target_dim: int | None
) -> Description:
  return Description(
    task='mae',
    model={'recipe': 'videomae', **model},
    preprocess=IMAGENET,
    mask={'kind': 'tube', 'ratio': 0.9},
    target={'normalise': 'channel', 'frames': 'all'},
    target_dim=target_dim,
    unknown=unknown,
  )


def _encoder_only(shapes: Shapes, config: HubConfig) -> Description:
  del config
  return _described(*_encoder(shapes), None)


def _classifier(shapes: Shapes, config: HubConfig) -> Description:
  del config
  model, unknown = _encoder(shapes)
  model |= {
    'recipe': 'videomae',
    'num_classes': shapes['head.weight'][0],
    'norm': 'after_pooling' if 'fc_norm.weight' in shapes else 'before_pooling',
  }
  return Description(
    task='classify', model=model, preprocess=IMAGENET, unknown=unknown
  )


PRETRAINING = Family(
  name='VideoMAE, pretraining',
  table=(
    *under('encoder/', 'encoder.', _BLOCK),
    *under('', 'encoder.', _EMBEDDING),
    *norm('encoder/norm', 'encoder.norm'),
    *DECODER,
  ),
  marks=('encoder.patch_embed.proj.weight', 'encoder_to_decoder.weight'),
  describe=_pretraining,
)
CLASSIFIER = Family(
  name='VideoMAE, classifier',
  table=(*ENCODER, *HEAD),
  marks=('blocks.0.attn.q_bias', 'head.weight'),
  describe=_classifier,
)
ENCODER_ONLY = Family(
  name='VideoMAE, encoder',
  table=ENCODER,
  marks=('patch_embed.proj.weight', 'blocks.0.attn.q_bias'),
  absent=('head.weight', 'mask_token'),
  describe=_encoder_only,
)
FAMILIES = (PRETRAINING, CLASSIFIER, ENCODER_ONLY)
