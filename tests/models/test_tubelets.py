from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vivit_mae.models import tubelets


@pytest.mark.parametrize('channels', [1, 3, 4])
@pytest.mark.parametrize('tubelet', [(2, 4, 4), (1, 8, 2), (4, 2, 8)])
def test_unpatchify_undoes_patchify(tubelet, channels):
  video = jax.random.uniform(jax.random.key(0), (2, 4, 8, 16, channels))
  grid = tubelets.grid(4, (8, 16), tubelet)
  patches = tubelets.patchify(video, tubelet)
  assert patches.shape[1] == np.prod(grid)
  np.testing.assert_array_equal(
    tubelets.unpatchify(patches, grid, tubelet), video
  )


def test_patchify_is_raster_with_the_channel_fastest():
  video = jnp.arange(4 * 4 * 6 * 2).reshape(1, 4, 4, 6, 2)
  patches = tubelets.patchify(video, (2, 2, 3))
  # Token (t, h, w) = (1, 0, 1) is number 5 of the grid (2, 2, 2).
  np.testing.assert_array_equal(
    patches[0, 5], video[0, 2:4, 0:2, 3:6].reshape(-1)
  )


def test_gather_tokens_serves_rows_and_shared_tables():
  tokens = jax.random.uniform(jax.random.key(0), (2, 5, 3))
  indices = jnp.array([[0, 4], [1, 3]])
  got = tubelets.gather_tokens(tokens, indices)
  np.testing.assert_array_equal(got[1], tokens[1, jnp.array([1, 3])])
  got = tubelets.gather_tokens(tokens[:1], indices)
  np.testing.assert_array_equal(got[1], tokens[0, jnp.array([1, 3])])


def test_embedding_is_a_convolution():
  video = jax.random.normal(jax.random.key(0), (2, 4, 8, 12, 3))
  patches = tubelets.patchify(video, (2, 4, 4))
  embedding = tubelets.TubeletEmbedding((2, 4, 4), channels=3, width=10)
  variables: Any = embedding.init(jax.random.key(1), patches)
  kernel, bias = (variables['params'][name] for name in ('kernel', 'bias'))
  assert kernel.shape == (2, 4, 4, 3, 10)
  convolved = jax.lax.conv_general_dilated(
    video,
    kernel,
    window_strides=(2, 4, 4),
    padding='VALID',
    dimension_numbers=('NTHWC', 'THWIO', 'NTHWC'),
  )
  embedded: Any = embedding.apply(variables, patches)
  np.testing.assert_allclose(
    embedded,
    convolved.reshape(2, -1, 10) + bias,
    atol=1e-5,
  )


def test_embedding_starts_as_a_torch_convolution():
  patches = jnp.zeros((1, 1, 1536))
  embedding = tubelets.TubeletEmbedding((2, 16, 16), channels=3, width=192)
  variables: Any = embedding.init(jax.random.key(0), patches)
  params = variables['params']
  bound = 1536**-0.5
  for name in ('kernel', 'bias'):
    assert jnp.abs(params[name]).max() <= bound
    np.testing.assert_allclose(
      params[name].std(), bound / np.sqrt(3), rtol=0.15
    )
  assert jnp.abs(params['kernel']).max() > 0.999 * bound


def test_sizes_that_do_not_divide_are_refused():
  with pytest.raises(ValueError, match='num_frames 15 is not'):
    tubelets.grid(15, (32, 32), (2, 16, 16))
  with pytest.raises(ValueError, match=r'width 40 is not .* multiple of 16'):
    tubelets.grid(16, (32, 40), (2, 16, 16))
  with pytest.raises(ValueError, match='height 0'):
    tubelets.grid(16, (0, 32), (2, 16, 16))
  with pytest.raises(ValueError, match='tubelets of 8 values do not fill'):
    tubelets.unpatchify(jnp.zeros((1, 3, 8)), (1, 2, 2), (2, 2, 2))


def test_uniform_frames():
  # reference: scenic.md 1.1
  video = jnp.arange(32).reshape(1, 32, 1, 1, 1)
  picked = tubelets.uniform_frames(video, 8).ravel()
  np.testing.assert_array_equal(picked, [4, 7, 11, 14, 18, 21, 25, 28])
  np.testing.assert_array_equal(tubelets.uniform_frames(video, 32), video)
