"""Scaled dot-product attention, in the ways that one or another device likes.

An implementation takes queries, keys and values and returns the heads'
outputs; which is used changes speed and memory, never the result beyond
rounding. The softmax is float32 in all of them.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vivit_mae.models.blockwise_attention import blockwise_attention

Queries = Float[Array, 'b n k h']
Keys = Float[Array, 'b m k h']

# Tokens from which the scores of a head outgrow a CPU core's cache.
_BLOCKWISE_FROM = 512


def _xla(query: Queries, key: Keys, value: Keys) -> Queries:
  query, key, value = (x.swapaxes(1, 2) for x in (query, key, value))
  scores = jnp.einsum(
    'bknh,bkmh->bknm',
    query * query.shape[-1] ** -0.5,
    key,
    preferred_element_type=jnp.float32,
  )
  weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
  return jnp.einsum('bknm,bkmh->bknh', weights, value).swapaxes(1, 2)


def _cudnn(query: Queries, key: Keys, value: Keys) -> Queries:
  return jax.nn.dot_product_attention(query, key, value, implementation='cudnn')


def _auto(query: Queries, key: Keys, value: Keys) -> Queries:
  backend = jax.default_backend()
  # cuDNN's flash kernel takes half precision and heads of 8 to 128.
  fits = query.dtype.itemsize == 2 and query.shape[-1] in range(8, 129, 8)
  if backend == 'gpu' and fits:
    return _cudnn(query, key, value)
  # Where rows are split over devices, a loop over them would run everywhere.
  alone = jax.device_count() == 1
  if backend == 'cpu' and alone and query.shape[1] > _BLOCKWISE_FROM:
    return blockwise_attention(query, key, value)
  return _xla(query, key, value)


ATTENTIONS: dict[str, Callable[[Queries, Keys, Keys], Queries]] = {
  'auto': _auto,
  'xla': _xla,
  'blockwise': blockwise_attention,
  'cudnn': _cudnn,
}
