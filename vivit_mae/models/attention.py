"""Scaled dot-product attention, in the ways that one or another device likes.

An implementation takes queries, keys and values and returns the heads'
outputs; which one is used changes speed and memory, never the result beyond
rounding. The softmax is float32 in all of them.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

# Queries of a block: their scores against 1,568 keys, 1.4 MB, stay in a core's
# second-level cache (measured on an AMD EPYC: 224 is best, 112 and 392 close).
_BLOCK = 256

_Saved = tuple[
  Float[Array, 'g i q h'],
  Float[Array, 'g n h'],
  Float[Array, 'g n h'],
  Float[Array, 'g i q h'],
  Float[Array, 'g i q'],
]


def _xla(
  query: Float[Array, 'b n k h'],
  key: Float[Array, 'b n k h'],
  value: Float[Array, 'b n k h'],
) -> Float[Array, 'b n k h']:
  return jax.nn.dot_product_attention(query, key, value, implementation='xla')


def _cudnn(
  query: Float[Array, 'b n k h'],
  key: Float[Array, 'b n k h'],
  value: Float[Array, 'b n k h'],
) -> Float[Array, 'b n k h']:
  return jax.nn.dot_product_attention(query, key, value, implementation='cudnn')


@jax.custom_vjp
def _blocked(
  query: Float[Array, 'b n k h'],
  key: Float[Array, 'b n k h'],
  value: Float[Array, 'b n k h'],
) -> Float[Array, 'b n k h']:
  """A block of queries of one head at a time, for caches.

  The backward pass computes the scores again (Dao et al., "FlashAttention",
  NeurIPS 2022, algorithm 4), so that no n x n array is ever in memory. All of
  it is float32, and there is no forward-mode derivative.
  """
  return _blocked_forward(query, key, value)[0]


def _blocked_forward(
  query: Float[Array, 'b n k h'],
  key: Float[Array, 'b n k h'],
  value: Float[Array, 'b n k h'],
) -> tuple[Float[Array, 'b n k h'], _Saved]:
  queries = _blocks(_heads(query) * query.shape[-1] ** -0.5)
  keys, values = _heads(key), _heads(value)

  def head(
    inputs: tuple[Array, Array, Array],
  ) -> tuple[Float[Array, 'i q h'], Float[Array, 'i q']]:
    queries, key, value = inputs

    def block(
      query: Float[Array, 'q h'],
    ) -> tuple[Float[Array, 'q h'], Float[Array, ' q']]:
      scores = query @ key.T
      top = scores.max(axis=-1, keepdims=True)
      weights = jnp.exp(scores - top)
      total = weights.sum(axis=-1, keepdims=True)
      return weights @ value / total, (top + jnp.log(total))[:, 0]

    return lax.map(block, queries)

  output, log_total = lax.map(head, (queries, keys, values))
  return (
    _unheads(_unblocks(output, keys.shape[1]), query),
    (queries, keys, values, output, log_total),
  )


def _blocked_backward(
  saved: _Saved, gradient: Float[Array, 'b n k h']
) -> tuple[
  Float[Array, 'b n k h'], Float[Array, 'b n k h'], Float[Array, 'b n k h']
]:
  queries, keys, values, output, log_total = saved
  gradients = _blocks(_heads(gradient))
  offsets = jnp.sum(gradients * output, axis=-1)

  def head(
    inputs: tuple[Array, Array, Array, Array, Array, Array],
  ) -> tuple[Float[Array, 'i q h'], Float[Array, 'n h'], Float[Array, 'n h']]:
    key, value, *blocks = inputs

    def block(
      sums: tuple[Array, Array], inputs: list[Array]
    ) -> tuple[tuple[Array, Array], Float[Array, 'q h']]:
      query, gradient, log_total, offset = inputs
      weights = jnp.exp(query @ key.T - log_total[:, None])
      scores = weights * (gradient @ value.T - offset[:, None])
      sums = (sums[0] + scores.T @ query, sums[1] + weights.T @ gradient)
      return sums, scores @ key

    zeros = (jnp.zeros_like(key), jnp.zeros_like(value))
    (d_key, d_value), d_query = lax.scan(block, zeros, blocks)
    return d_query, d_key, d_value

  d_queries, d_keys, d_values = lax.map(
    head, (keys, values, queries, gradients, log_total, offsets)
  )
  d_queries = _unblocks(d_queries, keys.shape[1]) * keys.shape[-1] ** -0.5
  return (
    _unheads(d_queries, gradient),
    _unheads(d_keys, gradient),
    _unheads(d_values, gradient),
  )


_blocked.defvjp(_blocked_forward, _blocked_backward)


def _heads(x: Float[Array, 'b n k h']) -> Float[Array, 'g n h']:
  """Rows and heads in one axis, float32."""
  rows, tokens, heads, width = x.shape
  x = x.astype(jnp.float32).transpose(0, 2, 1, 3)
  return x.reshape(rows * heads, tokens, width)


def _unheads(
  x: Float[Array, 'g n h'], like: Float[Array, 'b n k h']
) -> Float[Array, 'b n k h']:
  """Undoes `_heads`, in the dtype of `like`."""
  rows, tokens, heads, width = like.shape
  x = x.reshape(rows, heads, tokens, width).transpose(0, 2, 1, 3)
  return x.astype(like.dtype)


def _blocks(x: Float[Array, 'g n h']) -> Float[Array, 'g i q h']:
  """Cuts tokens into equal blocks; zeros fill the last."""
  tokens = x.shape[1]
  count = -(-tokens // _BLOCK)
  size = -(-tokens // count)
  x = jnp.pad(x, ((0, 0), (0, count * size - tokens), (0, 0)))
  return x.reshape(x.shape[0], count, size, x.shape[2])


def _unblocks(x: Float[Array, 'g i q h'], tokens: int) -> Float[Array, 'g n h']:
  """Undoes `_blocks`."""
  return x.reshape(x.shape[0], -1, x.shape[3])[:, :tokens]


def _auto(
  query: Float[Array, 'b n k h'],
  key: Float[Array, 'b n k h'],
  value: Float[Array, 'b n k h'],
) -> Float[Array, 'b n k h']:
  backend = jax.default_backend()
  # A loop over rows would run all of them on each of several devices.
  if backend == 'cpu' and jax.device_count() == 1:
    return _blocked(query, key, value)
  # cuDNN's flash kernel takes half precision and heads of 8 to 128.
  half = query.dtype in (jnp.bfloat16, jnp.float16)
  if backend == 'gpu' and half and query.shape[-1] in range(8, 129, 8):
    return _cudnn(query, key, value)
  return _xla(query, key, value)


ATTENTIONS: dict[str, Callable[..., Array]] = {
  'auto': _auto,  # what suits the default backend and the dtype
  'xla': _xla,  # plain, everywhere
  'cudnn': _cudnn,  # flash attention of an NVIDIA GPU, half precision
  'blocked': _blocked,  # three times as fast as 'xla' on a CPU
}
