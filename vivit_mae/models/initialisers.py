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


@dataclasses.dataclass(frozen=True)
class Init:
  """The initial distributions of a transformer.

  Attributes:
    qkv: of the fused kernel of queries, keys and values, `[d, 3d]`.
    linear: of all other kernels of the blocks.
    embedding: given the pixels of a tubelet, of the kernel that embeds it.
    embedding_bias: given the pixels of a tubelet, of the bias beside it.
  """

  qkv: Initialiser
  linear: Initialiser
  embedding: Callable[[int], Initialiser]
  embedding_bias: Callable[[int], Initialiser]


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


def _torch_convolution(pixels: int) -> Initialiser:
  return uniform(pixels**-0.5)


def _lecun(pixels: int) -> Initialiser:
  """LeCun normal of a convolution that sees each pixel once."""

  def init(
    rng: Key[Array, ''], shape: Any, dtype: Any = jnp.float32
  ) -> Float[Array, '...']:
    flat = nn.initializers.lecun_normal()(rng, (pixels, shape[-1]), dtype)
    return flat.reshape(shape)

  return init


INITS = {
  # VideoMAE, modeling_pretrain.py: Xavier over the fused kernel, so that it is
  # bound by sqrt(6 / 4d), and torch's default of the convolution.
  'videomae': Init(
    qkv=XAVIER,
    linear=XAVIER,
    embedding=_torch_convolution,
    embedding_bias=_torch_convolution,
  ),
  # VideoMAE, modeling_finetune.py; torch cuts the normal at +-2, far outside.
  'videomae_finetune': Init(
    qkv=nn.initializers.normal(0.02),
    linear=nn.initializers.normal(0.02),
    embedding=_torch_convolution,
    embedding_bias=_torch_convolution,
  ),
  # Scenic, projects/vivit/model.py.
  'vivit': Init(
    qkv=_split_xavier,
    linear=XAVIER,
    embedding=_lecun,
    embedding_bias=lambda pixels: nn.initializers.zeros,
  ),
}
