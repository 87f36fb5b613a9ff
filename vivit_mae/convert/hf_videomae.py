"""VideoMAE by the names of Hugging Face's transformers.

transformers, models/videomae/modeling_videomae.py: `VideoMAEForPreTraining`,
`VideoMAEForVideoClassification` and `VideoMAEModel`. Biases of queries and
values are `q_bias` and `v_bias` in transformers 4 and to 5.4, in what
`save_pretrained` of 5.20 and later writes, and on the hub; 5.6 to 5.16 write
`query.bias`, `key.bias` and `value.bias`, and so does a `state_dict` of later
versions, but for the keys.

Heads, clip and decoder are those of `config.json`. Its epsilons of norms are
not those that the models were trained with: `epsilons='hugging_face'` takes
them. Nor are the statistics of pixels in `preprocessor_config.json` (.5 where
the conversion script has written it): the models were trained with ImageNet's.
"""

from collections.abc import Mapping
from typing import Any

from vivit_mae.convert import hf_config
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
  LINEARS,
  TOKEN,
  Rule,
  linear,
  norm,
  rule,
  under,
)

# The names of a ViT of transformers, but for the biases of the attention.
PLAIN_BLOCK = (
  *norm('norm1', 'layernorm_before'),
  Rule(
    'attention/qkv/kernel',
    tuple(
      f'attention.attention.{part}.weight' for part in ('query', 'key', 'value')
    ),
    LINEARS,
  ),
  *linear('attention/proj', 'attention.output.dense'),
  *norm('norm2', 'layernorm_after'),
  *linear('mlp/fc1', 'intermediate.dense'),
  *linear('mlp/fc2', 'output.dense'),
)
QKV_BIASES = (
  rule('attention/q_bias', 'attention.attention.query.bias'),
  rule('attention/k_bias', 'attention.attention.key.bias'),
  rule('attention/v_bias', 'attention.attention.value.bias'),
)
EMBEDDING = 'embeddings.patch_embeddings.projection'

# What is written has the first names.
_BLOCK = (
  *PLAIN_BLOCK,
  rule('attention/q_bias', 'attention.attention.q_bias'),
  rule('attention/v_bias', 'attention.attention.v_bias'),
  *QKV_BIASES,
)

_ENCODER = (
  rule('encoder/embedding/kernel', f'{EMBEDDING}.weight', CONV3D),
  rule('encoder/embedding/bias', f'{EMBEDDING}.bias'),
  *under('encoder/block_{i}/', 'encoder.layer.{i}.', _BLOCK),
  *norm('encoder/norm', 'layernorm'),
)

_DECODER = (
  rule('bridge/kernel', 'encoder_to_decoder.weight', LINEAR),
  rule('mask_token', 'mask_token', TOKEN),
  *under('decoder/block_{i}/', 'decoder.decoder_layers.{i}.', _BLOCK),
  *norm('decoder/norm', 'decoder.norm'),
  *linear('decoder/head', 'decoder.head'),
)

_SMALL = 384
_WRONG_HEADS = 16
_SMALL_NOTE = (
  f'config.json says {_WRONG_HEADS} heads, as it does by mistake with the '
  'published small models: their 6 are taken. What transformers itself has '
  f'trained with {_WRONG_HEADS} needs the field heads={_WRONG_HEADS}.'
)


def is_video(arrays: Mapping[str, Any], prefix: str = '') -> bool:
  """Whether the embedding is a Conv3d; that of an image model is a Conv2d."""
  return len(arrays[f'{prefix}{EMBEDDING}.weight'].shape) == 5


