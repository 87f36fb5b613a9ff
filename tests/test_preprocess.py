import jax.numpy as jnp
import numpy as np
import pytest

from vivit_mae import preprocess


def test_to_unit_is_exact_at_both_ends():
  levels = jnp.arange(256, dtype=jnp.uint8).reshape(1, 1, 16, 16, 1)
  unit = preprocess.to_unit(levels)
  assert unit.dtype == jnp.float32
  np.testing.assert_allclose(np.ravel(unit), np.arange(256) / 255, rtol=2e-7)
  assert (float(unit.min()), float(unit.max())) == (0.0, 1.0)


@pytest.mark.parametrize(
  ('mean', 'std'),
  [
    ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ((0.5,), (0.25,)),
    ((0.5,), (0.1, 0.2, 0.4)),
    ((0, 0, 0), (1, 1, 1)),
  ],
)
def test_normalise_is_per_channel(mean, std):
  video = np.random.default_rng(0).random((2, 2, 4, 6, 3), np.float32)
  result = preprocess.normalise(jnp.asarray(video), mean, std)
  assert result.dtype == jnp.float32
  expected = (video.astype(np.float64) - mean) / std
  np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(('mean', 'std'), [((0, 0), (1,)), ((0,), (1, 1))])
def test_normalise_counts_the_channels(mean, std):
  video = jnp.zeros((1, 2, 4, 4, 3))
  wrong = 'mean' if len(mean) == 2 else 'std'
  message = rf'preprocess\.{wrong} holds 2 values .* 3 channels: give 1 or 3'
  with pytest.raises(ValueError, match=message):
    preprocess.normalise(video, mean, std)
