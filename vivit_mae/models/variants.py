"""Named sizes: `build('B/16x2')`, `build_classifier('B/16x2', 400)`."""

import dataclasses
import difflib
import re
from typing import Any

import flax.linen as nn

from vivit_mae.models import heads, layers, tubelets, video_mae, vivit


@dataclasses.dataclass(frozen=True)
class Size:
  """Dimensions of an encoder or a decoder."""

  width: int
  depth: int
  heads: int
  mlp_dim: int


# S to H: VideoMAE; g: VideoMAE V2; Ti: DeiT.
SIZES = {
  'Ti': Size(192, 12, 3, 768),
  'S': Size(384, 12, 6, 1536),
  'B': Size(768, 12, 12, 3072),
  'L': Size(1024, 24, 16, 4096),
  'H': Size(1280, 32, 16, 5120),
  'g': Size(1408, 40, 16, 6144),
}

# The published decoders, of VideoMAE (depths of its scripts), VideoMAE V2,
# MAE-ST (depth of its recipes), the PySlowFast models that its released
# weights are, and MAE. Sizes that were never published continue the rule of
# their neighbours: half the encoder's width, or the one decoder of all.
DECODERS = {
  'videomae': {
    'Ti': Size(96, 4, 3, 384),
    'S': Size(192, 4, 3, 768),
    'B': Size(384, 4, 6, 1536),
    'L': Size(512, 12, 8, 2048),
    'H': Size(640, 12, 8, 2560),
    'g': Size(704, 12, 8, 3072),
  },
  'videomae_v2': {
    'Ti': Size(96, 4, 3, 384),
    'S': Size(192, 4, 3, 768),
    'B': Size(384, 4, 6, 1536),
    'L': Size(512, 4, 8, 2048),
    'H': Size(512, 4, 8, 2048),
    'g': Size(512, 4, 8, 2234),
  },
  'mae_st': dict.fromkeys(SIZES, Size(512, 4, 16, 2048)),
  'pyslowfast': dict.fromkeys(SIZES, Size(512, 4, 8, 2048)),
  'image_mae': dict.fromkeys(SIZES, Size(512, 8, 16, 2048)),
}

_MAE_ST: dict[str, Any] = {
  'positions': 'separable',
  'class_token': 'before_positions',
  'qkv_bias': 'qkv',
  'initialisation': 'mae_st',
}

# The masked autoencoders beside their decoders: VideoMAE (modeling_pretrain.py
# of both versions), MAE-ST (models_mae.py), the model of PySlowFast that its
# released weights were trained with (masked.py), and MAE for images
# (models_mae.py), which takes clips of one tubelet along time.
PRETRAINING: dict[str, dict[str, Any]] = {
  'videomae': {},
  'videomae_v2': {},
  'mae_st': {
    **_MAE_ST,
    'decoder_positions': 'separable',
    'decoder_class_token': 'own',
    'bridge_bias': True,
  },
  'pyslowfast': {
    **_MAE_ST,
    'decoder_positions': 'learned_1d',
    'decoder_class_token': 'encoder',
    'bridge_bias': True,
    'initialisation': 'pyslowfast',
  },
  'image_mae': {
    **_MAE_ST,
    'positions': 'sincos_2d',
    'class_token': 'after_positions',
    'decoder_positions': 'sincos_2d',
    'decoder_class_token': 'encoder',
    'bridge_bias': True,
  },
}

# The classifiers of VideoMAE (modeling_finetune.py and its scripts), of MAE-ST
# (models_vit.py and main_finetune.py) and of ViViT (Scenic, projects/vivit).
PRESETS: dict[str, dict[str, Any]] = {
  'videomae': {
    'positions': 'sincos_1d',
    'class_token': 'none',
    'pooling': 'mean',
    'norm': 'after_pooling',
    'qkv_bias': 'qv',
    'gelu': 'erf',
    'initialisation': 'videomae_finetune',
    'head_init_scale': 0.001,
  },
  'mae_st': {
    **_MAE_ST,
    'pooling': 'mean',
    'norm': 'deferred',
    'gelu': 'erf',
    'head_init_scale': 0.001,
  },
  'vivit': {
    'num_frames': 32,
    'positions': 'learned_1d',
    'class_token': 'before_positions',
    'pooling': 'token',
    'norm': 'before_pooling',
    'qkv_bias': 'qkv',
    'gelu': 'tanh',
    'initialisation': 'vivit',
    'head_init_scale': 0.0,
  },
}

