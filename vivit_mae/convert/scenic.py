"""ViViT, models 1 to 4, by the names of Scenic's parameter trees.

github.com/google-research/scenic, projects/vivit, with `/` between the names.
All see pixels in [-1, 1], have the tanh GELU, and add positions to the class
token too.

What no file tells is as in the published configs: without a class token the
mean is pooled, and clips have 32 frames or images of 224 pixels where the
tokens fit both. Model 4 has the names of a model 1 without class token, and
model 3 the same in both orders of its attentions: there a field has to be
given. A model of one frame is the image model of projects/baselines.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from vivit_mae.convert import flax_vit
from vivit_mae.convert.family import (
  HALF,
  Description,
  Family,
  HubConfig,
  Shapes,
  square,
)
from vivit_mae.convert.flax_vit import Fields, Unknown, dense, norm, stage
from vivit_mae.convert.rules import TABLE, TOKEN, Table, Transform, rule
from vivit_mae.masking import Grid

# Epic-Kitchens has one head of nouns and verbs.
EPIC = (('noun', 300), ('verb', 97))
_NOUNS, _BOTH = EPIC[0][1], sum(number for _, number in EPIC)
_IMAGE, _FRAMES = 224, 32

_LOGITS = 'output_projection'
_SPACE, _TIME = 'SpatialTransformer', 'TemporalTransformer'
_TABLE = 'posembed_input/pos_embedding'
JOINT_TABLE = f'Transformer/{_TABLE}'
FIRST_BLOCK = 'encoderblock_0/LayerNorm_0/scale'
_FIRST_FACTORISED = 'Transformer/encoderblock_0/LayerNorm_space/scale'

EMBEDDING = dense('encoder/embedding', 'embedding', flax_vit.TUBELET)

_ONE_STAGE: Table = (
  *EMBEDDING,
  rule('encoder/cls_token', 'cls', TOKEN),
  rule('encoder/position_embedding', JOINT_TABLE, TABLE),
)
_JOINT: Table = (*_ONE_STAGE, *stage('encoder', 'Transformer'))
_FACTORISED: Table = (
  *_ONE_STAGE,
  *stage(
    'encoder',
    'Transformer',
    (
      *norm('norm_time', 'LayerNorm_time'),
      *flax_vit.attention(
        'attention_time', 'MultiHeadDotProductAttention_time'
      ),
      *norm('norm_space', 'LayerNorm_space'),
      *flax_vit.attention(
        'attention_space', 'MultiHeadDotProductAttention_space'
      ),
      *norm('norm2', 'LayerNorm_mlp'),
      *flax_vit.mlp('MlpBlock'),
    ),
  ),
)
_TWO_STAGES: Table = (
  *EMBEDDING,
  rule('encoder/spatial/cls_token', f'cls_{_SPACE}', TOKEN),
  rule('encoder/spatial/position_embedding', f'{_SPACE}/{_TABLE}', TABLE),
  *stage('encoder/spatial', _SPACE),
  rule('encoder/temporal/cls_token', f'cls_{_TIME}', TOKEN),
  rule('encoder/temporal/position_embedding', f'{_TIME}/{_TABLE}', TABLE),
  *stage('encoder/temporal', _TIME),
)

_NOUN = Transform(lambda x: x[..., :_NOUNS])
_VERB = Transform(lambda x: x[..., _NOUNS:])

_PRE_LOGITS = dense('head/pre_logits', 'pre_logits')
_HEAD: Table = (*_PRE_LOGITS, *dense('head/label', _LOGITS))
_EPIC_HEAD: Table = (
  *_PRE_LOGITS,
  rule('head/noun/kernel', f'{_LOGITS}/kernel', _NOUN),
  rule('head/noun/bias', f'{_LOGITS}/bias', _NOUN),
  rule('head/verb/kernel', f'{_LOGITS}/kernel', _VERB),
  rule('head/verb/bias', f'{_LOGITS}/bias', _VERB),
)


def _is_epic(arrays: Mapping[str, Any]) -> bool:
  return arrays[f'{_LOGITS}/kernel'].shape[-1] == _BOTH


def classifiers(
  name: str,
  table: Table,
  marks: tuple[str, ...],
  describe: Callable[[Shapes, HubConfig], Description],
  **fields: Any,
) -> tuple[Family, Family]:
  """Two families of one encoder: with Epic-Kitchens' head and any other.

  Args:
    name: See `Family`.
    table: Of the encoder.
    marks: Of the encoder.
    describe: See `Family`.
    **fields: Further ones of both.
  """
  marks = (*marks, f'{_LOGITS}/kernel')
  epic = Family(
    f'{name}, of nouns and verbs',
    (*table, *_EPIC_HEAD),
    marks,
    describe,
    when=_is_epic,
    **fields,
  )
  return epic, Family(name, (*table, *_HEAD), marks, describe, **fields)


def classifier(shapes: Shapes, fields: Fields, unknown: Unknown) -> Description:
  """The description of a classifier, of an encoder's fields."""
  model = {'recipe': 'vivit', **fields}
  model |= flax_vit.head_fields(shapes, _LOGITS)
  if model['num_classes'] == _BOTH:
    model['num_classes'] = EPIC
  return Description(
    task='classify', model=model, preprocess=HALF, unknown=unknown
  )


