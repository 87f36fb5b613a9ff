import dataclasses
import functools
from typing import Any

import flax.nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vivit_mae import masking
from vivit_mae.models import positions, tubelets, video_mae

_TINY = {
  'image_size': (16, 24),
  'num_frames': 4,
  'tubelet': (2, 8, 8),
  'channels': 3,
  'width': 24,
  'depth': 2,
  'heads': 3,
  'mlp_dim': 48,
  'decoder_width': 16,
  'decoder_depth': 2,
  'decoder_heads': 2,
  'decoder_mlp_dim': 32,
}


def _model(**overrides):
  return video_mae.VideoMAE(**{**_TINY, **overrides})


def _video(model, rows=2, seed=0):
  shape = (rows, model.num_frames, *model.image_size, model.channels)
  return jax.random.normal(jax.random.key(seed), shape)


def _mask(model, rows=2, ratio=0.5, kind='tube', seed=0):
  keys = jax.random.split(jax.random.key(seed), rows)
  return masking.sample(keys, kind, ratio, model.grid)


def _init(model) -> Any:
  init = jax.jit(functools.partial(model.init, deterministic=True))
  return init(jax.random.key(0), _video(model), _mask(model))


def _apply(model, variables, *args, **options) -> Any:
  options = {'deterministic': True, **options}
  method = options.pop('method', '__call__')
  return jax.jit(lambda v: model.apply(v, *args, method=method, **options))(
    variables
  )


@pytest.fixture(scope='module')
def variables():
  return _init(_model())


def test_parameter_names(variables):
  params = variables['params']
  assert set(params) == {'encoder', 'bridge', 'mask_token', 'decoder'}
  assert set(params['encoder']) == {'embedding', 'block_00', 'block_01', 'norm'}
  assert set(params['decoder']) == {'block_00', 'block_01', 'norm', 'head'}
  assert set(params['bridge']) == {'kernel'}
  assert params['encoder']['embedding']['kernel'].shape == (2, 8, 8, 3, 24)


def test_initial_bridge_and_mask_token():
  wide = _model(width=384, decoder_width=192, depth=1, decoder_depth=1)
  params = _init(wide)['params']
  bound = 384**-0.5
  kernel = params['bridge']['kernel']
  assert 0.999 * bound < jnp.abs(kernel).max() <= bound
  token = params['mask_token']
  assert jnp.abs(token).max() <= 0.02
  # The deviation of a standard normal cut at one is .5396.
  np.testing.assert_allclose(token.std(), 0.02 * 0.5396, rtol=0.15)


def test_shapes_and_types(variables):
  model = _model()
  mask = _mask(model)
  out = _apply(model, variables, _video(model), mask)
  assert out.encoded.shape == (2, 6, 24)
  assert out.prediction.shape == (2, 6, 2 * 8 * 8 * 3)
  assert out.encoded.dtype == out.prediction.dtype == jnp.float32


def test_encoding_gathers_before_embedding(variables):
  model = _model()
  video, mask = _video(model), _mask(model)
  encoded = _apply(model, variables, video, mask, method='encode')

  def embed_all_then_gather(model):
    encoder = model.encoder
    tokens = encoder.embedding(tubelets.patchify(video, model.tubelet))
    tokens = tokens + positions.sincos_1d(12, model.width)
    tokens = tubelets.gather_tokens(tokens, mask.visible)
    return encoder.norm(encoder.blocks(tokens, deterministic=True))

  expected: Any = model.apply(variables, method=embed_all_then_gather)
  np.testing.assert_allclose(encoded, expected, atol=2e-6)


def test_masked_pixels_are_not_seen(variables):
  model = _model()
  video, mask = _video(model), _mask(model)
  patches = tubelets.patchify(video, model.tubelet)
  hidden = jnp.zeros(patches.shape[:2], bool)
  hidden = jax.vmap(lambda row, at: row.at[at].set(True))(hidden, mask.masked)
  other = tubelets.unpatchify(
    jnp.where(hidden[..., None], 7.0, patches), model.grid, model.tubelet
  )
  for a, b in zip(
    jax.tree.leaves(_apply(model, variables, video, mask)),
    jax.tree.leaves(_apply(model, variables, other, mask)),
    strict=True,
  ):
    np.testing.assert_array_equal(a, b)


def test_features_are_the_encoding_of_everything(variables):
  model = _model()
  video = _video(model)
  every = jnp.broadcast_to(jnp.arange(12), (2, 12))
  mask = masking.TokenMask(visible=every, masked=every[:, :0])
  features = _apply(model, variables, video, method='features')
  assert features.shape == (2, 12, 24)
  np.testing.assert_allclose(
    features,
    _apply(model, variables, video, mask, method='encode'),
    atol=2e-6,
  )


def test_call_is_encode_then_decode(variables):
  model = _model()
  video, mask = _video(model), _mask(model)
  out = _apply(model, variables, video, mask)
  encoded = _apply(model, variables, video, mask, method='encode')
  decoded = _apply(model, variables, encoded, mask, method='decode')
  np.testing.assert_allclose(out.encoded, encoded, atol=1e-6)
  np.testing.assert_allclose(out.prediction, decoded, atol=1e-5)


