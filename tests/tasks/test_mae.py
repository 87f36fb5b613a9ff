import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vivit_mae import config as config_lib
from vivit_mae import masking, tasks
from vivit_mae.models import tubelets, video_mae
from vivit_mae.tasks import mae


def tiny_config(**sections):
  config = config_lib.defaults()
  config.model.update(
    variant='Ti/8x2',
    num_frames=4,
    image_size=(32, 16),
    width=32,
    depth=2,
    heads=2,
    mlp_dim=64,
    decoder_width=16,
    decoder_depth=1,
    decoder_heads=2,
    decoder_mlp_dim=32,
  )
  config.mask.ratio = 0.75
  for name, fields in sections.items():
    config[name].update(fields)
  return config


def tiny_task(**sections) -> mae.MaskedAutoencoding:
  task = tasks.build(tiny_config(**sections))
  assert isinstance(task, mae.MaskedAutoencoding)
  return task


def factorised_task(*, model, mask=None) -> mae.MaskedAutoencoding:
  """A task whose model has further fields."""
  config = tiny_config(mask=mask or {})
  with config.unlocked():
    config.model.update(temporal_depth=2, **model)
  task = tasks.build(config)
  assert isinstance(task, mae.MaskedAutoencoding)
  return task


def make_batch(rows=3, size=(32, 16), seed=0):
  rng = np.random.default_rng(seed)
  video = rng.integers(0, 256, (rows, 4, *size, 3), np.uint8)
  return {'video': jnp.asarray(video), 'valid': jnp.ones(rows, bool)}


def row_keys(rows=3, seed=0):
  return jax.random.split(jax.random.key(seed), rows)


def constant(value, monkeypatch):
  """Makes every model predict one value."""

  def apply(self, variables, video, mask, **options):
    del variables, options
    shape = (*mask.masked.shape, self.target_dim)
    return video_mae.VideoMAEOutput(
      prediction=jnp.full(shape, value, jnp.float32),
      encoded=jnp.zeros((*mask.visible.shape, self.width)),
    )

  monkeypatch.setattr(video_mae.VideoMAE, 'apply', apply)


def test_a_task_fits_the_contract():
  assert isinstance(tiny_task(), tasks.Task)


