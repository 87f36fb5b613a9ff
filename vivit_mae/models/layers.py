"""The layers of transformers: linear maps, norms, attention and MLP.

Precision, here and in every model: parameters, norms, softmax and the residual
stream are float32; the matrix products run in the module's `dtype`, and so do
the activations between two of them.
"""

import functools
import math
from collections.abc import Collection

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from vivit_mae.models import (
  activations,
  factorised_attention,
  initialisers,
  norms,
  products,
)
from vivit_mae.models import attention as attention_lib
from vivit_mae.models.residual import dropout

DTYPES = ('float32', 'bfloat16')
QKV_BIASES = ('qv', 'qkv', 'none')


def check_choice(field: str, value: str, choices: Collection[str]) -> None:
  """Refuses a value that is not one of the choices.

  Raises:
    ValueError: naming the field and listing the choices.
  """
  if value not in choices:
    raise ValueError(
      f'{field} {value!r} is unknown: take one of {tuple(choices)}.'
    )


def linear(
  width: int,
  dtype: str,
  *,
  use_bias: bool = True,
  kernel_init: initialisers.Initialiser = initialisers.XAVIER,
  bias_init: initialisers.Initialiser = initialisers.ZEROS,
  name: str | None = None,
) -> nn.Dense:
  """A linear layer with float32 parameters and its product in `dtype`.

  The kernel starts Xavier uniform if nothing else is asked for, the bias at
  zero.
  """
  return nn.Dense(
    width,
    use_bias=use_bias,
    dtype=dtype,
    kernel_init=kernel_init,
    bias_init=bias_init,
    dot_general=products.dot_general,
    name=name,
  )


def layer_norm(
  name: str | None = None,
  bias_init: initialisers.Initialiser = initialisers.ZEROS,
  epsilon: float = norms.EPSILON,
) -> norms.LayerNorm:
  """A float32 layer norm."""
  return norms.LayerNorm(bias_init=bias_init, epsilon=epsilon, name=name)


