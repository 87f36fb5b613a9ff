import jax
import jax.numpy as jnp
import numpy as np

from vivit_mae.models import residual


def _keys(count, seed=0):
  return jax.random.split(jax.random.key(seed), count)


def test_drop_path_without_rescaling_keeps_values():
  # reference: scenic.md 1.1
  branch = jnp.ones((4000, 2, 3))
  out = residual.drop_path(branch, jnp.array(0.3), _keys(4000), rescale=False)
  assert set(np.unique(out)) == {0.0, 1.0}
  np.testing.assert_allclose(out.mean(), 0.7, atol=0.03)
  scaled = residual.drop_path(branch, jnp.array(0.3), _keys(4000))
  np.testing.assert_allclose(scaled, out / 0.7, rtol=1e-6)


def test_dropout_drops_values_of_each_row_by_its_key():
  x = jnp.ones((8, 50, 40))
  out = residual.dropout(x, 0.25, _keys(8))
  np.testing.assert_allclose((out == 0).mean((1, 2)), 0.25, atol=0.05)
  np.testing.assert_allclose(out.max(), 1 / 0.75, rtol=1e-6)
  np.testing.assert_array_equal(
    residual.dropout(x[3:5], 0.25, _keys(8)[3:5]), out[3:5]
  )
  assert (out[0] != out[1]).any()


def test_layer_scale_starts_at_its_value():
  x = jnp.ones((1, 2, 3))
  out, variables = residual.LayerScale(0.1).init_with_output(
    jax.random.key(0), x
  )
  np.testing.assert_allclose(np.asarray(out), 0.1, rtol=1e-6)
  assert jax.tree.map(jnp.shape, variables) == {'params': {'gamma': (3,)}}