def test_loss_is_the_squared_error_of_the_masked_tubelets(monkeypatch):
  task = tiny_task(target=dict(normalise='channel'))
  batch, keys = make_batch(), row_keys()
  seen = {}
  predict = mae.MaskedAutoencoding.predict

  def spy(self, variables, inputs, mask, **options):
    prediction = predict(self, variables, inputs, mask, **options)
    seen.update(inputs=inputs, mask=mask, prediction=prediction)
    return prediction

  monkeypatch.setattr(mae.MaskedAutoencoding, 'predict', spy)

  @jax.jit
  def run(variables, batch, keys):
    return task.loss(variables, batch, keys), seen

  variables = jax.jit(task.init)(jax.random.key(1))
  (loss, (metrics, mutated)), seen = run(variables, batch, keys)
  assert mutated == {}
  assert loss.dtype == jnp.float32

  # By hand, from VideoMAE's description, in float64.
  video = np.asarray(batch['video'], np.float64) / 255
  np.testing.assert_allclose(
    seen['inputs'],
    (video - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
    atol=1e-5,
  )
  masked = np.asarray(seen['mask'].masked)
  assert masked.shape == (3, 12)
  errors = []
  for row in range(3):
    for place, token in enumerate(masked[row]):
      t, h, w = np.unravel_index(token, (2, 4, 2))
      tubelet = video[
        row, 2 * t : 2 * t + 2, 8 * h : 8 * h + 8, 8 * w : 8 * w + 8
      ].reshape(-1, 3)
      target = (tubelet - tubelet.mean(0)) / (tubelet.std(0, ddof=1) + 1e-6)
      errors.append((seen['prediction'][row, place] - target.ravel()) ** 2)
  np.testing.assert_allclose(loss, np.mean(errors), rtol=1e-5)
  np.testing.assert_allclose(metrics.compute()['loss'], loss, rtol=1e-6)


def test_rows_that_are_not_valid_count_nowhere():
  task = tiny_task()
  variables = jax.jit(task.init)(jax.random.key(0))
  run = jax.jit(task.loss)
  keys = row_keys(4)
  batch = make_batch(4)
  two = {name: value[:2] for name, value in batch.items()}
  expected, (metrics, _) = run(variables, two, keys[:2])
  batch['valid'] = jnp.array([True, True, False, False])
  loss, (padded, _) = run(variables, batch, keys)
  np.testing.assert_allclose(loss, expected, rtol=1e-6)
  np.testing.assert_allclose(
    padded.compute()['loss'], metrics.compute()['loss'], rtol=1e-6
  )
  batch['valid'] = jnp.zeros(4, bool)
  (loss, _), grads = jax.jit(jax.value_and_grad(task.loss, has_aux=True))(
    variables, batch, keys
  )
  assert loss == 0
  assert all(not np.any(leaf) for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize('normalise', ['channel', 'patch'])
def test_predicting_nothing_costs_about_one(monkeypatch, normalise):
  constant(0.0, monkeypatch)
  task = tiny_task(target=dict(normalise=normalise))
  loss, _ = task.loss({}, make_batch(), row_keys())
  # The variance is unbiased: (n - 1) / n of 1, n = 128 or 384 pixels.
  size = 128 if normalise == 'channel' else 384
  np.testing.assert_allclose(loss, (size - 1) / size, rtol=1e-4)


def test_raw_pixels_cost_their_own_square(monkeypatch):
  constant(0.0, monkeypatch)
  task = tiny_task(target=dict(normalise='none'))
  batch = make_batch()
  batch['video'] = jnp.full_like(batch['video'], 51)
  loss, _ = task.loss({}, batch, row_keys())
  np.testing.assert_allclose(loss, 0.2**2, rtol=1e-5)


def test_masks_and_drop_path_follow_the_row_keys():
  task = tiny_task(model=dict(drop_path=0.5))
  variables = jax.jit(task.init)(jax.random.key(0))
  run = jax.jit(task.loss)
  batch = make_batch(4)
  batch['video'] = jnp.broadcast_to(batch['video'][:1], batch['video'].shape)
  keys = row_keys(4)

  def per_row(keys):
    """The loss of each row alone."""
    rows = []
    for row in range(4):
      valid = jnp.arange(4) == row
      loss, _ = run(variables, batch | {'valid': valid}, keys)
      rows.append(float(loss))
    return np.array(rows)

  losses = per_row(keys)
  assert len(set(losses.round(6))) == 4
  np.testing.assert_allclose(per_row(keys[::-1]), losses[::-1], rtol=1e-5)


@pytest.mark.parametrize(
  ('kind', 'frames', 'dim'), [('tube', 'all', 384), ('random', 'one', 192)]
)
def test_the_head_predicts_what_the_target_is(kind, frames, dim):
  task = tiny_task(
    mask=dict(kind=kind, rounding='visible_down'), target=dict(frames=frames)
  )
  assert task.target.dim == task.model.target_dim == dim
  shapes = jax.eval_shape(task.init, jax.random.key(0))
  assert shapes['params']['decoder']['head']['kernel'].shape == (16, dim)
  mask = task.sample_mask(row_keys())
  assert mask.visible.shape == (3, 4)
  assert task.model.grid == tubelets.grid(4, (32, 16), (2, 8, 8)) == (2, 4, 2)


@pytest.mark.parametrize('kind', ['tube', 'random'])
def test_flops_are_what_xla_counts(kind):
  # Wide enough that the matrix products outweigh all else.
  task = tiny_task(
    model=dict(
      image_size=(64, 64), width=128, heads=4, mlp_dim=512, attention='xla',
      decoder_width=64, decoder_mlp_dim=256,
    ),
    mask=dict(kind=kind),
  )  # fmt: skip
  task = dataclasses.replace(task, model=task.model.clone(scan=False))
  batch = jax.eval_shape(lambda: make_batch(1, (64, 64)))
  variables = jax.eval_shape(task.init, jax.random.key(0))
  keys = jax.eval_shape(lambda: row_keys(1))
  cost = jax.jit(task.loss).lower(variables, batch, keys).compile()
  analysis = cost.cost_analysis()
  assert analysis
  assert 0.85 < task.flops_per_clip() / analysis['flops'] <= 1


def test_an_unknown_task_lists_the_known():
  config = tiny_config()
  config.task = 'mea'
  with pytest.raises(ValueError, match=r"config\.task is 'mea'.*'mae'\]"):
    tasks.build(config)


@pytest.mark.parametrize(
  ('section', 'fields', 'message'),
  [
    ('target', dict(normalise='chanel'), 'chanel'),
    ('target', dict(kind='hog'), 'hog'),
    ('model', dict(image_size=(30, 16)), 'image_size height 30'),
    ('model', dict(heads=3), 'heads'),
  ],
)
def test_impossible_fields_are_named(section, fields, message):
  with pytest.raises(ValueError, match=message):
    tiny_task(**{section: fields})


@pytest.mark.parametrize(
  ('fields', 'message'),
  [(dict(kind='tubes'), 'tubes'), (dict(ratio=0.1), r'mask ratio 0\.1')],
)
def test_impossible_masks_are_named(fields, message):
  with pytest.raises(ValueError, match=message):
    tiny_task(mask=fields)


@pytest.mark.parametrize('factorisation', ['encoder', 'self_attention'])
def test_masks_without_a_rectangle_are_refused(factorisation):
  model = dict(factorisation=factorisation)
  for kind in ('random', 'frame', 'block', 'running_cell'):
    with pytest.raises(
      ValueError, match=rf"'{kind}' .* '{factorisation}' needs.*'tube'"
    ):
      factorised_task(mask=dict(kind=kind, ratio=0.5), model=model)
  assert factorised_task(model=model).mask_kind == 'tube'


@pytest.mark.parametrize(
  'factorisation', ['none', 'encoder', 'self_attention', 'dot_product']
)
def test_pretraining_lowers_the_loss(factorisation):
  task = factorised_task(model=dict(factorisation=factorisation, drop_path=0.1))
  variables = jax.jit(task.init)(jax.random.key(0))
  # Gratings that drift: what is hidden can be told from what is seen.
  t, h, w = jnp.meshgrid(
    *(jnp.arange(size) for size in (4, 32, 16)), indexing='ij'
  )
  phases = jnp.arange(4)[:, None, None, None]
  waves = 127 + 100 * jnp.sin(0.25 * h + 0.1 * w + 0.4 * t + phases)
  video = jnp.repeat(waves[..., None], 3, axis=-1).astype(jnp.uint8)
  batch = {'video': video, 'valid': jnp.ones(4, bool)}
  optimizer = optax.adam(1e-2)

  @jax.jit
  def step(variables, state, keys):
    (loss, _), gradient = jax.value_and_grad(task.loss, has_aux=True)(
      variables, batch, keys
    )
    updates, state = optimizer.update(gradient, state)
    return optax.apply_updates(variables, updates), state, loss, gradient

  state = optimizer.init(variables)
  losses = []
  for i in range(60):
    variables, state, loss, gradient = step(variables, state, row_keys(4, i))
    losses.append(float(loss))
  assert np.mean(losses[-10:]) < 0.85 * losses[0]
  encoder = gradient['params']['encoder']
  stacks = [encoder]
  if factorisation == 'encoder':
    stacks = [encoder['spatial'], encoder['temporal']]
  for stack in stacks:
    blocks = [name for name in stack if name.startswith('block_')]
    assert len(blocks) == 2
    for name in blocks:
      for path, leaf in jax.tree.leaves_with_path(stack[name]):
        assert jnp.abs(leaf).max() > 0, (name, jax.tree_util.keystr(path))


@pytest.mark.parametrize(
  'factorisation', ['encoder', 'self_attention', 'dot_product']
)
def test_flops_of_factorised_pretraining_are_what_xla_counts(factorisation):
  task = factorised_task(
    model=dict(
      image_size=(64, 64), width=128, heads=4, mlp_dim=512, attention='xla',
      decoder_width=64, decoder_mlp_dim=256, factorisation=factorisation,
    ),
  )  # fmt: skip
  batch = jax.eval_shape(lambda: make_batch(1, (64, 64)))
  variables = jax.eval_shape(task.init, jax.random.key(0))
  keys = jax.eval_shape(lambda: row_keys(1))
  cost = jax.jit(task.loss).lower(variables, batch, keys).compile()
  analysis = cost.cost_analysis()
  assert analysis
  assert 0.85 < task.flops_per_clip() / analysis['flops'] <= 1


def test_layers_and_saved_positions_are_those_of_the_model():
  task = factorised_task(model=dict(factorisation='encoder'))
  assert task.num_layers == 4
  assert task.layer_of('encoder/temporal/block_01/norm1/scale') == 4
  assert task.frozen == ()
  learned = factorised_task(
    model=dict(positions='learned_1d', position_grid=(1, 4, 2))
  )
  saved = np.zeros((8, 32), np.float32)
  adapted = learned.adapt('encoder/position_embedding', saved, (16, 32))
  assert adapted is not None
  assert adapted.shape == (16, 32)


def test_with_two_masks_only_what_neither_shows_counts():
  task = tiny_task(
    mask={'kind': 'tube', 'ratio': 0.75, 'decoder_kind': 'running_cell'}
  )
  mask = task.sample_training_mask(row_keys())
  grid = task.model.grid
  assert mask.decoded.shape == (3, grid[0] * grid[1] * grid[2] // 2)
  unit = jnp.asarray(make_batch()['video'], jnp.float32) / 255
  prediction = jax.random.normal(
    jax.random.key(0), (*mask.decoded.shape, task.target.dim)
  )
  got = task.clip_loss(prediction, unit, mask)
  target = np.asarray(task.target.target(unit))
  for row in range(3):
    hidden = set(np.asarray(mask.masked[row]).tolist())
    errors = [
      np.mean((np.asarray(prediction[row, i]) - target[row, token]) ** 2)
      for i, token in enumerate(np.asarray(mask.decoded[row]).tolist())
      if token in hidden
    ]
    np.testing.assert_allclose(got[row], np.mean(errors), rtol=1e-5)
  # A visible token's error is nobody's.
  counted = np.asarray(
    masking.decoded_and_masked(mask, math.prod(task.model.grid))
  )
  assert 0 < counted.mean() < 1
  wrong = prediction + 100 * (1 - counted)[..., None]
  np.testing.assert_allclose(task.clip_loss(wrong, unit, mask), got, rtol=1e-5)
  # Evaluation decodes all that is masked.
  assert task.sample_mask(row_keys()).decoded is None


def test_two_masks_cost_less():
  one = tiny_task(mask={'kind': 'tube', 'ratio': 0.75})
  two = tiny_task(
    mask={'kind': 'tube', 'ratio': 0.75, 'decoder_kind': 'running_cell'}
  )
  assert two.flops_per_clip() < one.flops_per_clip()


@pytest.mark.parametrize('recipe', ['mae_st', 'pyslowfast', 'videomae_v2'])
def test_the_loss_of_every_recipe_falls(recipe):
  config = tiny_config(mask={'kind': 'random', 'ratio': 0.5})
  config.model.recipe = recipe
  config.model.cosine_attention = recipe == 'videomae_v2'
  if recipe == 'videomae_v2':
    config.mask.decoder_kind = 'running_cell'
  task = tasks.build(config)
  variables = task.init(jax.random.key(0))
  optimizer = optax.adam(3e-3)
  batch = make_batch()

  @jax.jit
  def step(params, state):
    def loss(params):
      return task.loss({'params': params}, batch, row_keys())[0]

    value, gradient = jax.value_and_grad(loss)(params)
    updates, state = optimizer.update(gradient, state)
    return optax.apply_updates(params, updates), state, value

  params, state = variables['params'], optimizer.init(variables['params'])
  losses = []
  for _ in range(25):
    params, state, value = step(params, state)
    losses.append(float(value))
  assert losses[-1] < 0.9 * losses[0]
