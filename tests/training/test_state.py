import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh

from tests.training import fakes
from vivit_mae import tasks
from vivit_mae.training import sharding
from vivit_mae.training import state as state_lib


def run(mesh, accum_steps=1, task=None, steps=3, rows=16, ema=0.0, **batches):
  """Losses and final parameters, or their average, of a few updates."""
  task = task or fakes.FakeTask()
  optimizer = fakes.optimizer()
  abstract, create = state_lib.build(
    task.init,
    optimizer,
    seed=0,
    mesh=mesh,
    fsdp_min_bytes=0,
    ema_decay=ema,
  )
  where = jax.tree.map(lambda x: x.sharding, abstract)
  update = jax.jit(
    state_lib.make_update(
      task.loss,
      optimizer,
      lambda step: 0.01,
      seed=0,
      accum_steps=accum_steps,
      ema_decay=ema,
    ),
    donate_argnums=0,
    out_shardings=(where, sharding.replicated(mesh)),
  )
  state = create()
  losses = []
  for step in range(steps):
    batch = sharding.put_batch(
      fakes.make_batch(rows, step, **batches), sharding.batch_sharding(mesh)
    )
    state, report = update(state, batch)
    losses.append(float(report['loss']))
    assert set(report['norms']) == {'l2_grads', 'l2_params', 'l2_updates'}
    np.testing.assert_allclose(
      report['metrics'].compute()['loss'], losses[-1], rtol=1e-6
    )
  assert int(state.step) == steps
  return losses, jax.device_get(state.eval_variables['params'])


def one_device():
  return Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ('data', 'fsdp'))


@pytest.fixture(scope='module')
def expected():
  return run(one_device()), run(one_device(), ema=0.5)


@pytest.mark.parametrize(
  ('data', 'fsdp', 'accum', 'ema'),
  [(8, 1, 1, 0), (8, 1, 2, 0), (1, 8, 1, 0), (2, 4, 2, 0.5)],
)
def test_devices_and_accumulation_change_nothing(
  expected, data, fsdp, accum, ema
):
  expected = expected[ema > 0]
  losses, params = run(sharding.make_mesh(data, fsdp), accum, ema=ema)
  np.testing.assert_allclose(losses, expected[0], rtol=2e-6)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6),
    params,
    expected[1],
  )


@pytest.mark.slow
def test_devices_and_accumulation_change_nothing_in_pretraining(tiny):
  def train(mesh, accum_steps=1):
    return run(
      mesh,
      accum_steps,
      tasks.build(tiny(model__depth=1)),
      rows=32,
      frames=4,
      size=32,
    )

  expected = train(one_device())
  for mesh, accum in (
    (sharding.make_mesh(), 1),
    (sharding.make_mesh(), 4),
    (sharding.make_mesh(1, 8), 1),
  ):
    losses, params = train(mesh, accum)
    np.testing.assert_allclose(losses, expected[0], rtol=1e-5)
    # Adam divides small gradients by their size, rounding errors too.
    close = jax.tree.map(
      lambda a, b: (np.abs(a - b) < 1e-4).mean() > 0.99, params, expected[1]
    )
    assert all(jax.tree.leaves(close))


def test_shapes_come_first_and_arrays_lie_where_they_say():
  mesh = sharding.make_mesh(1, 8)
  abstract, create = state_lib.build(
    fakes.FakeTask().init,
    fakes.optimizer(),
    seed=0,
    mesh=mesh,
    fsdp_min_bytes=256,
  )
  kernel = abstract.params['head']['kernel']
  assert isinstance(kernel, jax.ShapeDtypeStruct)
  assert kernel.sharding.spec == jax.sharding.PartitionSpec('fsdp')
  state = create()
  same = jax.tree.map(
    lambda a, s: a.shape == s.shape and a.sharding == s.sharding,
    state,
    abstract,
  )
  assert all(jax.tree.leaves(same))
  assert int(state.step) == 0
  assert set(state.variables) == {'params'}


