import logging
import pathlib
import signal
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training import fakes
from vivit_mae.training import checkpoints as checkpoints_lib
from vivit_mae.training import sharding
from vivit_mae.training import state as state_lib


def build(init=None, fsdp=1):
  return state_lib.build(
    init or fakes.FakeTask().init,
    fakes.optimizer(),
    seed=0,
    mesh=sharding.make_mesh(-1, fsdp),
    fsdp_min_bytes=0,
  )


def save(workdir, step=3, init=None):
  _, create = build(init)
  state = jax.tree.map(lambda x: x + 1, create())
  with checkpoints_lib.Checkpoints(workdir) as checkpoints:
    checkpoints.save(step, state, {'row': 24})
  return state


def start(workdir, init=None, fsdp=1, **sources):
  abstract, create = build(init, fsdp)
  with checkpoints_lib.Checkpoints(workdir) as checkpoints:
    return checkpoints_lib.initial_state(
      checkpoints, abstract, create, **sources
    )


def assert_equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_what_was_saved_comes_back_onto_another_mesh(tmp_path):
  saved = save(tmp_path)
  state, data = start(tmp_path, fsdp=8)
  assert_equal(state, saved)
  assert data == {'row': 24}
  kernel = state.params['head']['kernel']
  assert kernel.sharding.spec == jax.sharding.PartitionSpec('fsdp')


def test_order_of_sources(tmp_path, caplog):
  caplog.set_level(logging.INFO)
  other = save(tmp_path / 'other')
  new, data = start(tmp_path / 'a')
  assert data is None
  assert int(new.step) == 0
  weights, data = start(tmp_path / 'b', init_from=str(tmp_path / 'other'))
  assert data is None
  assert int(weights.step) == 0
  assert_equal(weights.params, other.params)
  assert_equal(weights.opt_state, new.opt_state)
  two = str(tmp_path / 'other'), str(tmp_path / 'no')
  resumed, data = start(tmp_path / 'c', resume=two[0], init_from=two[1])
  assert data == {'row': 24}
  assert_equal(resumed, other)
  own = save(tmp_path / 'c', 7)
  assert_equal(start(tmp_path / 'c', resume=two[0], init_from=two[1])[0], own)
  said = [m for m in caplog.messages if m.startswith('weights: ')]
  assert [m.split(',')[0].removeprefix('weights: ') for m in said] == [
    'new',
    'config.init_from',
    'config.resume',
    'this workdir',
  ]


@pytest.mark.parametrize('tail', ['', 'checkpoints', 'checkpoints/3'])
def test_a_checkpoint_may_be_named_in_three_ways(tmp_path, tail):
  save(tmp_path / 'other')
  _, data = start(tmp_path / 'new', resume=str(tmp_path / 'other' / tail))
  assert data == {'row': 24}


def test_nothing_there_is_an_error(tmp_path):
  with pytest.raises(ValueError, match=r"config\.resume='.*nowhere' holds no"):
    start(tmp_path, resume=str(tmp_path / 'nowhere'))
  with pytest.raises(ValueError, match=r'config\.init_from\.path='):
    start(tmp_path, init_from=str(tmp_path))


def wider(key):
  del key
  return {'params': {'dense': {'kernel': jnp.zeros((3, 32))}, 'x': jnp.ones(2)}}


def test_another_architecture_is_an_error_that_names_the_leaves(tmp_path):
  save(tmp_path)
  with pytest.raises(ValueError, match='another model') as error:
    start(tmp_path, wider)
  text = str(error.value)
  assert 'params/dense/kernel is (3, 16) there and (3, 32) here' in text
  assert 'missing there: ' in text
  assert 'params/x' in text
  assert 'unknown here: ' in text
  assert 'params/head/kernel' in text
  with pytest.raises(ValueError, match=r'dense/kernel is \(3, 16\) there and'):
    start(tmp_path / 'new', wider, init_from=str(tmp_path))


