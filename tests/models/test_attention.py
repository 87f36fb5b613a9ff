import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vivit_mae.models import attention


def _inputs(shape, dtype='float32'):
  keys = jax.random.split(jax.random.key(0), 4)
  return [jax.random.normal(key, shape, dtype) for key in keys]


def _with_gradients(name, query, key, value, gradient):
  def run(*inputs):
    output, backward = jax.vjp(attention.ATTENTIONS[name], *inputs)
    return output, *backward(gradient)

  return jax.jit(run)(query, key, value)


# Where all scores are held, and where 'auto' goes blockwise on a CPU.
@pytest.mark.parametrize('tokens', [5, 517])
@pytest.mark.parametrize('name', ['auto', 'blockwise'])
def test_implementations_agree(name, tokens):
  inputs = _inputs((2, tokens, 3, 8))
  expected = _with_gradients('xla', *inputs)
  for got, each in zip(_with_gradients(name, *inputs), expected, strict=True):
    np.testing.assert_allclose(got, each, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('name', ['auto', 'xla', 'blockwise'])
def test_half_precision_comes_back_in_half_precision(name):
  inputs = _inputs((2, 20, 2, 8), 'bfloat16')
  exact = _with_gradients('xla', *(x.astype(jnp.float32) for x in inputs))
  for got, each in zip(_with_gradients(name, *inputs), exact, strict=True):
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(
      got.astype(jnp.float32), each, rtol=0.05, atol=0.1
    )
