"""Scenic's masked autoencoders of video, and AV-MAE's with sound.

github.com/google-research/scenic, projects/av_mae: ViViTMaskedAutoencoder, the
classifier of its vivit.py, and those published, which are of sight and sound:
of the pretraining only the encoder of video is taken, of the classifiers (MBT)
the way of the frames, without the tokens by which they exchange with sound.

Their class token, if they have one, is without position. A file without a table
of positions had fixed ones: `sinusoidal_1d`, as in every config, rather than
`sinusoidal_3d`. Clips have 16 frames, of MBT 32. The decoder predicts pixels in
[-1, 1].
"""

from vivit_mae.convert import flax_vit, scenic
from vivit_mae.convert.family import (
  HALF,
  Description,
  Family,
  HubConfig,
  Shapes,
  decoder_fields,
  square,
)
from vivit_mae.convert.flax_vit import Fields, Unknown, dense, norm, stage
from vivit_mae.convert.rules import TABLE, TOKEN, Table, rule

_FIRST = f'Transformer/{scenic.FIRST_BLOCK}'
_FRAMES, _MBT_FRAMES = 16, 32


def _positions(ours: str, theirs: str) -> Table:
  return (
    rule(f'{ours}/position_embedding', f'{theirs}/pos_embedding', TABLE),
    rule(f'{ours}/position_space', f'{theirs}/pos_embedding_space', TABLE),
    rule(f'{ours}/position_time', f'{theirs}/pos_embedding_time', TABLE),
  )


_ENCODER: Table = (
  *scenic.EMBEDDING,
  rule('encoder/cls_token', 'cls', TOKEN),
  *_positions('encoder', 'posembed_input'),
  *stage('encoder', 'Transformer'),
)
_DECODER: Table = (
  *dense('bridge', 'decoder_projection'),
  rule('mask_token', 'mask_token', TOKEN),
  *_positions('decoder', 'posembed_decoder'),
  *stage('decoder', 'Decoder'),
  *dense('decoder/head', 'output_projection'),
)
_RGB: Table = (
  *dense('encoder/embedding', 'embedding_rgb', flax_vit.TUBELET),
  *_positions('encoder', 'posembed_input_rgb'),
  *stage('encoder', 'Transformer_rgb'),
)


def _kind(shapes: Shapes, table: str) -> str:
  """How tokens are told apart, by the tables of some name."""
  if f'{table}/pos_embedding' in shapes:
    return 'learned_1d'
  return (
    'separable' if f'{table}/pos_embedding_space' in shapes else 'sincos_1d'
  )


def _encoder(
  shapes: Shapes, of: str = '', frames: int = _FRAMES
) -> tuple[Fields, Unknown]:
  """The fields of an encoder whose modules' names end so."""
  if len(shapes[f'embedding{of}/kernel']) != 5:
    raise ValueError(
      f'embedding{of}/kernel is of images; of a model with these names only '
      'that of tubelets is read.'
    )
  fields, tubelet = flax_vit.encoder_sizes(
    shapes, f'Transformer{of}', f'embedding{of}'
  )
  table = f'posembed_input{of}'
  kind, unknown = _kind(shapes, table), {}
  fields |= {
    'num_frames': frames,
    'positions': kind,
    'class_token': 'after_positions' if 'cls' in shapes else 'none',
    'qkv_bias': 'qkv',
    'gelu': 'tanh',
    'initialisation': 'vivit',
  }
  step, _, patch = tubelet
  if kind == 'learned_1d':
    tokens = shapes[f'{table}/pos_embedding'][1]
    size, unknown = scenic.clip(tokens, tubelet, frames)
    fields |= size
  elif kind == 'separable':
    image, unknown = square(shapes[f'{table}/pos_embedding_space'][2], patch)
    fields |= image
    fields['num_frames'] = shapes[f'{table}/pos_embedding_time'][1] * step
  return fields, unknown


def _description(
  fields: Fields, unknown: Unknown, target_dim: int | None = None
) -> Description:
  return Description(
    task='mae',
    model={'recipe': 'videomae', **fields},
    preprocess=HALF,
    mask={'kind': 'random', 'ratio': 0.9},
    target={'normalise': 'none', 'frames': 'all'},
    target_dim=target_dim,
    unknown=unknown,
  )


def _pretraining(shapes: Shapes, config: HubConfig) -> Description:
  del config
  fields, unknown = _encoder(shapes)
  depth, heads, mlp_dim = flax_vit.stack_sizes(shapes, 'Decoder')
  width = shapes['mask_token'][-1]
  decoder, _ = decoder_fields(
    'videomae', shapes['embedding/kernel'][-1], width, depth, mlp_dim
  )
  kind = _kind(shapes, 'posembed_decoder')
  if 'cls' in shapes and kind != 'sincos_1d':
    raise ValueError(
      'The decoder has learned positions and a class token without one, which '
      'no model here has; with fixed positions or no class token it would do.'
    )
  fields |= decoder | {
    'decoder_heads': heads,
    'decoder_positions': kind,
    'bridge_bias': 'decoder_projection/bias' in shapes,
  }
  return _description(fields, unknown, shapes['output_projection/kernel'][-1])


def _with_sound(shapes: Shapes, config: HubConfig) -> Description:
  del config
  return _description(*_encoder(shapes, '_rgb'))


def _classifier(shapes: Shapes, config: HubConfig) -> Description:
  del config
  has_token = 'cls' in shapes
  is_behind = 'encoder_norm/scale' in shapes
  is_mbt = not has_token and not is_behind
  fields, unknown = _encoder(shapes, frames=_MBT_FRAMES if is_mbt else _FRAMES)
  fields |= scenic.pooled(has_token, 'after_positions')
  fields['norm'] = 'after_pooling' if is_behind else 'before_pooling'
  return scenic.classifier(shapes, fields, unknown)


FAMILIES = (
  Family(
    name='AV-MAE of Scenic, pretraining on video',
    table=(*_ENCODER, *_DECODER),
    marks=(
      'embedding/kernel',
      _FIRST,
      'Decoder/encoderblock_0/LayerNorm_0/scale',
      'mask_token',
      'output_projection/kernel',
    ),
    describe=_pretraining,
  ),
  Family(
    name='AV-MAE of Scenic, pretraining with sound, the encoder of video',
    table=_RGB,
    marks=('embedding_rgb/kernel', f'Transformer_rgb/{scenic.FIRST_BLOCK}'),
    describe=_with_sound,
    unused={
      '.*_spectrogram(/.*)?': 'of sound',
      'Transformer_concat/.*': 'for video and sound together',
      '(decoder_projection_rgb|Decoder(_rgb)?|output_projection_rgb)/.*|'
      'mask_token_rgb': 'the decoder of a pretraining with sound',
    },
  ),
  *scenic.classifiers(
    'AV-MAE of Scenic, classifier',
    (*_ENCODER, *norm('head/norm', 'encoder_norm')),
    ('embedding/kernel', _FIRST),
    _classifier,
    absent=(scenic.JOINT_TABLE, 'mask_token'),
    unused={
      '.*_spec(trogram)?(/.*)?': 'of sound',
      'bottleneck': 'for video and sound together',
    },
  ),
)