def _encoder(
  shapes: Shapes, config: HubConfig, prefix: str
) -> tuple[dict[str, Any], dict[str, str], tuple[str, ...]]:
  """Fields of the encoder, those that nothing tells, and notes."""
  width, _, frames, height, patch = shapes[f'{prefix}{EMBEDDING}.weight']
  layer = f'{prefix}encoder.layer.'
  fields, unknown = encoder_fields(
    width,
    count(shapes, f'{layer}{{i}}.layernorm_before.weight'),
    shapes[f'{layer}0.intermediate.dense.weight'][0],
    (frames, height, patch),
  )
  told = hf_config.fields(config)
  notes = ()
  if (width, told.get('heads')) == (_SMALL, _WRONG_HEADS) and not unknown:
    del told['heads']
    notes = (_SMALL_NOTE,)
  if f'{layer}0.attention.attention.key.bias' in shapes:
    told['qkv_bias'] = 'qkv'
  elif not {
    f'{layer}0.attention.attention.{name}' for name in ('q_bias', 'query.bias')
  }.intersection(shapes):
    told['qkv_bias'] = 'none'
  return fields | told, _without(unknown, told), notes


def _without(
  unknown: dict[str, str], told: Mapping[str, Any]
) -> dict[str, str]:
  return {name: why for name, why in unknown.items() if name not in told}


def _pretraining(shapes: Shapes, config: HubConfig) -> Description:
  model, unknown, notes = _encoder(shapes, config, 'videomae.')
  decoder, more = decoder_fields(
    'videomae',
    shapes['encoder_to_decoder.weight'][1],
    shapes['mask_token'][-1],
    count(shapes, 'decoder.decoder_layers.{i}.layernorm_before.weight'),
    shapes['decoder.decoder_layers.0.intermediate.dense.weight'][0],
  )
  if config and 'decoder_num_attention_heads' in config:
    decoder['decoder_heads'] = config['decoder_num_attention_heads']
  return _described(
    model | decoder,
    unknown | _without(more, decoder),
    notes,
    config,
    shapes['decoder.head.weight'][0],
  )


def _described(
  model: dict[str, Any],
  unknown: dict[str, str],
  notes: tuple[str, ...],
  config: HubConfig,
  target_dim: int | None = None,
) -> Description:
  normalised = (config or {}).get('norm_pix_loss', True)
  return Description(
    task='mae',
    model={'recipe': 'videomae', **model},
    preprocess=IMAGENET,
    mask={'kind': 'tube', 'ratio': 0.9},
    target={'normalise': 'channel' if normalised else 'none', 'frames': 'all'},
    target_dim=target_dim,
    unknown=unknown,
    notes=notes,
  )


def _encoder_only(shapes: Shapes, config: HubConfig) -> Description:
  prefix = '' if f'{EMBEDDING}.weight' in shapes else 'videomae.'
  return _described(*_encoder(shapes, config, prefix), config)


def _classifier(shapes: Shapes, config: HubConfig) -> Description:
  model, unknown, notes = _encoder(shapes, config, 'videomae.')
  model |= {
    'recipe': 'videomae',
    'num_classes': shapes['classifier.weight'][0],
  }
  if 'fc_norm.weight' not in shapes:
    # use_mean_pooling False: the first token, though it is no class token.
    model |= {'norm': 'before_pooling', 'pooling': 'first'}
  return Description(
    task='classify',
    model=model,
    preprocess=IMAGENET,
    unknown=unknown,
    notes=notes,
  )


PRETRAINING = Family(
  name='VideoMAE of Hugging Face, pretraining',
  table=(*under('', 'videomae.', _ENCODER), *_DECODER),
  marks=(f'videomae.{EMBEDDING}.weight', 'encoder_to_decoder.weight'),
  describe=_pretraining,
)
CLASSIFIER = Family(
  name='VideoMAE of Hugging Face, classifier',
  table=(
    *under('', 'videomae.', _ENCODER),
    *norm('head/norm', 'fc_norm'),
    *linear('head/label', 'classifier'),
  ),
  marks=(f'videomae.{EMBEDDING}.weight', 'classifier.weight'),
  describe=_classifier,
)
FAMILIES = (
  PRETRAINING,
  CLASSIFIER,
  *(
    Family(
      name='VideoMAE of Hugging Face, encoder',
      table=under('', prefix, _ENCODER),
      marks=(f'{prefix}{EMBEDDING}.weight',),
      absent=('embeddings.cls_token', 'mask_token'),
      describe=_encoder_only,
      when=lambda arrays, prefix=prefix: is_video(arrays, prefix),
    )
    for prefix in ('videomae.', '')
  ),
)
