import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vivit_mae.models import attention, blockwise_attention


def _heads(tokens, keys=None, dtype='float32'):
  shapes = [(2, tokens, 3, 8), *[(2, keys or tokens, 3, 8)] * 2]
  return [
    jax.random.normal(jax.random.key(i), shape, dtype)
    for i, shape in enumerate(shapes)
  ]


def _loss(implementation):
  def loss(*heads):
    output = implementation(*heads).astype(jnp.float32)
    return jnp.sum(jnp.sin(output)), output

  return jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))


@pytest.fixture(params=['written out', 'in a loop'])
def way(request, monkeypatch):
  limit = 10**6 if request.param == 'written out' else 0
  monkeypatch.setattr(blockwise_attention, '_WRITTEN_OUT', limit)


# Fewer than a block, one block, and blocks that do not fill the last one.
@pytest.mark.usefixtures('way')
@pytest.mark.parametrize('tokens', [5, 32, 67])
def test_equals_attention_with_all_scores(tokens, monkeypatch):
  monkeypatch.setattr(blockwise_attention, '_BLOCK', 32)
  heads = _heads(tokens)
  (_, want), want_grads = _loss(attention.ATTENTIONS['xla'])(*heads)
  (_, got), grads = _loss(blockwise_attention.blockwise_attention)(*heads)
  np.testing.assert_allclose(got, want, atol=1e-6)
  for one, other in zip(grads, want_grads, strict=True):
    np.testing.assert_allclose(one, other, atol=2e-6)


@pytest.mark.usefixtures('way')
def test_takes_other_keys_than_queries():
  heads = _heads(7, keys=11)
  (_, want), want_grads = _loss(attention.ATTENTIONS['xla'])(*heads)
  (_, got), grads = _loss(blockwise_attention.blockwise_attention)(*heads)
  np.testing.assert_allclose(got, want, atol=1e-6)
  for one, other in zip(grads, want_grads, strict=True):
    np.testing.assert_allclose(one, other, atol=2e-6)


@pytest.mark.usefixtures('way')
def test_survives_large_scores():
  query, key, value = _heads(9)
  got = blockwise_attention.blockwise_attention(1e3 * query, 1e3 * key, value)
  assert np.isfinite(got).all()


@pytest.mark.usefixtures('way')
def test_keeps_half_precision_and_softmax_in_float32():
  heads = _heads(33, dtype='bfloat16')
  got = blockwise_attention.blockwise_attention(*heads)
  assert got.dtype == jnp.bfloat16
  exact = attention.ATTENTIONS['xla'](*(x.astype('float32') for x in heads))
  np.testing.assert_allclose(got.astype('float32'), exact, atol=2e-2)


# Many heads; many tokens of one head.
@pytest.mark.parametrize(('rows', 'tokens'), [(9, 3000), (1, 6000)])
def test_all_scores_are_never_held_where_they_are_many(rows, tokens):
  shapes = [jax.ShapeDtypeStruct((rows, tokens, 1, 8), jnp.float32)] * 3
  loss = _loss(blockwise_attention.blockwise_attention)
  memory = loss.lower(*shapes).compile().memory_analysis()
  assert memory is not None
  assert memory.temp_size_in_bytes < 4 * tokens**2