class Attention(nn.Module):
  """Multi-head self-attention with a fused query-key-value product.

  Attributes:
    heads: number of heads.
    qkv_bias: 'qv' learns a bias of queries and values (VideoMAE; one of the
      keys would not change the softmax), 'qkv' of all three (ViT, MAE-ST),
      'none' of none.
    dtype: of the matrix products.
    implementation: a name in `attention.ATTENTIONS`.
    axis: along which axis tokens attend, a name in
      `factorised_attention.AXES`.
    frames: frames of a clip in tokens, where the axis is not 'joint'.
    initialisation: a name in `initialisers.INITS`.
    cosine: scores are the cosines of queries and keys times a learned factor
      for each head, at most 100 (VideoMAE V2, modeling_finetune.py, after Swin
      Transformer V2).
  """

  heads: int
  qkv_bias: str = 'qv'
  dtype: str = 'float32'
  implementation: str = 'auto'
  axis: str = 'joint'
  frames: int = 1
  initialisation: str = 'videomae'
  cosine: bool = False

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b n d'], last: int | None = None
  ) -> Float[Array, 'b m d']:
    """Lets the tokens of each row attend to each other.

    Args:
      x: tokens.
      last: how many tokens at the end are asked for; None for all.

    Returns:
      What these have attended to, in `dtype`.

    Raises:
      ValueError: an unknown choice, a width that the heads do not divide, only
        some tokens along an axis that is not 'joint', or see
        `factorised_attention.along`.
    """
    check_choice('qkv_bias', self.qkv_bias, QKV_BIASES)
    check_choice('attention', self.implementation, attention_lib.ATTENTIONS)
    check_choice('axis', self.axis, factorised_attention.AXES)
    check_choice('initialisation', self.initialisation, initialisers.INITS)
    init = initialisers.INITS[self.initialisation]
    rows, tokens, width = x.shape
    if width % self.heads:
      raise ValueError(
        f'width {width} is not a multiple of heads {self.heads}.'
      )
    if last is not None and self.axis != 'joint':
      raise ValueError(f'last {last} needs a joint axis, not {self.axis!r}.')
    qkv = linear(
      3 * width, self.dtype, use_bias=False, kernel_init=init.qkv, name='qkv'
    )(x)
    if self.qkv_bias != 'none':
      qkv += self._bias(width, init.bias).astype(qkv.dtype)
    query, key, value = jnp.unstack(
      qkv.reshape(rows, tokens, 3, self.heads, width // self.heads), axis=2
    )
    if last is not None:
      query = query[:, -last:]
    if self.cosine:
      query, key = self._on_sphere(query), self._on_sphere(key)
      query *= self._factor(query.shape[-1]).astype(query.dtype)
    attend = attention_lib.ATTENTIONS[self.implementation]
    attended = factorised_attention.along(
      self.axis, attend, self.frames, query, key, value
    ).reshape(rows, -1, width)
    proj = linear(
      width, self.dtype, kernel_init=init.linear, bias_init=init.bias,
      name='proj',
    )  # fmt: skip
    return proj(attended)

  def _bias(
    self, width: int, init: initialisers.Initialiser
  ) -> Float[Array, 'c']:
    """The bias of queries, keys and values in the kernel's order."""
    query = self.param('q_bias', init, (width,))
    if self.qkv_bias == 'qkv':
      key = self.param('k_bias', init, (width,))
    else:
      key = jnp.zeros((width,))
    value = self.param('v_bias', init, (width,))
    return jnp.concatenate([query, key, value])

  def _on_sphere(self, x: Float[Array, 'b n k h']) -> Float[Array, 'b n k h']:
    """Vectors of length one, worked out in float32."""
    exact = x.astype(jnp.float32)
    square = jnp.sum(jnp.square(exact), axis=-1, keepdims=True)
    # Guarded inside the root, where a zero vector has no gradient.
    return (exact * lax.rsqrt(jnp.maximum(square, 1e-24))).astype(x.dtype)

  def _factor(self, head_width: int) -> Float[Array, 'k 1']:
    """What cosines are multiplied by, but for the usual root of the width."""
    start = nn.initializers.constant(math.log(10.0))
    scale = self.param('scale', start, (self.heads,))
    factor = jnp.exp(jnp.minimum(scale, math.log(100.0)))
    return factor[:, None] * math.sqrt(head_width)


class Mlp(nn.Module):
  """Two linear layers with a GELU between.

  Attributes:
    hidden: width between the two layers.
    dtype: of the matrix products.
    gelu: 'erf' (exact: VideoMAE, MAE-ST) or 'tanh' (its approximation: ViViT).
    dropout: rate of the dropout behind the GELU.
    initialisation: a name in `initialisers.INITS`.
  """

  hidden: int
  dtype: str = 'float32'
  gelu: str = 'erf'
  dropout: float = 0.0
  initialisation: str = 'videomae'

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b n d'],
    row_keys: Key[Array, 'b'] | None = None,
  ) -> Float[Array, 'b n d']:
    """Transforms each token by itself.

    Args:
      x: tokens.
      row_keys: one key for each row for dropout; None drops nothing.

    Returns:
      The tokens, in `dtype`.

    Raises:
      ValueError: an unknown choice.
    """
    check_choice('gelu', self.gelu, activations.GELUS)
    check_choice('initialisation', self.initialisation, initialisers.INITS)
    init = initialisers.INITS[self.initialisation]
    width = x.shape[-1]
    layer = functools.partial(
      linear, dtype=self.dtype, kernel_init=init.linear, bias_init=init.bias
    )
    x = layer(self.hidden, name='fc1')(x)
    x = activations.GELUS[self.gelu](x)
    if self.dropout and row_keys is not None:
      x = dropout(x, self.dropout, row_keys)
    return layer(width, name='fc2')(x)