def test_decoding_the_masked_tokens_by_name_changes_nothing(variables):
  model = _model()
  video, mask = _video(model), _mask(model)
  np.testing.assert_array_equal(
    _apply(model, variables, video, mask).prediction,
    _apply(
      model, variables, video, dataclasses.replace(mask, decoded=mask.masked)
    ).prediction,
  )


def test_dual_masking_predicts_the_decoded_tokens(variables):
  model = _model(image_size=(32, 32))
  video = _video(model)
  mask = masking.with_decoder(
    _mask(model), _mask(model, kind='running_cell', seed=1)
  )
  out = _apply(model, variables, video, mask)
  assert out.prediction.shape == (2, 16, 384)
  # Decoded tokens attend to each other, so their set shows in each of them.
  fewer = dataclasses.replace(mask, decoded=mask.decoded[:, :8])
  other = _apply(model, variables, video, fewer)
  assert other.prediction.shape == (2, 8, 384)
  assert jnp.abs(out.prediction[:, :8] - other.prediction).max() > 1e-4
  np.testing.assert_array_equal(out.encoded, other.encoded)


def test_rows_do_not_mix(variables):
  model = _model()
  video, mask = _video(model, 3), _mask(model, 3)
  whole = _apply(model, variables, video, mask)
  last = _apply(
    model, variables, video[2:], jax.tree.map(lambda x: x[2:], mask)
  )
  np.testing.assert_allclose(whole.prediction[2:], last.prediction, atol=1e-5)


def test_scan_with_remat_gives_the_same_output(variables):
  video, mask = _video(_model()), _mask(_model())
  options = {
    'deterministic': False,
    'row_keys': jax.random.split(jax.random.key(3), 2),
  }
  loop = _apply(_model(drop_path=0.5), variables, video, mask, **options)
  scan = _apply(
    _model(drop_path=0.5, scan=True, remat='full'),
    variables,
    video,
    mask,
    **options,
  )
  np.testing.assert_allclose(scan.prediction, loop.prediction, atol=1e-5)
  plain = _apply(_model(), variables, video, mask)
  assert jnp.abs(loop.prediction - plain.prediction).max() > 1e-3


def test_encoder_and_decoder_drop_independently():
  # The layers of the decoder are numbered after those of the encoder.
  model = _model(drop_path=0.5)
  bound: Any = model.bind(_init(model))
  assert bound.encoder.blocks.first_layer == 0
  assert bound.decoder.blocks.first_layer == 2


@pytest.mark.parametrize(
  'overrides',
  [
    {'image_size': (8, 32), 'tubelet': (2, 4, 8)},
    {'tubelet': (1, 8, 8), 'num_frames': 3},
    {'tubelet': (4, 4, 4), 'channels': 1},
    {'channels': 4, 'num_frames': 8},
    {'target_dim': 192, 'layer_scale': 0.1, 'qkv_bias': 'qkv'},
  ],
)
def test_sizes_are_free(overrides):
  model = _model(**overrides)
  shapes = jax.eval_shape(
    lambda: model.init_with_output(
      jax.random.key(0), _video(model), _mask(model), deterministic=True
    )[0]
  )
  visible = masking.num_visible('tube', 0.5, model.grid)
  tokens = int(np.prod(model.grid))
  dim = overrides.get('target_dim', model.patch_dim)
  assert shapes.encoded.shape == (2, visible, 24)
  assert shapes.prediction.shape == (2, tokens - visible, dim)


def test_bfloat16_has_float32_parameters_and_outputs(variables):
  exact, model = _model(), _model(dtype='bfloat16')
  leaves = jax.tree.leaves(_init(model))
  assert {leaf.dtype for leaf in leaves} == {jnp.dtype('float32')}
  video, mask = _video(model), _mask(model)
  got = _apply(model, variables, video, mask)
  expected = _apply(exact, variables, video, mask)
  assert got.prediction.dtype == got.encoded.dtype == jnp.float32
  difference = jnp.abs(got.prediction - expected.prediction).max()
  assert 1e-5 < difference < 0.1


def test_wrong_videos_and_missing_keys_are_refused(variables):
  model = _model()
  video, mask = _video(model), _mask(model)
  with pytest.raises(ValueError, match=r'\(any, 4, 16, 24, 3\)'):
    model.apply(variables, video[:, :2], mask, deterministic=True)
  with pytest.raises(ValueError, match='image_size height 12'):
    _model(image_size=(12, 24)).apply(
      variables, video, mask, deterministic=True
    )
  with pytest.raises(ValueError, match='needs row_keys, one key for each row'):
    _model(drop_path=0.1).apply(variables, video, mask, deterministic=False)


def test_nnx_users_can_take_the_model(variables):
  model = _model()
  video, mask = _video(model), _mask(model)
  bridged = flax.nnx.bridge.ToNNX(model, rngs=flax.nnx.Rngs(0))
  flax.nnx.bridge.lazy_init(bridged, video, mask, deterministic=True)
  state = flax.nnx.to_pure_dict(flax.nnx.state(bridged, flax.nnx.Param))
  got: Any = bridged(video, mask, deterministic=True)
  expected = _apply(model, {'params': state}, video, mask)
  np.testing.assert_allclose(got.prediction, expected.prediction, atol=1e-5)
