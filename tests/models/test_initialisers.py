"""How the recipes' parameters start; reference: videomae.md 2.1, 2.3, 2.4."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from vivit_mae import masking
from vivit_mae.models import variants

WIDTH, PIXELS = 192, 2 * 16 * 16 * 3


def params_of(recipe) -> dict[str, Any]:
  model = variants.build(
    'B/16x2', recipe=recipe, num_frames=4, image_size=(32, 32), depth=1,
    decoder_depth=1, width=WIDTH, heads=3, mlp_dim=384, target_dim=768,
  )  # fmt: skip

  def init(key):
    mask = masking.sample(key[None], 'random', 0.5, model.grid)
    video = jnp.zeros((1, 4, 32, 32, 3))
    return model.init(key, video, mask, deterministic=True)['params']

  params = jax.jit(init)(jax.random.key(0))
  return traverse_util.flatten_dict(params, sep='/')


def assert_uniform(x, bound):
  assert bound * 0.98 < np.abs(x).max() <= bound * 1.000001
  np.testing.assert_allclose(np.std(x), bound / math.sqrt(3), rtol=0.03)


def assert_normal(x, deviation=0.02):
  np.testing.assert_allclose(np.std(x), deviation, rtol=0.15)
  assert np.abs(np.mean(x)) < deviation


def test_mae_st():
  params = params_of('mae_st')
  # Queries, keys and values each by themselves.
  assert_uniform(
    params['encoder/block_00/attention/qkv/kernel'], math.sqrt(3 / WIDTH)
  )
  assert_uniform(
    params['encoder/embedding/kernel'], math.sqrt(6 / (PIXELS + WIDTH))
  )
  assert_uniform(params['encoder/embedding/bias'], PIXELS**-0.5)
  assert_uniform(params['bridge/kernel'], math.sqrt(6 / (WIDTH + 512)))
  assert not params['bridge/bias'].any()
  for name in ('cls_token', 'position_space', 'position_time'):
    assert_normal(params[f'encoder/{name}'])
  assert_normal(params['mask_token'])
  assert_normal(params['decoder/position_space'])
  assert not params['decoder/cls_token'].any()
  assert not params['encoder/block_00/norm1/bias'].any()


def test_pyslowfast():
  params = params_of('pyslowfast')
  for name in ('attention/qkv', 'attention/proj', 'mlp/fc1', 'mlp/fc2'):
    assert_normal(params[f'encoder/block_00/{name}/kernel'])
    assert_normal(params[f'decoder/block_00/{name}/kernel'])
  # The encoder's biases start at .02, those of norms too; the decoder's not.
  for name in ('attention/k_bias', 'mlp/fc1/bias', 'norm1/bias', 'norm2/bias'):
    np.testing.assert_allclose(params[f'encoder/block_00/{name}'], 0.02)
    assert not params[f'decoder/block_00/{name}'].any()
  np.testing.assert_allclose(params['encoder/norm/bias'], 0.02)
  assert params['decoder/position_embedding'].shape == (9, 512)
  assert 'decoder/cls_token' not in params


@pytest.mark.parametrize('recipe', ['videomae', 'videomae_v2'])
def test_videomae(recipe):
  params = params_of(recipe)
  # One fan for the fused kernel; torch's defaults of convolution and bridge.
  assert_uniform(
    params['encoder/block_00/attention/qkv/kernel'],
    math.sqrt(6 / (4 * WIDTH)),
  )
  assert_uniform(params['encoder/embedding/kernel'], PIXELS**-0.5)
  assert_uniform(params['bridge/kernel'], WIDTH**-0.5)
  assert np.abs(params['mask_token']).max() <= 0.02
