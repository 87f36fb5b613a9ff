"""Attention that works on a block of the score matrix at a time, for CPUs.

The scores of one head over 1568 tokens fill 10 MB; as one product over all
heads they stream through memory several times in the forward and again in the
backward pass. Here a block of queries meets all keys of one head while its
scores stay in the cache.

Few heads (rows times heads) are written out one after the other, and the
softmax's weights are kept for the backward pass. Many go through a loop, and
the backward pass computes the weights again (Rabe and Staats, 2021,
"Self-attention does not need O(n^2) memory"; the gradient as in Dao et al.,
2022, "FlashAttention", appendix B.2): a loop would have to copy what it keeps.
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
# Up to so many blocks of all heads are compiled one by one, and up to so many
# weights, of 4 bytes each, are kept.
_WRITTEN_OUT = 32
_KEPT = 2**25


def blockwise_attention(
  query: Float[Array, 'b n k h'],
  key: Float[Array, 'b m k h'],
  value: Float[Array, 'b m k h'],
) -> Float[Array, 'b n k h']:
  """Scaled dot-product attention, a block of queries of one head at a time.

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

  def split(x: Float[Array, 'b n k h']) -> Float[Array, 'bk n h']:
    return x.swapaxes(1, 2).reshape(rows * heads, -1, width)

  scaled, key, value = split(query * width**-0.5), split(key), split(value)
  few = rows * heads * num_blocks <= _WRITTEN_OUT
  if few and rows * heads * tokens * key.shape[1] <= _KEPT:
    output = _attend_all(scaled, key, value, block)
  else:
    padding = num_blocks * block - tokens
    padded = jnp.pad(scaled, ((0, 0), (0, padding), (0, 0)))
    inputs = (padded, key, value)
    output: Any = lax.map(lambda head: _attend(*head, block), inputs)
    output = output[:, :tokens]
  return output.reshape(rows, heads, tokens, width).swapaxes(1, 2)


_Two = tuple[Float[Array, 'h m'], Float[Array, 'h m']]


def _output(
  query: Float[Array, 'j h'],
  key: Float[Array, 'm h'],
  value: Float[Array, 'm h'],
) -> tuple[
  Float[Array, 'j h'],
  Float[Array, 'j m'],
  Float[Array, 'j 1'],
  Float[Array, 'j 1'],
]:
  """A block's output; its weights undivided, their sums, the highest scores."""
  scores = _dot(query, key.T)
  top = jnp.max(scores, axis=-1, keepdims=True)
  weights = jnp.exp(scores - top)
  total = jnp.sum(weights, axis=-1, keepdims=True)
  output = _dot(weights.astype(value.dtype), value) / total
  return output.astype(query.dtype), weights, total, top


def _gradients(
  sums: _Two,
  query: Float[Array, 'j h'],
  gradient: Float[Array, 'j h'],
  inner: Float[Array, 'j 1'],
  key: Float[Array, 'm h'],
  value: Float[Array, 'm h'],
  weights: Float[Array, 'j m'],
) -> tuple[_Two, Float[Array, 'j h']]:
  """Adds a block to the gradients of keys and values; returns its queries'.

  Those of keys and values are summed up transposed, so that no product has to
  transpose a block of scores.
  """
  d_key, d_value = sums
  dtype = query.dtype
  d_value += _dot(gradient.T, weights.astype(dtype))
  d_scores = (weights * (_dot(gradient, value.T) - inner)).astype(dtype)
  d_key += _dot(query.T, d_scores)
  return (d_key, d_value), _dot(d_scores, key).astype(dtype)


