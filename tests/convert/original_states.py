"""Random state dicts of the published models, and clips for them.

Of the names and shapes of `original_shapes`; nothing is shared with the
library. Every value is float32.
"""

import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float32

from tests.convert import original_shapes, original_tables
from tests.convert.original_shapes import Sizes

State = dict[str, np.ndarray]


def random_state(
  shapes: Mapping[str, tuple[int, ...]], rng: np.random.Generator
) -> State:
  """Random values, float32, at which nothing is near its initial value.

  Linear maps about keep the size of what they map, norms' weights are about
  one, biases a third, tokens and positions a half; the logits' factors of
  cosine attention are about 10, but one head's of a first block is clamped.
  """
  return {name: _random(name, shape, rng) for name, shape in shapes.items()}


def videomae_pretrain_state(
  sizes: Sizes,
  rng: np.random.Generator,
  layer_scale: bool = False,
  cosine: bool = False,
) -> State:
  """Random values for `videomae_pretrain_shapes`."""
  return random_state(
    original_shapes.videomae_pretrain_shapes(sizes, layer_scale, cosine), rng
  )


def videomae_finetune_state(
  sizes: Sizes,
  rng: np.random.Generator,
  layer_scale: bool = False,
  cosine: bool = False,
  ava: bool = False,
) -> State:
  """Random values for `videomae_finetune_shapes`."""
  shapes = original_shapes.videomae_finetune_shapes(
    sizes, layer_scale, cosine, ava
  )
  return random_state(shapes, rng)


def mae_st_pretrain_state(
  sizes: Sizes,
  rng: np.random.Generator,
  separable: bool = True,
  predicted: int | None = None,
) -> State:
  """Random values for `mae_st_pretrain_shapes`."""
  return random_state(
    original_shapes.mae_st_pretrain_shapes(sizes, separable, predicted), rng
  )


def mae_st_finetune_state(
  sizes: Sizes, rng: np.random.Generator, separable: bool = True
) -> State:
  """Random values for `mae_st_finetune_shapes`."""
  return random_state(
    original_shapes.mae_st_finetune_shapes(sizes, separable), rng
  )


def pyslowfast_pretrain_state(sizes: Sizes, rng: np.random.Generator) -> State:
  """Random values for `pyslowfast_pretrain_shapes`."""
  return random_state(original_shapes.pyslowfast_pretrain_shapes(sizes), rng)


def pyslowfast_finetune_state(sizes: Sizes, rng: np.random.Generator) -> State:
  """Random values for `pyslowfast_finetune_shapes`."""
  return random_state(original_shapes.pyslowfast_finetune_shapes(sizes), rng)


def image_mae_pretrain_state(sizes: Sizes, rng: np.random.Generator) -> State:
  """Random values for `image_mae_pretrain_shapes`, but its fixed tables."""
  state = random_state(original_shapes.image_mae_pretrain_shapes(sizes), rng)
  widths = {
    'pos_embed': sizes.width,
    'decoder_pos_embed': sizes.decoder_width,
  }
  for name, width in widths.items():
    table = original_tables.sincos_2d(sizes.grid[1:], width)
    state[name] = table[None].astype(np.float32)
  return state


def timm_vit_state(sizes: Sizes, rng: np.random.Generator) -> State:
  """Random values for `timm_vit_shapes`."""
  return random_state(original_shapes.timm_vit_shapes(sizes), rng)


def random_video(
  sizes: Sizes, rng: np.random.Generator, batch: int = 2
) -> Float32[np.ndarray, 'b 3 t h w']:
  """Clips as the network sees them: normalised pixels, about normal."""
  shape = (batch, 3, sizes.frames, *sizes.image)
  return rng.standard_normal(shape, np.float32)


def _random(name, shape, rng):
  last = name.rpartition('.')[-1]
  noise = rng.standard_normal(shape)
  if name.endswith('attn.scale'):
    value = math.log(10) + 0.3 * noise
    if '.0.attn.' in name:
      value[0] = 5.0
  elif last.startswith('gamma_') or (last == 'weight' and len(shape) == 1):
    value = 1 + 0.3 * noise
  elif last == 'weight':
    value = noise / math.sqrt(math.prod(shape[1:]))
  elif len(shape) == 1:
    value = 0.3 * noise
  else:
    value = 0.5 * noise
  return value.astype(np.float32)
