import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vivit_mae.models import norms

_FLAX = nn.LayerNorm(epsilon=1e-6, use_fast_variance=False, dtype='float32')


def _variables(width):
  rng = np.random.default_rng(0)
  scale, bias = rng.normal(size=(2, width)).astype(np.float32)
  return {'params': {'scale': jnp.asarray(scale), 'bias': jnp.asarray(bias)}}


@pytest.mark.parametrize('shape', [(5, 8), (2, 3, 7, 16)])
def test_values_and_gradients_are_those_of_flax(shape):
  rng = np.random.default_rng(1)
  x, weights = rng.normal(2.0, 3.0, (2, *shape)).astype(np.float32)
  variables = _variables(shape[-1])

  def loss(norm, variables, x):
    return jnp.sum(norm.apply(variables, x) * weights)

  for ours, theirs in zip(
    jax.tree.leaves(
      jax.value_and_grad(loss, argnums=(1, 2))(
        norms.LayerNorm(), variables, jnp.asarray(x)
      )
    ),
    jax.tree.leaves(
      jax.value_and_grad(loss, argnums=(1, 2))(_FLAX, variables, jnp.asarray(x))
    ),
    strict=True,
  ):
    np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5)


def test_parameters_are_those_of_flax():
  x = jnp.zeros((2, 6))
  ours, theirs = (
    norm.init(jax.random.key(0), x) for norm in (norms.LayerNorm(), _FLAX)
  )
  jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_half_precision_is_normalised_in_float32():
  x = jnp.asarray(np.random.default_rng(2).normal(size=(4, 32)), jnp.bfloat16)
  result = norms.LayerNorm().apply(_variables(32), x)
  assert isinstance(result, jax.Array)
  assert result.dtype == jnp.float32
  exact = _FLAX.apply(_variables(32), x.astype(jnp.float32))
  assert isinstance(exact, jax.Array)
  np.testing.assert_allclose(result, exact, rtol=1e-5, atol=1e-5)


def test_a_constant_row_gives_the_bias():
  variables = _variables(4)
  result = norms.LayerNorm().apply(variables, jnp.full((1, 4), 3.0))
  assert isinstance(result, jax.Array)
  np.testing.assert_array_equal(result[0], variables['params']['bias'])
