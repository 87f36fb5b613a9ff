"""The layer norm of the transformers, with a gradient that suits CPUs too.

XLA's CPU compiler works out the statistics of a row again for each of its
elements when it fuses the gradient of a norm. Here they are written out once.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vivit_mae.models import products

EPSILON = 1e-6


class Epsilons(NamedTuple):
  """What the norms of a model add to variances.

  Attributes:
    encoder: of the blocks, the decoder's too, and of the encoder's last norm.
    last: of the norms before the decoder's and the classifiers' linear layers.
  """

  encoder: float = EPSILON
  last: float = EPSILON


# Every published model, and the VideoMAE of Hugging Face's transformers, whose
# config has 1e-12 and which leaves torch's default in its last norms
# (modeling_videomae.py: decoder.norm, fc_norm).
EPSILONS = {
  'published': Epsilons(),
  'hugging_face': Epsilons(encoder=1e-12, last=1e-5),
}


class LayerNorm(nn.Module):
  """Layer norm over the last axis in float32.

  Parameters are named and start as those of `flax.linen.LayerNorm`.

  Attributes:
    bias_init: how the bias starts.
    epsilon: what is added to the variance.
  """

  bias_init: Any = nn.initializers.zeros
  epsilon: float = EPSILON

  @nn.compact
  def __call__(self, x: Float[Array, '*b d']) -> Float[Array, '*b d']:
    """Normalises each token; the result is float32."""
    width = x.shape[-1]
    scale = self.param('scale', nn.initializers.ones, (width,))
    bias = self.param('bias', self.bias_init, (width,))
    return _normalise(x.astype(jnp.float32), self.epsilon) * scale + bias


def _result(x: Float[Array, '*b d'], epsilon: float) -> Float[Array, '*b d']:
  return _forward(x, epsilon)[0]


def _forward(
  x: Float[Array, '*b d'], epsilon: float
) -> tuple[Float[Array, '*b d'], Any]:
  centred = x - jnp.mean(x, axis=-1, keepdims=True)
  variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
  scale = products.written_out(jax.lax.rsqrt(variance + epsilon))
  normalised = centred * scale
  return normalised, (normalised, scale)


def _backward(
  epsilon: float, residuals: Any, gradient: Float[Array, '*b d']
) -> tuple[Float[Array, '*b d']]:
  del epsilon  # what it does is in the scale
  normalised, scale = residuals
  along, mean = products.written_out(
    (
      jnp.mean(gradient * normalised, axis=-1, keepdims=True),
      jnp.mean(gradient, axis=-1, keepdims=True),
    )
  )
  return (scale * (gradient - mean - normalised * along),)


_normalise = jax.custom_vjp(_result, nondiff_argnums=(1,))
_normalise.defvjp(_forward, _backward)
