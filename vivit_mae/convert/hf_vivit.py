"""ViViT by the names of Hugging Face's transformers.

transformers, models/vivit/modeling_vivit.py: `VivitForVideoClassification` and
`VivitModel`. Layers are `encoder.layer.{i}` with the names of its other ViTs in
transformers 4, in what `save_pretrained` writes to this day, and on the hub;
`layers.{i}` with `q_proj` and `fc1` in a `state_dict` of version 5.9 or later.
"""

from typing import Any

from vivit_mae.convert import hf_config
from vivit_mae.convert.family import (
  HALF,
  Description,
  Family,
  HubConfig,
  Shapes,
  count,
  encoder_fields,
  square,
)
from vivit_mae.convert.hf_videomae import (
  EMBEDDING,
  PLAIN_BLOCK,
  QKV_BIASES,
  is_video,
)
from vivit_mae.convert.hf_vit import LATER
from vivit_mae.convert.rules import (
  CONV3D,
  TABLE,
  TOKEN,
  linear,
  norm,
  rule,
  under,
)

_LATER_BLOCK = (
  *norm('norm1', 'layernorm_before'),
  *norm('norm2', 'layernorm_after'),
  *LATER,
)

# What is written has the first names.
_ENCODER = (
  rule('encoder/embedding/kernel', f'{EMBEDDING}.weight', CONV3D),
  rule('encoder/embedding/bias', f'{EMBEDDING}.bias'),
  rule('encoder/cls_token', 'embeddings.cls_token', TOKEN),
  rule('encoder/position_embedding', 'embeddings.position_embeddings', TABLE),
  *under(
    'encoder/block_{i}/', 'encoder.layer.{i}.', (*PLAIN_BLOCK, *QKV_BIASES)
  ),
  *under('encoder/block_{i}/', 'layers.{i}.', _LATER_BLOCK),
  *norm('encoder/norm', 'layernorm'),
)

_FRAMES = 32
_POOLER = {
  r'(vivit\.)?pooler\.dense\.(weight|bias)': 'no classifier reads the pooler'
}


def _encoder(
  shapes: Shapes, config: HubConfig, prefix: str
) -> tuple[dict[str, Any], dict[str, str]]:
  """Fields of the encoder, and those that nothing tells."""
  width, _, frames, height, patch = shapes[f'{prefix}{EMBEDDING}.weight']
  layer, mlp = f'{prefix}encoder.layer.', 'intermediate.dense'
  if f'{layer}0.layernorm_before.weight' not in shapes:
    layer, mlp = f'{prefix}layers.', 'mlp.fc1'
  fields, unknown = encoder_fields(
    width,
    count(shapes, f'{layer}{{i}}.layernorm_before.weight'),
    shapes[f'{layer}0.{mlp}.weight'][0],
    (frames, height, patch),
    _FRAMES,
  )
  told = hf_config.fields(config)
  if 'image_size' not in told:
    tokens = shapes[f'{prefix}embeddings.position_embeddings'][1] - 1
    num_frames = told.get('num_frames', _FRAMES)
    per_frame, rest = divmod(tokens * frames, num_frames)
    if rest:
      unknown['image_size'] = f'{tokens} tokens are not of {num_frames} frames'
    else:
      image, more = square(per_frame, patch)
      told |= image
      unknown |= more
  if not any(name.endswith(('query.bias', 'q_proj.bias')) for name in shapes):
    told['qkv_bias'] = 'none'
  unknown = {name: why for name, why in unknown.items() if name not in told}
  return fields | told, unknown


def _classifier(shapes: Shapes, config: HubConfig) -> Description:
  model, unknown = _encoder(shapes, config, 'vivit.')
  return Description(
    task='classify',
    model={
      'recipe': 'vivit',
      **model,
      'num_classes': shapes['classifier.weight'][0],
    },
    preprocess=HALF,
    unknown=unknown,
  )


def _encoder_only(shapes: Shapes, config: HubConfig) -> Description:
  prefix = '' if f'{EMBEDDING}.weight' in shapes else 'vivit.'
  model, unknown = _encoder(shapes, config, prefix)
  # As a masked autoencoder without its decoder, for the features.
  return Description(
    task='mae',
    model={
      'recipe': 'videomae',
      'positions': 'learned_1d',
      'class_token': 'before_positions',
      'qkv_bias': 'qkv',
      'gelu': 'tanh',
      **model,
    },
    preprocess=HALF,
    mask={'kind': 'tube', 'ratio': 0.9},
    target={'normalise': 'channel', 'frames': 'all'},
    unknown=unknown,
  )


CLASSIFIER = Family(
  name='ViViT of Hugging Face, classifier',
  table=(*under('', 'vivit.', _ENCODER), *linear('head/label', 'classifier')),
  marks=('vivit.embeddings.cls_token', 'classifier.weight'),
  describe=_classifier,
  unused=_POOLER,
)
FAMILIES = (
  CLASSIFIER,
  *(
    Family(
      name='ViViT of Hugging Face, encoder',
      table=under('', prefix, _ENCODER),
      marks=(
        f'{prefix}{EMBEDDING}.weight',
        f'{prefix}embeddings.cls_token',
        f'{prefix}embeddings.position_embeddings',
      ),
      describe=_encoder_only,
      unused=_POOLER,
      when=lambda arrays, prefix=prefix: is_video(arrays, prefix),
    )
    for prefix in ('vivit.', '')
  ),
)
