"""Scaled dot-product attention, in the ways that one or another device likes.

An implementation takes queries, keys and values and returns the heads'
outputs; which is used changes speed and memory, never the result beyond
rounding. The softmax is float32 in all of them.
"""

from collections.abc import Callable

import jax
from jaxtyping import Array, Float

Heads = Float[Array, 'b n k h']


def _xla(query: Heads, key: Heads, value: Heads) -> Heads:
  return jax.nn.dot_product_attention(query, key, value, implementation='xla')


def _cudnn(query: Heads, key: Heads, value: Heads) -> Heads:
  return jax.nn.dot_product_attention(query, key, value, implementation='cudnn')


def _auto(query: Heads, key: Heads, value: Heads) -> Heads:
  # cuDNN's flash kernel takes half precision and heads of 8 to 128.
  fits = query.dtype.itemsize == 2 and query.shape[-1] in range(8, 129, 8)
  if fits and jax.default_backend() == 'gpu':
    return _cudnn(query, key, value)
  return _xla(query, key, value)


# The last part of a name is the device it is made for.
ATTENTIONS: dict[str, Callable[[Heads, Heads, Heads], Heads]] = {
  'auto': _auto,
  'xla': _xla,
  'cudnn': _cudnn,
}
