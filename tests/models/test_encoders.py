import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vivit_mae import masking
from vivit_mae.models import encoders, tubelets, video_mae

_TINY = {
  'image_size': (16, 24),
  'num_frames': 6,
  'tubelet': (2, 8, 8),
  'channels': 3,
  'width': 24,
  'depth': 2,
  'heads': 4,
  'mlp_dim': 48,
  'temporal_depth': 2,
  'decoder_width': 16,
  'decoder_depth': 1,
  'decoder_heads': 2,
  'decoder_mlp_dim': 32,
}
_FACTORISED = [name for name in encoders.FACTORISATIONS if name != 'none']


def _model(**fields):
  return video_mae.VideoMAE(**{**_TINY, **fields})


def _video(rows=2, seed=0):
  return jax.random.normal(jax.random.key(seed), (rows, 6, 16, 24, 3))


def _mask(rows=2, kind='tube', seed=0):
  keys = jax.random.split(jax.random.key(seed), rows)
  return masking.sample(keys, kind, 0.5, (3, 2, 3))


def _init(model) -> Any:
  init = functools.partial(model.init, deterministic=True)
  return jax.jit(init)(jax.random.key(0), _video(), _mask())


def _apply(model, variables, *args, **options) -> Any:
  options = {'deterministic': True, **options}
  method = options.pop('method', '__call__')
  return jax.jit(lambda v: model.apply(v, *args, method=method, **options))(
    variables
  )


def _randomised(variables):
  """Parameters with no zeros, so that each of them matters."""
  leaves, tree = jax.tree.flatten(variables)
  keys = jax.random.split(jax.random.key(7), len(leaves))
  return jax.tree.unflatten(
    tree,
    [
      leaf + 0.2 * jax.random.normal(key, leaf.shape)
      for leaf, key in zip(leaves, keys, strict=True)
    ],
  )


def test_the_encoders_have_their_parameters():
  names = {}
  for kind in encoders.FACTORISATIONS:
    model = _model(factorisation=kind, positions='learned_1d')
    shapes = jax.eval_shape(functools.partial(_init, model))
    encoder = shapes['params']['encoder']
    names[kind] = jax.tree.map(jnp.shape, encoder)
  joint = names['none']
  assert set(joint) == {
    'embedding', 'position_embedding', 'block_00', 'block_01', 'norm'
  }  # fmt: skip
  assert joint['position_embedding'] == (18, 24)
  assert names['dot_product'] == joint
  assert set(names['self_attention']['block_01']) == {
    'norm_time', 'attention_time', 'norm_space', 'attention_space', 'norm2',
    'mlp',
  }  # fmt: skip
  assert set(names['encoder']) == {'embedding', 'spatial', 'temporal'}
  for stage, rows in (('spatial', 6), ('temporal', 3)):
    part = names['encoder'][stage]
    assert part['position_embedding'] == (rows, 24)
    assert part['block_01'] == joint['block_01']
    assert part['norm'] == joint['norm']


@pytest.mark.parametrize(
  ('class_token', 'rows'), [('before_positions', 1), ('after_positions', 0)]
)
def test_class_tokens_have_a_position_or_none(class_token, rows):
  for kind in ('none', 'encoder'):
    model = _model(
      factorisation=kind, class_token=class_token, positions='learned_1d'
    )
    shapes = jax.eval_shape(functools.partial(_init, model))
    encoder = shapes['params']['encoder']
    stages = {
      'none': [(encoder, 18)],
      'encoder': [
        (encoder.get('spatial'), 6),
        (encoder.get('temporal'), 3),
      ],
    }
    for stage, places in stages[kind]:
      assert stage['cls_token'].shape == (24,)
      assert stage['position_embedding'].shape == (places + rows, 24)