def test_weights_that_only_one_side_has_are_reported(tmp_path, caplog):
  caplog.set_level(logging.INFO)

  def init(key):
    params = fakes.FakeTask().init(key)['params']
    return {'params': {'dense': params['dense'], 'new': jnp.full((2,), 5.0)}}

  saved = save(tmp_path / 'other')
  state, _ = start(tmp_path / 'w', init, init_from=str(tmp_path / 'other'))
  assert_equal(state.params['dense'], saved.params['dense'])
  assert_equal(state.params['new'], np.full((2,), 5.0))
  text = '\n'.join(caplog.messages)
  assert 'loaded 2 of the 3 parameter arrays' in text
  assert 'new in this model, from the seed: new' in text
  assert 'not used: head/kernel' in text
  with pytest.raises(ValueError, match='No parameter has the same name'):
    start(
      tmp_path / 'v',
      lambda key: {'params': {'other': jnp.zeros(2)}},
      init_from=str(tmp_path / 'other'),
    )


@pytest.mark.parametrize(('mode', 'best'), [('min', 2), ('max', 5)])
def test_keeps_last_every_and_best(tmp_path, mode, best):
  config: Any = dict(
    keep_last=2, keep_every_steps=4, best_metric='e/x', best_mode=mode
  )
  _, create = build()
  state = create()
  values = {1: 3.0, 2: 1.0, 3: 2.0, 5: 9.0}
  with checkpoints_lib.Checkpoints(tmp_path, **config) as checkpoints:
    for step in range(1, 9):
      metrics = {'e/x': values[step]} if step in values else {}
      checkpoints.save(step, state, {}, metrics)
    checkpoints.wait()
    assert checkpoints.best == best
    assert not checkpoints.is_best({'e/x': values[best]})
    assert checkpoints.is_best({'e/x': {'min': 0.0, 'max': 10.0}[mode]})
    assert not checkpoints.is_best({'e/y': 0.0})
  steps = {int(p.name) for p in (tmp_path / 'checkpoints').iterdir()}
  assert steps == {4, best, 7, 8}
  with checkpoints_lib.Checkpoints(tmp_path, **config) as checkpoints:
    assert checkpoints.best == best


def test_an_interrupted_save_is_ignored_and_can_be_repeated(tmp_path):
  save(tmp_path, 3)
  whole = tmp_path / 'checkpoints' / '3'
  half = pathlib.Path(f'{tmp_path}/checkpoints/5.orbax-checkpoint-tmp')
  half.mkdir()
  (half / 'state').mkdir()
  state, _ = start(tmp_path)
  again = save(tmp_path, 5)
  assert_equal(start(tmp_path)[0], again)
  assert whole.is_dir()
  assert int(state.step) == int(again.step)


def test_async_saves_see_the_state_of_their_step(tmp_path):
  _, create = build(lambda key: {'params': {'w': jnp.zeros((512, 512))}})
  add = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
  state = create()
  with checkpoints_lib.Checkpoints(tmp_path, keep_last=20) as checkpoints:
    for step in range(1, 6):
      state = add(state)
      checkpoints.save(step, state, {})
  for step in range(1, 6):
    state, _ = start(
      tmp_path / 'new',
      lambda key: {'params': {'w': jnp.zeros((512, 512))}},
      resume=str(tmp_path / 'checkpoints' / str(step)),
    )
    np.testing.assert_array_equal(state.params['w'], float(step))


def test_a_signal_is_noted_and_a_second_one_acts(tmp_path):
  with (
    checkpoints_lib.Checkpoints(tmp_path) as checkpoints,
    checkpoints_lib.StopSignal() as stop,
  ):
    assert not stop.requested(checkpoints, 1)
    signal.raise_signal(signal.SIGINT)
    assert stop.requested(checkpoints, 1)
    assert stop.received == signal.SIGINT
    with pytest.raises(KeyboardInterrupt):
      signal.raise_signal(signal.SIGINT)
