"""config.json and preprocessor_config.json of Hugging Face's transformers.

transformers, models/videomae/configuration_videomae.py and models/vivit's, and
the image and video processors beside them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from vivit_mae.convert.family import IMAGENET, HubConfig
from vivit_mae.models import norms, video_mae, vivit

Model = video_mae.VideoMAE | vivit.ViViT
Statistics = Mapping[str, Sequence[float]]

_GELUS = {
  'gelu': 'erf',
  'gelu_fast': 'tanh',
  'gelu_new': 'tanh',
  'gelu_pytorch_tanh': 'tanh',
}
_ACTIVATIONS = {'erf': 'gelu', 'tanh': 'gelu_fast'}
_TARGETS = {'channel': True, 'none': False}
_BILINEAR = 2


def fields(config: HubConfig) -> dict[str, Any]:
  """Fields of a model that only its config.json tells.

  Args:
    config: What the file holds, or None.

  Returns:
    Heads, frames, image size and GELU, each where it is told.

  Raises:
    ValueError: An activation that is no GELU, or an image size that is
      neither a number nor two.
  """
  config = config or {}
  told: dict[str, Any] = {
    ours: config[theirs]
    for ours, theirs in (
      ('heads', 'num_attention_heads'),
      ('num_frames', 'num_frames'),
    )
    if theirs in config
  }
  size = config.get('image_size')
  if isinstance(size, int):
    told['image_size'] = (size, size)
  elif isinstance(size, list) and len(size) == 2:
    told['image_size'] = tuple(size)
  elif size is not None:
    raise ValueError(
      f'image_size in config.json is {size!r}; one number, or height and '
      'width, would do.'
    )
  activation = config.get('hidden_act')
  if activation is not None:
    if activation not in _GELUS:
      raise ValueError(
        f'hidden_act in config.json is {activation!r}, which no model here '
        f'has; one of {", ".join(_GELUS)} would do.'
      )
    told['gelu'] = _GELUS[activation]
  return told


def of_videomae(model: Any) -> dict[str, Any]:
  """The config.json of a VideoMAE, but for classes and loss.

  Args:
    model: A `VideoMAE`, or a `ViViT` that is a classifier of one.
  """
  pretraining = isinstance(model, video_mae.VideoMAE)
  config = _of_both(model) | {
    'model_type': 'videomae',
    'architectures': [
      'VideoMAEForPreTraining'
      if pretraining
      else 'VideoMAEForVideoClassification'
    ],
    'patch_size': model.tubelet[1],
    'tubelet_size': model.tubelet[0],
    'use_mean_pooling': not pretraining and model.norm == 'after_pooling',
  }
  if pretraining:
    config |= {
      'decoder_hidden_size': model.decoder_width,
      'decoder_num_hidden_layers': model.decoder_depth,
      'decoder_num_attention_heads': model.decoder_heads,
      'decoder_intermediate_size': model.decoder_mlp_dim,
    }
  return config


def of_vivit(model: vivit.ViViT) -> dict[str, Any]:
  """The config.json of a ViViT, but for the classes."""
  return _of_both(model) | {
    'model_type': 'vivit',
    'architectures': ['VivitForVideoClassification'],
    'tubelet_size': list(model.tubelet),
  }


def _of_both(model: Model) -> dict[str, Any]:
  height, width = model.image_size
  return {
    'image_size': height if height == width else [height, width],
    'num_frames': model.num_frames,
    'num_channels': model.channels,
    'hidden_size': model.width,
    'num_hidden_layers': model.depth,
    'num_attention_heads': model.heads,
    'intermediate_size': model.mlp_dim,
    'hidden_act': _ACTIVATIONS[model.gelu],
    'hidden_dropout_prob': 0.0,
    'attention_probs_dropout_prob': 0.0,
    'layer_norm_eps': norms.EPSILONS[model.epsilons].encoder,
    # The name in every version; the newest also know qv_bias.
    'qkv_bias': model.qkv_bias != 'none',
    'dtype': 'float32',
  }


def of_classes(
  num_classes: int, class_names: Sequence[str] | None
) -> dict[str, Any]:
  """What config.json says of the classes.

  Args:
    num_classes: How many there are.
    class_names: Their names in the order of the head, or None.

  Raises:
    ValueError: There are more or fewer names than classes, or a name twice.
  """
  if class_names is None:
    # As transformers calls them; readers take it for no names.
    class_names = [f'LABEL_{i}' for i in range(num_classes)]
  if len(class_names) != num_classes or len(set(class_names)) != num_classes:
    raise ValueError(
      f'There are {len(class_names)} class_names, {len(set(class_names))} of '
      f'them different, and the model has {num_classes} classes.'
    )
  return {
    'id2label': {str(i): name for i, name in enumerate(class_names)},
    'label2id': {name: i for i, name in enumerate(class_names)},
  }


def of_loss(target_normalise: str, preprocess: Statistics) -> dict[str, Any]:
  """What config.json says of the target in pretraining.

  Args:
    target_normalise: See `targets.PixelTarget.normalise`.
    preprocess: 'mean' and 'std' of the pixels.

  Raises:
    ValueError: The loss of transformers is another.
  """
  if target_normalise not in _TARGETS:
    raise ValueError(
      "The loss of transformers' VideoMAE cannot express target_normalise "
      f'{target_normalise!r}; one of {tuple(_TARGETS)} would do.'
    )
  imagenet = all(
    tuple(preprocess[name]) == value for name, value in IMAGENET.items()
  )
  if target_normalise == 'none' and not imagenet:
    raise ValueError(
      "The loss of transformers' VideoMAE takes back ImageNet's statistics of "
      'pixels, whatever theirs are: where these are others, as here, only '
      "target_normalise 'channel' will do, not 'none'."
    )
  return {'norm_pix_loss': _TARGETS[target_normalise]}


def preprocessor(
  image_size: tuple[int, int], preprocess: Statistics, model_type: str
) -> dict[str, Any]:
  """The preprocessor_config.json: short side, central crop and statistics.

  Args:
    image_size: Height and width of a clip in pixels.
    preprocess: 'mean' and 'std' of the pixels in [0, 1].
    model_type: That of config.json, 'videomae' or 'vivit'.
  """
  mean, std = (list(map(float, preprocess[name])) for name in ('mean', 'std'))
  height, width = image_size
  config: dict[str, Any] = {
    'do_resize': True,
    'size': {'shortest_edge': max(height, width)},
    'resample': _BILINEAR,
    'do_center_crop': True,
    'crop_size': {'height': height, 'width': width},
    'do_rescale': True,
    'do_normalize': True,
  }
  if model_type == 'vivit':
    # Its video processor brings pixels to [-1, 1] first, whatever `offset`
    # says; its image processor is told to do so too.
    return config | {
      'image_processor_type': 'VivitImageProcessor',
      'rescale_factor': 1 / 127.5,
      'offset': True,
      'image_mean': [2 * x - 1 for x in mean],
      'image_std': [2 * x for x in std],
    }
  return config | {
    'image_processor_type': 'VideoMAEImageProcessor',
    'rescale_factor': 1 / 255,
    'image_mean': mean,
    'image_std': std,
  }
