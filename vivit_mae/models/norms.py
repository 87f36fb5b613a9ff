"""The layer norm of the transformers, with a gradient that suits CPUs too.

XLA's CPU compiler works out the statistics of a row again for each of its
elements when it fuses the gradient of a norm. Here they are written out once.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vivit_mae.models import products

_EPSILON = 1e-6


class LayerNorm(nn.Module):
  """Layer norm over the last axis: float32, eps 1e-6.

  Parameters are named and start as those of `flax.linen.LayerNorm`.

  Attributes:
    bias_init: how the bias starts.
  """

  bias_init: Any = nn.initializers.zeros

  @nn.compact
  def __call__(self, x: Float[Array, '*b d']) -> Float[Array, '*b d']:
    """Normalises each token; the result is float32."""
    width = x.shape[-1]
    scale = self.param('scale', nn.initializers.ones, (width,))
    bias = self.param('bias', self.bias_init, (width,))
    return _normalise(x.astype(jnp.float32)) * scale + bias


@jax.custom_vjp
def _normalise(x: Float[Array, '*b d']) -> Float[Array, '*b d']:
  return _forward(x)[0]


def _forward(x: Float[Array, '*b d']) -> tuple[Float[Array, '*b d'], Any]:
  centred = x - jnp.mean(x, axis=-1, keepdims=True)
  variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
  scale = products.written_out(jax.lax.rsqrt(variance + _EPSILON))
  normalised = centred * scale
  return normalised, (normalised, scale)


def _backward(
  residuals: Any, gradient: Float[Array, '*b d']
) -> tuple[Float[Array, '*b d']]:
  normalised, scale = residuals
  along, mean = products.written_out(
    (
      jnp.mean(gradient * normalised, axis=-1, keepdims=True),
      jnp.mean(gradient, axis=-1, keepdims=True),
    )
  )
  return (scale * (gradient - mean - normalised * along),)


_normalise.defvjp(_forward, _backward)
