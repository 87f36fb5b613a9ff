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


def run(mesh, accum_steps=1, task=None, steps=3, rows=16, **batches):
  """Losses and final parameters of a few updates."""
  task = task or fakes.FakeTask()
  optimizer = fakes.optimizer()
  abstract, create = state_lib.build(
    task.init, optimizer, seed=0, mesh=mesh, fsdp_min_bytes=0
  )
  where = jax.tree.map(lambda x: x.sharding, abstract)
  update = jax.jit(
    state_lib.make_update(
      task.loss, optimizer, lambda step: 0.01, seed=0, accum_steps=accum_steps
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
  return losses, jax.device_get(state.params)


def one_device():
  return Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ('data', 'fsdp'))


@pytest.fixture(scope='module')
def expected():
  return run(one_device())


@pytest.mark.parametrize(
  ('data', 'fsdp', 'accum'), [(8, 1, 1), (8, 1, 2), (1, 8, 1), (2, 4, 2)]
)
def test_devices_and_accumulation_change_nothing(expected, data, fsdp, accum):
  losses, params = run(sharding.make_mesh(data, fsdp), accum)
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
