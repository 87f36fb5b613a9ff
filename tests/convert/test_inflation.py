"""Models of video that start from the files of image models."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from tests.convert import original_states
from tests.convert import scenic_originals as scenic
from tests.convert.original_shapes import Sizes
from vivit_mae.convert import files, inflation, weights
from vivit_mae.models import positions, variants

_SIZES = Sizes(
  depth=2, decoder_depth=1, frames=1, tubelet=1, image=(16, 16), classes=7
)


@pytest.fixture
def rng():
  return np.random.default_rng(0)


def _checkpoint(arrays):
  return files.Checkpoint(arrays, pathlib.Path('image.pth'), 'torch')


def _features(model, params, clips):
  @jax.jit
  def features(params, clips):
    return model.apply(
      {'params': params}, clips, deterministic=True, method='features'
    )

  return np.asarray(features(*jax.tree.map(jnp.asarray, (params, clips))))


def _video_model(**fields):
  return variants.build_classifier(
    'B/4x2',
    3,
    **{
      'recipe': 'vivit',
      'width': 40,
      'depth': 2,
      'heads': 4,
      'mlp_dim': 160,
      'num_frames': 6,
      'image_size': (16, 16),
      **fields,
    },
  )


def _fresh(model, rng):
  return jax.tree.map(
    lambda leaf: rng.standard_normal(leaf.shape, np.float32),
    weights.shapes_of(model),
  )


def _encoder_rows(coverage):
  return {row.ours: row for row in coverage.rows if row.ours}


def test_still_video_gives_what_the_image_gives(rng):
  shapes = scenic.vivit_shapes(_SIZES, sampled=1, token=False)
  state = scenic.random_state(shapes, rng)
  image = weights.convert(_checkpoint(state))
  model = _video_model(factorisation='self_attention')
  params, coverage = inflation.inflated(
    _checkpoint(state),
    _fresh(model, rng),
    model,
    kernel='average',
    temporal='zero',
  )
  clips = rng.standard_normal((2, 1, 16, 16, 3), np.float32)
  want = _features(image.model, image.params, clips)
  got = _features(model, params, np.repeat(clips, 6, axis=1))
  np.testing.assert_allclose(
    got.reshape(2, 3, 16, 40), np.stack([want] * 3, axis=1), atol=2e-5
  )

  rows = _encoder_rows(coverage)
  kernel = rows['encoder/embedding/kernel']
  assert (kernel.fate, kernel.reason) == ('resized', 'inflated')
  assert kernel.theirs == ('embedding/kernel',)
  over_time = rows['encoder/block_01/attention_time/proj/kernel']
  assert (over_time.fate, over_time.reason) == ('resized', 'zeros')
  assert rows['encoder/block_01/norm_space/bias'].theirs == (
    'Transformer/encoderblock_1/LayerNorm_0/bias',
  )
  assert {row.ours for row in coverage.of('missing')} == {
    'head/label/kernel',
    'head/label/bias',
  }
  heads = [row for row in coverage.of('ignored') if 'output' in row.theirs[0]]
  assert {row.reason for row in heads} == {'only the encoder is inflated'}


@pytest.mark.parametrize(
  ('fields', 'fresh_parts'),
  [
    ({}, {'head'}),
    ({'factorisation': 'dot_product'}, {'head'}),
    ({'factorisation': 'encoder', 'temporal_depth': 1}, {'head', 'encoder'}),
  ],
)
def test_inflates_timm(rng, fields, fresh_parts):
  state = original_states.timm_vit_state(_SIZES, rng)
  model = _video_model(**fields)
  fresh = _fresh(model, rng)
  params, coverage = inflation.inflated(_checkpoint(state), fresh, model)
  got: dict[str, Any] = traverse_util.flatten_dict(params, sep='/')
  assert got.keys() == traverse_util.flatten_dict(fresh, sep='/').keys()
  kernel = got['encoder/embedding/kernel']
  original = state['patch_embed.proj.weight'].transpose(2, 3, 1, 0)
  np.testing.assert_array_equal(kernel[1], original)
  assert not kernel[0].any()
  stage = 'encoder/spatial/' if 'encoder' in fresh_parts else 'encoder/'
  np.testing.assert_array_equal(
    got[f'{stage}block_01/attention/k_bias'],
    state['blocks.1.attn.qkv.bias'][40:80],
  )
  missing = {row.ours for row in coverage.of('missing')}
  assert {name.split('/')[0] for name in missing} == fresh_parts
  if 'encoder' in fresh_parts:
    assert all(
      name.startswith(('head/', 'encoder/temporal/')) for name in missing
    )


def test_inflates_mae_into_videomae(rng):
  state = original_states.image_mae_pretrain_state(_SIZES, rng)
  model = variants.build(
    'B/4x2',
    width=40,
    depth=2,
    heads=4,
    mlp_dim=160,
    decoder_width=20,
    decoder_depth=1,
    decoder_heads=2,
    decoder_mlp_dim=40,
    num_frames=4,
    image_size=(16, 16),
  )
  params, coverage = inflation.inflated(
    _checkpoint(state), _fresh(model, rng), model
  )
  np.testing.assert_array_equal(
    params['encoder']['norm']['scale'], state['norm.weight']
  )
  reasons = {
    name: row.reason for row in coverage.of('ignored') for name in row.theirs
  }
  no_place = 'without a place in this model'
  assert reasons['pos_embed'] == reasons['cls_token'] == no_place
  assert reasons['decoder_pred.bias'] == 'only the encoder is inflated'
  missing = {row.ours.split('/')[0] for row in coverage.of('missing')}
  assert missing == {'bridge', 'decoder', 'mask_token'}


def test_fixed_positions_of_mae_are_inflated(rng):
  state = original_states.image_mae_pretrain_state(_SIZES, rng)
  state = {
    name: value
    for name, value in state.items()
    if not name.startswith(('decoder', 'mask'))
  }
  model = _video_model()
  params, _ = inflation.inflated(_checkpoint(state), _fresh(model, rng), model)
  frame = positions.fixed((1, 4, 4), 40, None, 0, 'sincos_2d')
  table = params['encoder']['position_embedding']
  np.testing.assert_allclose(table[1:], np.tile(frame, (3, 1)), atol=1e-6)
  assert not table[0].any()


def test_inflation_refuses_what_is_no_image_model(rng):
  shapes = scenic.vivit_shapes(Sizes(depth=2, image=(16, 16)))
  state = scenic.random_state(shapes, rng)
  model = _video_model()
  with pytest.raises(ValueError, match='which is no model of images'):
    inflation.inflated(_checkpoint(state), _fresh(model, rng), model)
  with pytest.raises(ValueError, match='holds no model that is known here'):
    inflation.inflated(
      _checkpoint({'a': np.zeros(1)}), _fresh(model, rng), model
    )


def test_inflation_passes_nothing_over_unasked(rng):
  state = original_states.timm_vit_state(_SIZES, rng)
  state['reg_token'] = np.zeros((1, 4, 40), np.float32)
  model = _video_model()
  fresh = _fresh(model, rng)
  with pytest.raises(ValueError, match=r'reg_token .* left'):
    inflation.inflated(_checkpoint(state), fresh, model)
  _, coverage = inflation.inflated(
    _checkpoint(state), fresh, model, partial=True
  )
  assert [row.theirs for row in coverage.of('left')] == [('reg_token',)]