def _inner(
  output: Float[Array, '*b h'], gradient: Float[Array, '*b h']
) -> Float[Array, '*b 1']:
  return jnp.sum(output * gradient, axis=-1, keepdims=True, dtype=jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _attend_all(
  query: Float[Array, 'bk n h'],
  key: Float[Array, 'bk m h'],
  value: Float[Array, 'bk m h'],
  block: int,
) -> Float[Array, 'bk n h']:
  """All heads written out; the queries are scaled already."""
  return _attend_all_forward(query, key, value, block)[0]


def _attend_all_forward(
  query: Float[Array, 'bk n h'],
  key: Float[Array, 'bk m h'],
  value: Float[Array, 'bk m h'],
  block: int,
) -> tuple[Float[Array, 'bk n h'], Any]:
  """The output, and beside it the weights of each block with their sums."""
  outputs, kept = [], []
  for head, part in _parts(query, block):
    output, weights, total, _ = _output(
      query[head, part], key[head], value[head]
    )
    outputs.append(output)
    kept.append((weights, total))
  output = jnp.concatenate(outputs).reshape(query.shape)
  return output, (query, key, value, output, kept)


def _attend_all_backward(
  block: int, residuals: Any, gradient: Float[Array, 'bk n h']
) -> tuple[
  Float[Array, 'bk n h'], Float[Array, 'bk m h'], Float[Array, 'bk m h']
]:
  """Gradients of queries, keys and values from the weights that were kept."""
  query, key, value, output, kept = residuals
  inner = _inner(output, gradient)
  zeros = jnp.zeros(key.mT.shape[1:], jnp.float32)
  sums = [(zeros, zeros)] * len(query)
  d_query = []
  for (head, part), (weights, total) in zip(
    _parts(query, block), kept, strict=True
  ):
    # The weights' division by their sum, moved to what is smaller.
    divided = (gradient[head, part] / total).astype(query.dtype)
    sums[head], d_part = _gradients(
      sums[head],
      query[head, part],
      divided,
      inner[head, part] / total,
      key[head],
      value[head],
      weights,
    )
    d_query.append(d_part)
  d_key, d_value = (
    jnp.stack(each).mT.astype(query.dtype) for each in zip(*sums, strict=True)
  )
  return jnp.concatenate(d_query).reshape(query.shape), d_key, d_value


_attend_all.defvjp(_attend_all_forward, _attend_all_backward)


def _parts(
  query: Float[Array, 'bk n h'], block: int
) -> list[tuple[int, slice]]:
  """Each head's number with each of its blocks."""
  return [
    (head, slice(start, start + block))
    for head in range(query.shape[0])
    for start in range(0, query.shape[1], block)
  ]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _attend(
  query: Float[Array, 'n h'],
  key: Float[Array, 'm h'],
  value: Float[Array, 'm h'],
  block: int,
) -> Float[Array, 'n h']:
  """One head in a loop over whole blocks; the queries are scaled already."""
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
    output, _, total, top = _output(part, key, value)
    return output, top + jnp.log(total)

  output, log_sum = lax.map(step, _blocks(query, block))
  output = output.reshape(query.shape)
  log_sum = log_sum.reshape(-1, 1)
  return output, (query, key, value, output, log_sum)


def _attend_backward(
  block: int, residuals: Any, gradient: Float[Array, 'n h']
) -> tuple[Float[Array, 'n h'], Float[Array, 'm h'], Float[Array, 'm h']]:
  """Gradients of queries, keys and values; the weights are computed again."""
  query, key, value, output, log_sum = residuals
  inner = _inner(output, gradient)

  def step(sums: _Two, parts: Any) -> tuple[_Two, Float[Array, 'j h']]:
    query, gradient, log_sum, inner = parts
    weights = jnp.exp(_dot(query, key.T) - log_sum)
    return _gradients(sums, query, gradient, inner, key, value, weights)

  zeros = jnp.zeros(key.T.shape, jnp.float32)
  parts = (query, gradient, log_sum, inner)
  (d_key, d_value), d_query = lax.scan(
    step, (zeros, zeros), tuple(_blocks(part, block) for part in parts)
  )
  return (
    d_query.reshape(query.shape),
    d_key.T.astype(query.dtype),
    d_value.T.astype(query.dtype),
  )


_attend.defvjp(_attend_forward, _attend_backward)


def _blocks(x: Float[Array, 'n h'], block: int) -> Float[Array, 'i j h']:
  return x.reshape(-1, block, x.shape[-1])


def _dot(a: Float[Array, 'i j'], b: Float[Array, 'j k']) -> Float[Array, 'i k']:
  """A matrix product with a float32 result."""
  return jnp.dot(a, b, preferred_element_type=jnp.float32)