def pooled(has_token: bool, place: str) -> Fields:
  """The fields of a class token in its place, or of none."""
  if has_token:
    return {'class_token': place, 'pooling': 'token'}
  return {'class_token': 'none', 'pooling': 'mean'}


def clip(tokens: int, tubelet: Grid, frames: int) -> tuple[Fields, Unknown]:
  """The clips and square images that come to so many tokens.

  Args:
    tokens: Of a clip.
    tubelet: Frames, height and width of a tubelet.
    frames: Of a clip, if there can be so many; or else images are 224 wide.

  Returns:
    Frames and image size, or that nothing or several come to as many.
  """
  step, _, patch = tubelet
  found = set()
  for length in (frames // step, tokens // (_IMAGE // patch) ** 2):
    side = math.isqrt(tokens // length) if length else 0
    if length and side * side * length == tokens:
      found.add((length * step, side * patch))
  if len(found) == 1:
    ((frames, side),) = found
    return {'num_frames': frames, 'image_size': (side, side)}, {}
  why = f'{tokens} tokens leave it open'
  return {}, {'num_frames': why, 'image_size': why}


def _sampled(variant: str, length: int) -> tuple[Fields, Unknown]:
  """The fields of frames at equal distances, of 32 if they can be."""
  if length == 1:
    return {'num_frames': 1}, {}
  if _FRAMES % length:
    why = f'of how many frames {length} were taken'
    unknown = {'num_frames': why, 'variant': why}
    return {'embedding': 'uniform_frames'}, unknown
  return {
    'embedding': 'uniform_frames',
    'num_frames': _FRAMES,
    'variant': f'{variant.rpartition("x")[0]}x{_FRAMES // length}',
  }, {}


def _one_stage(shapes: Shapes, config: HubConfig) -> Description:
  """Models 1, 3 and 4."""
  del config
  fields, tubelet = flax_vit.encoder_sizes(shapes)
  has_token = 'cls' in shapes
  tokens = shapes[JOINT_TABLE][1] - int(has_token)
  is_frames = len(shapes['embedding/kernel']) == 4
  size, unknown = clip(tokens, tubelet, 1 if is_frames else _FRAMES)
  fields |= pooled(has_token, 'before_positions') | size
  if is_frames and unknown:
    fields['embedding'] = 'uniform_frames'
    unknown['variant'] = unknown['num_frames']
  elif is_frames:
    sampled, unknown = _sampled(fields['variant'], fields['num_frames'])
    fields |= sampled
  if _FIRST_FACTORISED in shapes:
    fields['factorisation'] = 'self_attention'
    unknown['attention_order'] = "'time_space' has the names of 'space_time'"
  elif not has_token and fields['num_frames'] > 1:
    unknown['factorisation'] = (
      "'none', model 1, has the names of 'dot_product', model 4"
    )
  return classifier(shapes, fields, unknown)


def _two_stages(shapes: Shapes, config: HubConfig) -> Description:
  """Model 2."""
  del config
  fields, (step, _, patch) = flax_vit.encoder_sizes(shapes, _SPACE)
  has_token = f'cls_{_SPACE}' in shapes
  places = shapes[f'{_SPACE}/{_TABLE}'][1] - int(has_token)
  image, unknown = square(places, patch)
  fields |= {'factorisation': 'encoder', **image}
  fields |= pooled(has_token, 'before_positions')
  length = _FRAMES // step
  if f'{_TIME}/{FIRST_BLOCK}' in shapes:
    length = shapes[f'{_TIME}/{_TABLE}'][1] - int(has_token)
    _, *of_space = flax_vit.stack_sizes(shapes, _SPACE)
    fields['temporal_depth'], *of_time = flax_vit.stack_sizes(shapes, _TIME)
    if of_time != of_space:
      raise ValueError(
        'The two encoders differ in heads and mlp_dim, as in no model here: '
        f'{of_space} over space, {of_time} over time.'
      )
  else:
    fields['spatial_only'] = True
  fields['num_frames'] = length * step
  if len(shapes['embedding/kernel']) == 4:
    sampled, more = _sampled(fields['variant'], length)
    fields, unknown = fields | sampled, unknown | more
  return classifier(shapes, fields, unknown)


FAMILIES = (
  *classifiers(
    'ViViT of Scenic, model 2',
    _TWO_STAGES,
    ('embedding/kernel', f'{_SPACE}/{FIRST_BLOCK}'),
    _two_stages,
  ),
  *classifiers(
    'ViViT of Scenic, model 3',
    _FACTORISED,
    ('embedding/kernel', JOINT_TABLE, _FIRST_FACTORISED),
    _one_stage,
  ),
  *classifiers(
    'ViViT of Scenic, model 1 or 4',
    _JOINT,
    ('embedding/kernel', JOINT_TABLE, f'Transformer/{FIRST_BLOCK}'),
    _one_stage,
  ),
)
