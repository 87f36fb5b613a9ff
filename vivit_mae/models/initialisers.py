"""How parameters start: one table of named choices."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

Initialiser = Callable[..., Any]

XAVIER: Initialiser = nn.initializers.xavier_uniform()
# Torch's trunc_normal_ of this deviation cuts at +-2, far outside.
NORMAL: Initialiser = nn.initializers.normal(0.02)
ZEROS: Initialiser = nn.initializers.zeros


@dataclasses.dataclass(frozen=True)
class Init:
  """The initial distributions of a transformer.

  Attributes:
    qkv: of the fused kernel of queries, keys and values, `[d, 3d]`.
    linear: of all other kernels of the blocks.
    embedding: given the pixels of a tubelet, of the kernel that embeds it.
    embedding_bias: given the pixels of a tubelet, of the bias beside it.
    bridge: given the encoder's width, of the kernel from it to the decoder.
    positions: of learned positions.
    class_token: of the encoder's class token; the decoder's starts at zero.
    mask_token: of the mask token.
    bias: of the biases in the encoder's blocks.
    norm_bias: of the biases of the encoder's norms.
    decoder: whose distributions the decoder has; '' for the same.
  """

  qkv: Initialiser
  linear: Initialiser
  embedding: Callable[[int], Initialiser]
  embedding_bias: Callable[[int], Initialiser]
  bridge: Callable[[int], Initialiser]
  positions: Initialiser = NORMAL
  class_token: Initialiser = ZEROS
  mask_token: Initialiser = NORMAL
  bias: Initialiser = ZEROS
  norm_bias: Initialiser = ZEROS
  decoder: str = ''


def uniform(bound: float) -> Initialiser:
  """Uniform in +-bound: what torch leaves in a layer by default."""

  def init(
    rng: Key[Array, ''], shape: Any, dtype: Any = jnp.float32
  ) -> Float[Array, '...']:
    return jax.random.uniform(rng, shape, dtype, -bound, bound)

  return init


def _split_xavier(
  rng: Key[Array, ''], shape: Any, dtype: Any = jnp.float32
) -> Float[Array, 'd c']:
  """Xavier uniform over each third of a fused kernel by itself."""
  width, fused = shape
  thirds = [
    XAVIER(key, (width, fused // 3), dtype) for key in jax.random.split(rng, 3)
  ]
  return jnp.concatenate(thirds, axis=1)


def _torch_default(inputs: int) -> Initialiser:
  return uniform(inputs**-0.5)


def _always(init: Initialiser) -> Callable[[int], Initialiser]:
  return lambda inputs: init


def _flattened(
  make: Callable[[], Initialiser],
) -> Callable[[int], Initialiser]:
  """A distribution for the kernel that embeds a tubelet as a matrix."""

  def of(pixels: int) -> Initialiser:
    def init(
      rng: Key[Array, ''], shape: Any, dtype: Any = jnp.float32
    ) -> Float[Array, '...']:
      return make()(rng, (pixels, shape[-1]), dtype).reshape(shape)

    return init

  return of


def _cut_normal(
  rng: Key[Array, ''], shape: Any, dtype: Any = jnp.float32
) -> Float[Array, '...']:
  """A normal of deviation .02, cut at one deviation."""
  return 0.02 * jax.random.truncated_normal(rng, -1.0, 1.0, shape, dtype)


INITS = {
  # VideoMAE, modeling_pretrain.py: Xavier over the fused kernel, so that it is
  # bound by sqrt(6 / 4d), and torch's defaults of convolution and bridge.
  'videomae': Init(
    qkv=XAVIER,
    linear=XAVIER,
    embedding=_torch_default,
    embedding_bias=_torch_default,
    bridge=_torch_default,
    mask_token=_cut_normal,
  ),
  # VideoMAE, modeling_finetune.py.
  'videomae_finetune': Init(
    qkv=NORMAL,
    linear=NORMAL,
    embedding=_torch_default,
    embedding_bias=_torch_default,
    bridge=_always(NORMAL),
  ),
  # MAE-ST, models_mae.py; He et al.'s MAE is the same.
  'mae_st': Init(
    qkv=_split_xavier,
    linear=XAVIER,
    embedding=_flattened(nn.initializers.xavier_uniform),
    embedding_bias=_torch_default,
    bridge=_always(XAVIER),
    class_token=NORMAL,
  ),
  # PySlowFast, video_model_builder.py and head_helper.py.
  'pyslowfast': Init(
    qkv=NORMAL,
    linear=NORMAL,
    embedding=_always(NORMAL),
    embedding_bias=_torch_default,
    bridge=_always(NORMAL),
    class_token=NORMAL,
    bias=nn.initializers.constant(0.02),
    norm_bias=nn.initializers.constant(0.02),
    decoder='videomae_finetune',
  ),
  # Scenic, projects/vivit/model.py.
  'vivit': Init(
    qkv=_split_xavier,
    linear=XAVIER,
    embedding=_flattened(nn.initializers.lecun_normal),
    embedding_bias=_always(ZEROS),
    bridge=_always(XAVIER),
  ),
}
