import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vivit_mae import masking
from vivit_mae.models import encoders, heads, video_mae, vivit

_TINY = {
  'image_size': (16, 24),
  'num_frames': 6,
  'tubelet': (2, 8, 8),
  'channels': 3,
  'width': 24,
  'depth': 2,
  'heads': 4,
  'mlp_dim': 48,
  'temporal_depth': 1,
}


def _model(**fields):
  return vivit.ViViT(**{**_TINY, 'num_classes': 5, **fields})


def _video(rows=2, seed=0):
  return jax.random.normal(jax.random.key(seed), (rows, 6, 16, 24, 3))


def _init(model) -> Any:
  init = functools.partial(model.init, deterministic=True)
  return jax.jit(init)(jax.random.key(0), _video())


def _apply(model, variables, *args, **options) -> Any:
  options = {'deterministic': True, **options}
  method = options.pop('method', '__call__')
  mutable = options.pop('mutable', False)
  return jax.jit(
    lambda v: model.apply(v, *args, method=method, mutable=mutable, **options)
  )(variables)


@pytest.fixture(scope='module')
def variables():
  return _init(_model(class_token='before_positions'))


def test_outputs(variables):
  model = _model(class_token='before_positions')
  out = _apply(model, variables, _video())
  assert set(out.logits) == {'label'}
  assert out.logits['label'].shape == (2, 5)
  assert out.features.shape == (2, 24)
  tokens = _apply(model, variables, _video(), method='features')
  assert tokens.shape == (2, 18, 24)
  pooled = _apply(model, variables, _video(), method='pooled')
  np.testing.assert_array_equal(pooled, out.features)
  np.testing.assert_allclose(pooled, tokens.mean(1), atol=1e-5)
  layer = variables['params']['head']['label']
  np.testing.assert_allclose(
    out.logits['label'], pooled @ layer['kernel'] + layer['bias'], atol=1e-5
  )
  # Rows do not mix.
  alone = _apply(model, variables, _video()[1:])
  np.testing.assert_allclose(alone.features, pooled[1:], atol=1e-5)


@pytest.mark.parametrize('pooling', heads.POOLINGS)
def test_poolings(variables, pooling):
  model = _model(class_token='before_positions', pooling=pooling)
  pooled = _apply(model, variables, _video(), method='pooled')
  tokens = _apply(model, variables, _video(), method='features')
  if pooling == 'token':
    assert jnp.abs(pooled[:, None] - tokens).max(-1).min() > 1e-3
  else:
    expected = heads.POOLINGS[pooling](tokens, None)
    np.testing.assert_allclose(pooled, expected, atol=1e-5)


def test_a_deferred_norm_is_the_encoders_behind_the_pooling():
  model = _model(norm='deferred')
  variables = _init(model)
  params = variables['params']
  assert 'norm' in params['encoder']
  assert 'norm' not in params['head']
  scale = jnp.linspace(0.5, 2.0, 24)
  params['encoder']['norm'] = {'scale': scale, 'bias': scale - 1}
  tokens = _apply(model, variables, _video(), method='features')
  mean = tokens.mean(1)
  normed = (mean - mean.mean(-1, keepdims=True)) / jnp.sqrt(
    mean.var(-1, keepdims=True) + 1e-6
  )
  pooled = _apply(model, variables, _video(), method='pooled')
  np.testing.assert_allclose(pooled, normed * scale + scale - 1, atol=1e-5)
  with pytest.raises(ValueError, match="'deferred' needs an encoder of one"):
    _model(norm='deferred', factorisation='encoder').check()
  with pytest.raises(ValueError, match="'deferred' stands behind a pooling"):
    _model(norm='deferred', head='attentive').check()