@pytest.mark.parametrize('class_token', ['none', 'after_positions'])
@pytest.mark.parametrize('kind', encoders.FACTORISATIONS)
def test_all_tokens_by_index_are_all_tokens(kind, class_token):
  if class_token != 'none' and kind in ('self_attention', 'dot_product'):
    pytest.skip('these have no class token')
  model = _model(factorisation=kind, class_token=class_token)
  variables = _randomised(_init(model))
  every = jnp.broadcast_to(jnp.arange(18), (2, 18))
  mask = masking.TokenMask(visible=every, masked=every[:, :0])
  features = _apply(model, variables, _video(), method='features')
  encoded = _apply(model, variables, _video(), mask, method='encode')
  assert features.shape == (2, 18, 24)
  class_rows = int(class_token != 'none')
  assert encoded.shape == (2, 18 + class_rows, 24)
  np.testing.assert_allclose(features, encoded[:, class_rows:], atol=1e-5)


@pytest.mark.parametrize('kind', encoders.FACTORISATIONS)
def test_masked_pixels_are_not_seen(kind):
  model = _model(factorisation=kind)
  variables = _randomised(_init(model))
  video, mask = _video(), _mask()
  patches = tubelets.patchify(video, model.tubelet)
  hidden = jnp.zeros(patches.shape[:2], bool)
  hidden = jax.vmap(lambda row, at: row.at[at].set(True))(hidden, mask.masked)
  other = tubelets.unpatchify(
    jnp.where(hidden[..., None], 7.0, patches), model.grid, model.tubelet
  )
  np.testing.assert_array_equal(
    _apply(model, variables, video, mask).prediction,
    _apply(model, variables, other, mask).prediction,
  )


def _seen_from(model, variables, token):
  """The tokens `[t, h, w]` that change when the pixels of one change."""
  video = _video(1)
  patches = tubelets.patchify(video, model.tubelet)
  other = tubelets.unpatchify(
    patches.at[:, token].add(1.0), model.grid, model.tubelet
  )
  before, after = (
    _apply(model, variables, clip, method='features') for clip in (video, other)
  )
  return np.asarray(jnp.abs(after - before).max(-1) > 1e-6).reshape(3, 2, 3)


@pytest.mark.parametrize('kind', ['self_attention', 'dot_product'])
def test_one_block_looks_along_time_and_space(kind):
  model = _model(factorisation=kind, depth=1)
  variables = _randomised(_init(model))
  seen = _seen_from(model, variables, 7)  # frame 1, place (0, 1)
  expected = np.zeros((3, 2, 3), bool)
  if kind == 'dot_product':
    expected[1] = True
    expected[:, 0, 1] = True
  else:
    # Over time first, then each frame hands it on to its places.
    expected[:] = True
  np.testing.assert_array_equal(seen, expected)


def test_the_order_of_attentions_matters():
  models = [
    _model(factorisation='self_attention', attention_order=order)
    for order in ('time_space', 'space_time')
  ]
  variables = _randomised(_init(models[0]))
  first, second = (
    _apply(model, variables, _video(), method='features') for model in models
  )
  assert jnp.abs(first - second).max() > 1e-3


def test_the_spatial_encoder_sees_one_frame():
  model = _model(factorisation='encoder', spatial_only=True)
  variables = _randomised(_init(model))
  assert 'temporal' not in variables['params']['encoder']
  expected = np.zeros((3, 2, 3), bool)
  expected[1] = True
  np.testing.assert_array_equal(_seen_from(model, variables, 7), expected)
  whole = _model(factorisation='encoder')
  assert _seen_from(whole, _randomised(_init(whole)), 7).all()


def test_frames_are_encoded_as_clips_of_their_own():
  model = _model(factorisation='encoder')
  variables = _randomised(_init(model))
  video = _video()

  def by_hand(model):
    encoder = model.encoder
    x = encoder.embedding(tubelets.patchify(video, model.tubelet))
    options = {'deterministic': True, 'row_keys': None}
    frames = [
      encoder.space.encode(x[:, 6 * t : 6 * t + 6], None, **options)[0]
      for t in range(3)
    ]
    pooled = jnp.stack([frame.mean(1) for frame in frames], axis=1)
    times, _ = encoder.time.encode(pooled, None, **options)
    return jnp.concatenate(
      [frame + times[:, t, None] for t, frame in enumerate(frames)], axis=1
    )

  expected: Any = model.apply(variables, method=by_hand)
  got = _apply(model, variables, video, method='features')
  np.testing.assert_allclose(got, expected, atol=1e-5)


