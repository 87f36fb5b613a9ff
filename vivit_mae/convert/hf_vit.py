"""Transformers for images by the names of Hugging Face's transformers.

transformers, models/vit and models/vit_mae: `ViTForImageClassification`,
`ViTModel` and `ViTMAEForPreTraining`. Layers are `encoder.layer.{i}` in
transformers 4 and in what is saved to this day, `layers.{i}` with `q_proj` and
`fc1` in a `state_dict` of later versions. The norms' eps is 1e-12 there, and
1e-6 where the weights were trained: `epsilons='hugging_face'` takes the former.
"""

from typing import Any

from vivit_mae.convert import hf_config, image_vit
from vivit_mae.convert.family import (
  HALF,
  IMAGENET,
  Description,
  Family,
  HubConfig,
  Shapes,
  count,
)
from vivit_mae.convert.hf_videomae import (
  EMBEDDING,
  PLAIN_BLOCK,
  QKV_BIASES,
)
from vivit_mae.convert.rules import (
  CONV2D,
  LINEARS,
  TABLE,
  TOKEN,
  Rule,
  Table,
  linear,
  norm,
  rule,
  under,
)

_LAYERS = ('encoder.layer.', 'layers.')
_DECODER_LAYERS = (
  'decoder.decoder_layers.',
  # What transformers 5.24 makes of it when it saves.
  'decoder.decoder_encoder.layer.',
)
_POSITIONS = 'embeddings.position_embeddings'
# The names that transformers 5 has in memory, of attention and MLP.
LATER: Table = (
  Rule(
    'attention/qkv/kernel',
    tuple(f'attention.{part}_proj.weight' for part in 'qkv'),
    LINEARS,
  ),
  *(
    rule(f'attention/{part}_bias', f'attention.{part}_proj.bias')
    for part in 'qkv'
  ),
  *linear('attention/proj', 'attention.o_proj'),
  *linear('mlp/fc1', 'mlp.fc1'),
  *linear('mlp/fc2', 'mlp.fc2'),
)

_BLOCK: Table = (*PLAIN_BLOCK, *QKV_BIASES, *LATER)


def _blocks(ours: str, layers: tuple[str, ...]) -> Table:
  return tuple(
    each
    for theirs in layers
    for each in under(f'{ours}/block_{{i}}/', f'{theirs}{{i}}.', _BLOCK)
  )


_ENCODER: Table = (
  rule('encoder/embedding/kernel', f'{EMBEDDING}.weight', CONV2D),
  rule('encoder/embedding/bias', f'{EMBEDDING}.bias'),
  rule('encoder/cls_token', 'embeddings.cls_token', TOKEN),
  *_blocks('encoder', _LAYERS),
  *norm('encoder/norm', 'layernorm'),
)
_DECODER: Table = (
  *linear('bridge', 'decoder.decoder_embed'),
  rule('mask_token', 'decoder.mask_token', TOKEN),
  *_blocks('decoder', _DECODER_LAYERS),
  *norm('decoder/norm', 'decoder.decoder_norm'),
  *linear('decoder/head', 'decoder.decoder_pred'),
)


def _layers(names: Any, choices: tuple[str, ...], prefix: str = '') -> str:
  """How the names of layers begin; '' where there are none."""
  found = (f'{prefix}{layers}' for layers in choices)
  return next(
    (each for each in found if f'{each}0.layernorm_before.weight' in names), ''
  )


def _depth_and_mlp(shapes: Shapes, layers: str) -> tuple[int, str]:
  mlp = f'{layers}0.mlp.fc1.weight'
  if mlp not in shapes:
    mlp = f'{layers}0.intermediate.dense.weight'
  return count(shapes, f'{layers}{{i}}.layernorm_before.weight'), mlp


def _fields(
  shapes: Shapes, config: HubConfig, prefix: str = ''
) -> tuple[image_vit.Fields, image_vit.Unknown]:
  depth, mlp = _depth_and_mlp(shapes, _layers(shapes, _LAYERS, prefix))
  fields, unknown, patch = image_vit.torch_sizes(
    shapes, f'{prefix}{EMBEDDING}.weight', mlp, depth
  )
  rows = shapes[f'{prefix}{_POSITIONS}'][1]
  told, more = image_vit.places(rows, True, patch)
  told |= hf_config.fields(config)
  unknown = {k: v for k, v in (unknown | more).items() if k not in told}
  return fields | told, unknown


def _classifier(shapes: Shapes, config: HubConfig) -> Description:
  fields, unknown = _fields(shapes, config, 'vit.')
  fields['num_classes'] = shapes['classifier.weight'][0]
  return image_vit.classifier(fields, unknown, HALF)


def _encoder(shapes: Shapes, config: HubConfig, *, fixed: bool) -> Description:
  statistics = IMAGENET if fixed else HALF
  return image_vit.autoencoder(
    *_fields(shapes, config), statistics, fixed=fixed
  )


def _mae(shapes: Shapes, config: HubConfig, *, fixed: bool) -> Description:
  fields, unknown = _fields(shapes, config, 'vit.')
  depth, mlp = _depth_and_mlp(shapes, _layers(shapes, _DECODER_LAYERS))
  told, more = image_vit.decoder(
    shapes, 'decoder.decoder_embed.weight', mlp, depth
  )
  config = config or {}
  if 'decoder_num_attention_heads' in config:
    told['decoder_heads'] = config['decoder_num_attention_heads']
    more = {}
  return image_vit.autoencoder(
    fields | told,
    unknown | more,
    IMAGENET,
    fixed=fixed,
    normalise='patch' if config.get('norm_pix_loss', True) else 'none',
    target_dim=shapes['decoder.decoder_pred.weight'][0],
  )


def _when(prefix: str) -> Any:
  is_of_images = image_vit.of_images(f'{prefix}{EMBEDDING}.weight')
  return lambda arrays: (
    is_of_images(arrays) and bool(_layers(arrays, _LAYERS, prefix))
  )


def _marks(prefix: str) -> tuple[str, ...]:
  return f'{prefix}{EMBEDDING}.weight', f'{prefix}embeddings.cls_token'


FAMILIES = (
  *image_vit.families(
    'MAE for images of Hugging Face',
    (*under('', 'vit.', _ENCODER), *_DECODER),
    {
      image_vit.ENCODER_TABLE: f'vit.{_POSITIONS}',
      image_vit.DECODER_TABLE: 'decoder.decoder_pos_embed',
    },
    (*_marks('vit.'), 'decoder.decoder_pred.weight'),
    _mae,
    when=_when('vit.'),
  ),
  Family(
    name='ViT of Hugging Face, classifier',
    table=(
      *under('', 'vit.', _ENCODER),
      rule(image_vit.ENCODER_TABLE, f'vit.{_POSITIONS}', TABLE),
      *linear('head/label', 'classifier'),
    ),
    marks=(*_marks('vit.'), f'vit.{_POSITIONS}', 'classifier.weight'),
    describe=_classifier,
    when=_when('vit.'),
    unused={r'vit\.pooler\..*': 'no classifier reads the pooler'},
  ),
  *image_vit.families(
    'ViT of Hugging Face, encoder',
    _ENCODER,
    {image_vit.ENCODER_TABLE: _POSITIONS},
    _marks(''),
    _encoder,
    when=_when(''),
    unused={r'pooler\..*': 'no classifier reads the pooler'},
  ),
)