@pytest.mark.parametrize('norm', ['before_pooling', 'after_pooling'])
def test_the_norm_stands_before_or_after_pooling(norm):
  params = _init(_model(norm=norm))['params']
  assert ('norm' in params['encoder']) == (norm == 'before_pooling')
  assert ('norm' in params['head']) == (norm == 'after_pooling')
  factorised = _init(_model(norm=norm, factorisation='encoder'))['params']
  assert 'norm' in factorised['encoder']['spatial']
  before = norm == 'before_pooling'
  assert ('norm' in factorised['encoder']['temporal']) == before
  spatial = _init(
    _model(norm=norm, factorisation='encoder', spatial_only=True)
  )['params']['encoder']
  assert ('norm' in spatial['spatial']) == before


@pytest.mark.parametrize('class_token', ['none', 'after_positions'])
@pytest.mark.parametrize('spatial_only', [False, True])
def test_model_2_pools_frames_then_the_clip(class_token, spatial_only):
  pooling = 'max' if class_token == 'none' else 'token'
  model = _model(
    factorisation='encoder', class_token=class_token, pooling=pooling,
    spatial_only=spatial_only,
  )  # fmt: skip
  variables = _init(model)
  got = _apply(model, variables, _video(), method='pooled')

  def by_hand(model):
    output = model.encoder(_video(), None, deterministic=True, row_keys=None)
    return output.frames.max(1) if pooling == 'max' else output.cls

  expected: Any = model.apply(variables, method=by_hand)
  np.testing.assert_allclose(got, expected, atol=1e-5)
  tokens = _apply(model, variables, _video(), method='features')
  assert tokens.shape == (2, 18, 24)
  if spatial_only and pooling == 'max':
    np.testing.assert_allclose(
      got, tokens.reshape(2, 3, 6, 24).max(2).mean(1), atol=1e-5
    )


def test_the_encoder_is_that_of_video_mae():
  for kind in encoders.FACTORISATIONS:
    classifier = _model(factorisation=kind, norm='before_pooling')
    pretraining = video_mae.VideoMAE(
      **_TINY, factorisation=kind, decoder_width=16, decoder_depth=1,
      decoder_heads=2, decoder_mlp_dim=32,
    )  # fmt: skip
    keys = jax.random.split(jax.random.key(0), 2)
    mask = masking.sample(keys, 'tube', 0.5, (3, 2, 3))
    pretrained = jax.jit(
      functools.partial(pretraining.init, deterministic=True)
    )(jax.random.key(1), _video(), mask)
    variables = _init(classifier)
    encoder = pretrained['params']['encoder']
    assert jax.tree.map(jnp.shape, encoder) == jax.tree.map(
      jnp.shape, variables['params']['encoder']
    )
    variables['params']['encoder'] = encoder
    np.testing.assert_allclose(
      _apply(classifier, variables, _video(), method='features'),
      _apply(pretraining, pretrained, _video(), method='features'),
      atol=1e-5,
    )


def test_uniform_frames_are_embedded_one_by_one():
  model = _model(embedding='uniform_frames', num_frames=6)
  variables = _init(model)
  kernel = variables['params']['encoder']['embedding']['kernel']
  assert kernel.shape == (1, 8, 8, 3, 24)
  # 3 of 6 frames: 1.5, 3 and 4.5, halves to the even number.
  picked = _video()[:, jnp.array([2, 3, 4])]
  frames = _model(num_frames=3, tubelet=(1, 8, 8))
  np.testing.assert_allclose(
    _apply(model, variables, _video(), method='features'),
    _apply(frames, variables, picked, method='features'),
    atol=1e-6,
  )


def test_several_heads_and_a_representation():
  model = _model(num_classes=(('noun', 7), ('verb', 3)), representation_size=10)
  variables = _init(model)
  assert set(variables['params']['head']) == {'pre_logits', 'noun', 'verb'}
  out = _apply(model, variables, _video())
  assert out.logits['noun'].shape == (2, 7)
  assert out.logits['verb'].shape == (2, 3)
  assert model.total_classes == 10