def test_frames_of_a_clip_share_what_they_draw():
  model = _model(
    factorisation='encoder', spatial_only=True, drop_path=0.5,
    drop_path_rescale=False,
  )  # fmt: skip
  variables = _randomised(_init(model))
  video = jnp.concatenate([_video(16)[:, :2]] * 3, axis=1)
  keys = jax.random.split(jax.random.key(1), 16)
  tokens = _apply(
    model, variables, video, method='features', deterministic=False,
    row_keys=keys,
  )  # fmt: skip
  frames = jnp.unstack(tokens.reshape(16, 3, 6, 24), axis=1)
  for frame in frames[1:]:
    np.testing.assert_allclose(frame, frames[0], atol=1e-5)
  # Not rescaled, so a row that drops nothing is what it always is.
  plain = _apply(model, variables, video, method='features')
  changed = jnp.abs(tokens - plain).max((1, 2)) > 1e-3
  assert 4 <= changed.sum() < 16


@pytest.mark.parametrize('kind', encoders.FACTORISATIONS)
def test_scan_remat_dropout_and_rows(kind):
  options = {'factorisation': kind, 'drop_path': 0.3, 'dropout': 0.1}
  variables = _randomised(_init(_model(**options)))
  keys = jax.random.split(jax.random.key(3), 3)
  video, mask = _video(3), _mask(3)
  loop = _apply(
    _model(**options), variables, video, mask,
    deterministic=False, row_keys=keys,
  ).prediction  # fmt: skip
  scan = _apply(
    _model(scan=True, remat='dots', **options), variables, video, mask,
    deterministic=False, row_keys=keys,
  ).prediction  # fmt: skip
  np.testing.assert_allclose(loop, scan, atol=1e-4)
  last = _apply(
    _model(**options), variables, video[2:],
    jax.tree.map(lambda x: x[2:], mask),
    deterministic=False, row_keys=keys[2:],
  ).prediction  # fmt: skip
  np.testing.assert_allclose(loop[2:], last, atol=1e-4)
  plain = _apply(_model(**options), variables, video, mask).prediction
  assert jnp.abs(plain - loop).max() > 1e-3


@pytest.mark.parametrize('kind', encoders.FACTORISATIONS)
def test_pretraining_lowers_the_loss_and_reaches_every_parameter(kind):
  model = _model(factorisation=kind, positions='learned_1d')
  variables = _init(model)
  rows = jnp.linspace(-1, 1, 16)[:, None, None]
  phases = jnp.arange(4.0)[:, None, None, None, None]
  video = jnp.sin(3 * rows + jnp.arange(6.0)[:, None, None, None] + phases)
  video = jnp.broadcast_to(video, (4, 6, 16, 24, 3))
  target = tubelets.patchify(video, model.tubelet)
  mask = _mask(4)

  def loss(variables):
    prediction: Any = model.apply(variables, video, mask, deterministic=True)
    wanted = tubelets.gather_tokens(target, mask.masked)
    return jnp.mean(jnp.square(prediction.prediction - wanted))

  optimizer = optax.adam(1e-2)

  @jax.jit
  def step(variables, state):
    value, gradient = jax.value_and_grad(loss)(variables)
    updates, state = optimizer.update(gradient, state)
    return optax.apply_updates(variables, updates), state, value, gradient

  state = optimizer.init(variables)
  losses = []
  for _ in range(40):
    variables, state, value, gradient = step(variables, state)
    losses.append(float(value))
  assert losses[-1] < 0.4 * losses[0]
  for path, leaf in jax.tree.leaves_with_path(gradient):
    assert jnp.abs(leaf).max() > 1e-9, jax.tree_util.keystr(path)