def test_row_keys_differ_by_row_and_step_and_ignore_the_rest():
  def numbers(seed, step, rows):
    return np.array(
      jax.random.key_data(state_lib.row_keys(seed, jnp.int32(step), rows))
    )

  keys = numbers(0, 3, 8)
  assert len(np.unique(keys, axis=0)) == 8
  np.testing.assert_array_equal(keys[:4], numbers(0, 3, 4))
  assert not np.array_equal(keys, numbers(0, 4, 8))
  assert not np.array_equal(keys, numbers(1, 3, 8))


def test_changed_collections_are_carried():
  def loss(variables, batch, rngs):
    del rngs
    count = variables['stats']['count'] + len(batch['video'])
    value = variables['params']['w'] ** 2
    losses = jnp.full((len(batch['video']),), value)
    metrics = fakes.Metrics.single_from_model_output(loss=losses)
    return value, (metrics, {'stats': {'count': count}})

  mesh = sharding.make_mesh()
  optimizer = optax.sgd(0.25)
  _, create = state_lib.build(
    lambda key: {'params': {'w': jnp.ones(())}, 'stats': {'count': 0}},
    optimizer,
    seed=0,
    mesh=mesh,
    fsdp_min_bytes=0,
  )
  update = state_lib.make_update(
    loss, optimizer, lambda step: 0.01, seed=0, accum_steps=2
  )
  batch = sharding.put_batch(
    fakes.make_batch(16), sharding.batch_sharding(mesh)
  )
  state, report = jax.jit(update)(create(), batch)
  assert int(state.collections['stats']['count']) == 16
  assert float(report['loss']) == 1.0
  assert float(state.params['w']) == 0.5


def test_the_average_follows_the_parameters():
  params = [run(one_device(), steps=steps)[1] for steps in range(3)]
  _, average = run(one_device(), steps=2, ema=0.75)
  jax.tree.map(
    lambda mean, a, b, c: np.testing.assert_allclose(
      mean, 0.75 * (0.75 * a + 0.25 * b) + 0.25 * c, rtol=1e-5, atol=1e-6
    ),
    average,
    *params,
  )


def test_an_average_is_there_only_on_demand_and_starts_anew_with_weights():
  def make(decay):
    _, create = state_lib.build(
      fakes.FakeTask().init,
      fakes.optimizer(),
      seed=0,
      mesh=sharding.make_mesh(),
      fsdp_min_bytes=0,
      ema_decay=decay,
    )
    return create()

  assert make(0).ema is None
  assert make(0).eval_variables['params'] is not None
  state = make(0.9)
  other = jax.tree.map(lambda x: x + 1, state.params)
  changed = state.with_params(other)
  for tree in (changed.params, changed.eval_variables['params']):
    jax.tree.map(np.testing.assert_array_equal, tree, other)
  for decay in (1, -0.1):
    with pytest.raises(ValueError, match=rf'ema_decay={decay} must be in'):
      make(decay)


def test_what_is_not_trained_gets_no_gradient():
  task = fakes.FakeTask()
  _, create = state_lib.build(
    task.init,
    optax.sgd(1.0),
    seed=0,
    mesh=sharding.make_mesh(),
    fsdp_min_bytes=0,
    ema_decay=0.9,
  )
  update = state_lib.make_update(
    task.loss,
    optax.sgd(1.0),
    lambda step: 1.0,
    seed=0,
    accum_steps=2,
    ema_decay=0.9,
    trained=lambda params: {
      'dense': {'kernel': False, 'bias': False},
      'head': {'kernel': True},
    },
  )
  before = create()
  state, report = jax.jit(update)(before, fakes.make_batch(16))
  for tree in (state.params, state.ema):
    jax.tree.map(
      np.testing.assert_array_equal, tree['dense'], before.params['dense']
    )
  moved = state.params['head']['kernel'] - before.params['head']['kernel']
  np.testing.assert_allclose(
    report['norms']['l2_grads'], optax.tree.norm(moved), rtol=1e-5
  )