@pytest.mark.parametrize('kind', encoders.FACTORISATIONS)
def test_an_attentive_head_reads_all_tokens(kind):
  model = _model(head='attentive', factorisation=kind)
  variables = _init(model)
  assert set(variables['params']['head']) == {'pool', 'label'}
  tokens = _apply(model, variables, _video(), method='features')
  pool = heads.AttentivePool(heads=4, mlp_dim=48)
  expected: Any = pool.apply(
    {'params': variables['params']['head']['pool']}, tokens
  )
  got = _apply(model, variables, _video(), method='pooled')
  np.testing.assert_allclose(got, expected, atol=1e-5)


def test_a_probe_trains_the_head_only():
  model = _model(probe=True, probe_batch_norm=True)
  variables = _init(model)
  assert set(variables['batch_stats']['head']['batch_norm']) == {'mean', 'var'}

  def loss(params, stats):
    out, mutated = model.apply(
      {'params': params, 'batch_stats': stats}, _video(),
      deterministic=False, mutable=['batch_stats'],
    )  # fmt: skip
    assert isinstance(out, vivit.ClassifierOutput)
    return jnp.square(out.logits['label'] - 1).sum(), mutated['batch_stats']

  gradient, stats = jax.jit(jax.grad(loss, has_aux=True))(
    variables['params'], variables['batch_stats']
  )
  assert not any(leaf.any() for leaf in jax.tree.leaves(gradient['encoder']))
  assert gradient['head']['label']['kernel'].any()
  changed = jax.tree.map(
    lambda a, b: bool((a != b).any()), stats, variables['batch_stats']
  )
  assert all(jax.tree.leaves(changed))


@pytest.mark.parametrize(
  ('kind', 'class_token'),
  [(kind, 'none') for kind in encoders.FACTORISATIONS]
  + [('none', 'before_positions'), ('encoder', 'before_positions')],
)
def test_training_lowers_the_loss_and_reaches_every_parameter(
  kind, class_token
):
  model = _model(
    factorisation=kind, class_token=class_token, positions='learned_1d',
    pooling='mean' if class_token == 'none' else 'token', drop_path=0.1,
    dropout=0.1, head_dropout=0.1, initialisation='vivit', gelu='tanh',
    drop_path_rescale=False,
  )  # fmt: skip
  variables = _init(model)
  video, labels = _video(4), jnp.arange(4)

  def loss(variables, keys):
    out: Any = model.apply(variables, video, deterministic=False, row_keys=keys)
    return optax.softmax_cross_entropy_with_integer_labels(
      out.logits['label'], labels
    ).mean()

  optimizer = optax.adam(3e-3)

  @jax.jit
  def step(variables, state, keys):
    value, gradient = jax.value_and_grad(loss)(variables, keys)
    updates, state = optimizer.update(gradient, state)
    return optax.apply_updates(variables, updates), state, value, gradient

  state = optimizer.init(variables)
  losses = []
  for i in range(25):
    keys = jax.random.split(jax.random.key(i), 4)
    variables, state, value, gradient = step(variables, state, keys)
    losses.append(float(value))
  assert losses[-1] < 0.5 * losses[0]
  for path, leaf in jax.tree.leaves_with_path(gradient):
    assert jnp.abs(leaf).max() > 1e-9, jax.tree_util.keystr(path)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'embedding': 'frames'}, r"'frames' is unknown.*'uniform_frames'"),
    ({'pooling': 'gap'}, r"'gap' is unknown.*'mean'"),
    ({'pooling': 'token'}, "pooling 'token' needs a class token"),
    ({'norm': 'both'}, r"'both' is unknown.*'after_pooling'"),
    ({'head': 'mlp'}, r"'mlp' is unknown.*'attentive'"),
    ({'num_classes': 0}, "num_classes of head 'label' is 0"),
    ({'head_dropout': 1.5}, 'head_dropout 1.5'),
    ({'representation_size': 0}, 'representation_size 0'),
  ],
)
def test_impossible_fields_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    _model(**fields).check()