@pytest.mark.parametrize('kind', _FACTORISED)
def test_ragged_masks_are_refused(kind):
  model = _model(factorisation=kind)
  mask = masking.TokenMask(
    visible=jnp.arange(8)[None], masked=jnp.arange(8, 18)[None]
  )
  with pytest.raises(ValueError, match=r'8 .*tokens are no rectangle of 3'):
    model.init(jax.random.key(0), _video(1), mask, deterministic=True)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'factorisation': 'time'}, r"'time' is unknown.*'self_attention'"),
    (
      {'factorisation': 'dot_product', 'heads': 3},
      'heads 3 must be even',
    ),
    (
      {'factorisation': 'dot_product', 'class_token': 'before_positions'},
      r"class_token 'before_positions' .* take 'none'",
    ),
    ({'spatial_only': True}, "spatial_only True needs factorisation 'encoder'"),
    (
      {'attention_order': 'space_time'},
      "'space_time' needs factorisation 'self_attention'",
    ),
    ({'class_token': 'yes'}, r"'yes' is unknown.*'after_positions'"),
    ({'positions': 'fixed'}, r"'fixed' is unknown.*'learned_1d'"),
    ({'gelu': 'fast'}, r"'fast' is unknown.*'tanh'"),
    ({'initialisation': 'zeros'}, r"'zeros' is unknown.*'vivit'"),
    ({'temporal_depth': 0}, 'temporal_depth 0'),
    ({'dropout': 1.0}, r'dropout 1.0 .* \[0, 1\)'),
  ],
)
def test_impossible_fields_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    _model(**fields).check()


@pytest.mark.parametrize(
  ('path', 'joint', 'factorised'),
  [
    ('encoder/embedding/kernel', 0, 0),
    ('encoder/position_embedding', 0, 0),
    ('encoder/block_00/mlp/fc1/kernel', 1, None),
    ('encoder/block_01/norm1/scale', 2, None),
    ('encoder/norm/scale', 3, None),
    ('encoder/spatial/cls_token', None, 0),
    ('encoder/spatial/block_01/norm1/scale', None, 2),
    ('encoder/spatial/norm/bias', None, 2),
    ('encoder/temporal/position_embedding', None, 2),
    ('encoder/temporal/block_00/norm1/scale', None, 3),
    ('encoder/temporal/block_01/attention/q_bias', None, 4),
    ('encoder/temporal/norm/scale', None, 5),
    ('head/label/kernel', 3, 5),
    ('decoder/block_00/norm1/scale', 3, 5),
  ],
)
def test_layers_of_parameters(path, joint, factorised):
  if joint is not None:
    assert _model().layer_of(path) == joint
  if factorised is not None:
    assert _model(factorisation='encoder').layer_of(path) == factorised


def test_saved_position_tables_are_adapted():
  model = _model(
    positions='learned_1d',
    factorisation='encoder',
    position_grid=(2, 2, 2),
  )
  name = 'encoder/temporal/position_embedding'
  table = np.array([[9.0], [0.0], [1.0]])
  adapted = model.adapt(name, table, (4, 1))
  assert adapted is not None
  np.testing.assert_allclose(adapted[:, 0], [9.0, 0.0, 0.5, 1.0])
  name = 'encoder/spatial/position_embedding'
  adapted = model.adapt(name, np.arange(4.0)[:, None], (6, 1))
  assert adapted is not None
  np.testing.assert_allclose(adapted[:, 0], [0, 0.5, 1, 2, 2.5, 3])
  assert model.adapt(name, np.zeros((4, 8)), (6, 1)) is None
  assert model.adapt('encoder/norm/scale', np.zeros(3), (6,)) is None
  whole = _model(positions='learned_1d', position_grid=(3, 1, 3))
  table = np.repeat(np.arange(3.0), 3)[:, None]
  adapted = whole.adapt('encoder/position_embedding', table, (18, 1))
  assert adapted is not None
  np.testing.assert_allclose(adapted, np.repeat(np.arange(3.0), 6)[:, None])


def test_a_fixed_table_of_another_grid_is_resized():
  model = _model(position_grid=(3, 2, 2))
  variables = _init(model)
  same = _model()
  got = _apply(model, variables, _video(), method='features')
  assert jnp.abs(got - _apply(same, variables, _video(), method='features')
  ).max() > 1e-3  # fmt: skip
