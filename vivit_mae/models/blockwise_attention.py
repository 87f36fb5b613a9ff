"""Attention that holds a block of the score matrix at a time, for CPUs.

The scores of one head over 1568 tokens fill 10 MB; written out for all heads
they stream through memory several times in the forward and again in the
backward pass. Here a block of queries meets all keys of one head while its
scores stay in the cache, and the backward pass computes the scores again
(Rabe and Staats, 2021, "Self-attention does not need O(n^2) memory"; the
gradient as in Dao et al., 2022, "FlashAttention", appendix B.2).
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

# Queries that meet the keys at once: few enough for their scores to stay in the
# processor's cache, many enough for an efficient matrix product.
_BLOCK = 800


def blockwise_attention(
  query: Float[Array, 'b n k h'],
  key: Float[Array, 'b m k h'],
  value: Float[Array, 'b m k h'],
) -> Float[Array, 'b n k h']:
  """Scaled dot-product attention without ever holding all scores.

  Args:
    query: queries of each head.
    key: keys of each head.
    value: values of each head.

  Returns:
    The heads' outputs, in the type of the queries; the softmax is float32.
  """
  rows, tokens, heads, width = query.shape
  num_blocks = -(-tokens // _BLOCK)
  block = -(-tokens // num_blocks)
  padding = num_blocks * block - tokens

  def split(x: Float[Array, 'b n k h']) -> Float[Array, 'bk n h']:
    return x.swapaxes(1, 2).reshape(rows * heads, -1, width)

  scaled = split(query * width**-0.5)
  padded = jnp.pad(scaled, ((0, 0), (0, padding), (0, 0)))
  output = lax.map(
    lambda head: _attend(*head, block), (padded, split(key), split(value))
  )
  output = output[:, :tokens].reshape(rows, heads, tokens, width)
  return output.swapaxes(1, 2)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _attend(
  query: Float[Array, 'n h'],
  key: Float[Array, 'm h'],
  value: Float[Array, 'm h'],
  block: int,
) -> Float[Array, 'n h']:
  """One head, `block` queries at a time; the queries are scaled already."""
  return _attend_forward(query, key, value, block)[0]


def _attend_forward(
  query: Float[Array, 'n h'],
  key: Float[Array, 'm h'],
  value: Float[Array, 'm h'],
  block: int,
) -> tuple[Float[Array, 'n h'], Any]:
  """The output, and beside it the logarithm of each softmax's sum."""

  def step(
    part: Float[Array, 'j h'],
  ) -> tuple[Float[Array, 'j h'], Float[Array, 'j 1']]:
    scores = _dot(part, key.T)
    top = jnp.max(scores, axis=-1, keepdims=True)
    weights = jnp.exp(scores - top)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    output = _dot(weights.astype(value.dtype), value) / total
    return output.astype(part.dtype), top + jnp.log(total)

  output, log_sum = lax.map(step, _blocks(query, block))
  output = output.reshape(query.shape)
  log_sum = log_sum.reshape(-1, 1)
  return output, (query, key, value, output, log_sum)


def _attend_backward(
  block: int, residuals: Any, gradient: Float[Array, 'n h']
) -> tuple[Float[Array, 'n h'], Float[Array, 'm h'], Float[Array, 'm h']]:
  """Gradients of queries, keys and values; the weights are computed again.

  Those of keys and values are summed up transposed, so that no product has to
  transpose a block of scores.
  """
  query, key, value, output, log_sum = residuals
  dtype = query.dtype
  inner = jnp.sum(output * gradient, axis=-1, keepdims=True, dtype=jnp.float32)

  def step(
    sums: tuple[Float[Array, 'h m'], Float[Array, 'h m']], parts: Any
  ) -> tuple[Any, Float[Array, 'j h']]:
    d_key, d_value = sums
    query, gradient, log_sum, inner = parts
    weights = jnp.exp(_dot(query, key.T) - log_sum)
    d_value += _dot(gradient.T, weights.astype(dtype))
    d_scores = (weights * (_dot(gradient, value.T) - inner)).astype(dtype)
    d_key += _dot(query.T, d_scores)
    return (d_key, d_value), _dot(d_scores, key).astype(dtype)

  zeros = jnp.zeros(key.T.shape, jnp.float32)
  parts = (query, gradient, log_sum, inner)
  (d_key, d_value), d_query = lax.scan(
    step, (zeros, zeros), tuple(_blocks(part, block) for part in parts)
  )
  return (
    d_query.reshape(query.shape),
    d_key.T.astype(dtype),
    d_value.T.astype(dtype),
  )


_attend.defvjp(_attend_forward, _attend_backward)


def _blocks(x: Float[Array, 'n h'], block: int) -> Float[Array, 'i j h']:
  return x.reshape(-1, block, x.shape[-1])


def _dot(a: Float[Array, 'i j'], b: Float[Array, 'j k']) -> Float[Array, 'i k']:
  """A matrix product with a float32 result."""
  return jnp.dot(a, b, preferred_element_type=jnp.float32)