_VARIANT = re.compile(r'(?P<size>[A-Za-z]+)/(?P<patch>\d+)x(?P<frames>\d+)')


def parse(variant: str) -> tuple[str, tubelets.Tubelet]:
  """Splits the name of a variant.

  Args:
    variant: size, patch size in pixels and frames of a tubelet: 'B/16x2'.

  Returns:
    The name of the size, and frames, height and width of a tubelet.

  Raises:
    ValueError: the name has another form, or the size is unknown.
  """
  match = _VARIANT.fullmatch(variant)
  if match is None:
    raise ValueError(
      f'variant {variant!r} does not read <size>/<patch>x<frames>, such as '
      f"'B/16x2'; the sizes are {tuple(SIZES)}."
    )
  layers.check_choice(f'size of the variant {variant!r},', match['size'], SIZES)
  patch = int(match['patch'])
  return match['size'], (int(match['frames']), patch, patch)


def build(
  variant: str, *, recipe: str = 'videomae', **overrides: Any
) -> video_mae.VideoMAE:
  """Builds a masked autoencoder of a named size.

  Args:
    variant: size, patch size and tubelet length, see `parse`.
    recipe: whose masked autoencoder, one of `PRETRAINING`.
    **overrides: fields of `VideoMAE` that differ from the variant's, or from
      16 RGB frames of 224 x 224 pixels. None leaves a field as it is.

  Returns:
    The model.

  Raises:
    ValueError: an unknown name, or fields that do not fit together.
  """
  size_name, tubelet = parse(variant)
  layers.check_choice('recipe', recipe, PRETRAINING)
  decoder_size = DECODERS[recipe][size_name]
  decoder_fields = {
    f'decoder_{name}': value
    for name, value in dataclasses.asdict(decoder_size).items()
  }
  fields = {
    **_encoder_fields(size_name, tubelet),
    **PRETRAINING[recipe],
    **decoder_fields,
  }
  model = video_mae.VideoMAE(**_override(video_mae.VideoMAE, fields, overrides))
  model.check()
  return model


def build_classifier(
  variant: str,
  num_classes: heads.Classes,
  *,
  recipe: str = 'videomae',
  **overrides: Any,
) -> vivit.ViViT:
  """Builds a classifier of a named size.

  Args:
    variant: size, patch size and tubelet length, see `parse`.
    num_classes: number of classes, or pairs of a head's name and its number.
    recipe: whose classifier, one of `PRESETS`. Where the factorisation has no
      place for a class token, that of ViViT pools by the mean.
    **overrides: fields of `ViViT` that differ from the recipe's. None leaves a
      field as it is.

  Returns:
    The model.

  Raises:
    ValueError: an unknown name, or fields that do not fit together.
  """
  size_name, tubelet = parse(variant)
  layers.check_choice('recipe', recipe, PRESETS)
  preset = dict(PRESETS[recipe])
  if overrides.get('factorisation') in ('self_attention', 'dot_product'):
    preset['class_token'] = 'none'
    preset['pooling'] = 'mean'
  fields = {
    **_encoder_fields(size_name, tubelet),
    **preset,
    'num_classes': num_classes,
  }
  model = vivit.ViViT(**_override(vivit.ViViT, fields, overrides))
  model.check()
  return model


def _encoder_fields(size: str, tubelet: tubelets.Tubelet) -> dict[str, Any]:
  return {
    'image_size': (224, 224),
    'num_frames': 16,
    'tubelet': tubelet,
    'channels': 3,
    **dataclasses.asdict(SIZES[size]),
  }


def _override(
  model: type[nn.Module], fields: dict[str, Any], overrides: dict[str, Any]
) -> dict[str, Any]:
  """The fields with those of the overrides that are not None put in."""
  known = [
    field.name
    for field in dataclasses.fields(model)
    if field.name not in ('parent', 'name')
  ]
  fields = dict(fields)
  for name, value in overrides.items():
    if name not in known:
      nearest = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
      raise ValueError(
        f'{model.__name__} has no field {name!r}; did you mean {nearest!r}?'
      )
    if value is not None:
      fields[name] = tuple(value) if isinstance(value, list) else value
  return fields
