import dataclasses
import json
import logging
import pathlib
import re
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from tests.training import fakes
from vivit_mae.training import checkpoints as checkpoints_lib
from vivit_mae.training import sharding
from vivit_mae.training import state as state_lib


def build(init=None, fsdp=1, ema=0.0):
  return state_lib.build(
    init or fakes.FakeTask().init,
    fakes.optimizer(),
    seed=0,
    mesh=sharding.make_mesh(-1, fsdp),
    fsdp_min_bytes=0,
    ema_decay=ema,
  )


def save(workdir, step=3, init=None, ema=0.0):
  _, create = build(init, ema=ema)
  state = jax.tree.map(lambda x: x + 1, create())
  if ema:
    state = dataclasses.replace(
      state, ema=jax.tree.map(lambda x: x + 1, state.ema)
    )
  with checkpoints_lib.Checkpoints(workdir) as checkpoints:
    checkpoints.save(step, state, {'row': 24})
  return state


def start(workdir, init=None, fsdp=1, ema=0.0, init_from='', **sources):
  if init_from:
    sources['init_from'] = lambda: checkpoints_lib.weights_of(init_from)
  abstract, create = build(init, fsdp, ema)
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
  assert re.search(r'dense +2 +64 +loaded\n', text)
  assert re.search(r'new +1 +2 +fresh +not in the checkpoint\n', text)
  assert re.search(r'head/kernel +1 +128 +dropped +not in this model', text)
  with pytest.raises(ValueError, match='No parameter has the same name'):
    start(
      tmp_path / 'v',
      lambda key: {'params': {'other': jnp.zeros(2)}},
      init_from=str(tmp_path / 'other'),
    )


def test_an_average_is_saved_only_if_there_is_one(tmp_path):
  saved = save(tmp_path / 'a', ema=0.9)
  state, _ = start(tmp_path / 'a', fsdp=8, ema=0.9)
  assert state.ema is not None
  assert_equal(state, saved)
  save(tmp_path / 'b')
  parts = (tmp_path / 'b' / 'checkpoints' / '3' / 'state').glob('**/_METADATA')
  assert 'ema' not in next(parts).read_text()
  with pytest.raises(ValueError, match='missing there: ema/dense/bias'):
    start(tmp_path / 'b', ema=0.9)
  with pytest.raises(ValueError, match='unknown here: ema/dense/bias'):
    start(tmp_path / 'a')


def test_a_checkpoint_of_the_whole_state_object_is_restored(tmp_path):
  _, create = build()
  state = jax.tree.map(lambda x: x + 1, create())

  @flax.struct.dataclass
  class Before:
    """A state from before there were averages."""

    step: Any
    params: Any
    collections: Any
    opt_state: Any

  parts = {f.name: getattr(state, f.name) for f in dataclasses.fields(Before)}
  with ocp.CheckpointManager(tmp_path / 'checkpoints') as manager:
    manager.save(
      3,
      args=ocp.args.Composite(
        state=ocp.args.StandardSave(Before(**parts)),
        data=ocp.args.JsonSave({'row': 24}),
      ),
    )
  restored, data = start(tmp_path)
  assert_equal(restored, state)
  assert data == {'row': 24}


def bigger(key):
  """A classifier: the same first layer, another table, a head of its own."""
  del key
  return {
    'params': {
      'dense': {'kernel': jnp.zeros((3, 16)), 'bias': jnp.zeros((32,))},
      'classes': {'kernel': jnp.zeros((16, 8))},
    }
  }


def test_the_average_is_preferred_resized_and_sharded(tmp_path, caplog):
  caplog.set_level(logging.INFO)
  saved = save(tmp_path / 'other', ema=0.9)
  state, data = start(
    tmp_path / 'new',
    bigger,
    fsdp=8,
    ema=0.5,
    init_from=str(tmp_path / 'other'),
    adapt=lambda name, saved, wanted: np.resize(saved, wanted),
  )
  assert data is None
  for params in (state.params, state.ema):
    np.testing.assert_array_equal(
      params['dense']['kernel'], saved.ema['dense']['kernel']
    )
    np.testing.assert_array_equal(
      params['dense']['bias'], np.resize(saved.ema['dense']['bias'], 32)
    )
    for leaf in jax.tree.leaves(params):
      assert 'fsdp' in leaf.sharding.spec
    assert not params['classes']['kernel'].any()
  assert 'weights: config.init_from, step 3, averaged' in caplog.text
  assert 'parameters: loaded 2 of the 3' in caplog.text
  assert '(16,) -> (32,)' in caplog.text


def test_what_skip_names_stays_fresh(tmp_path):
  save(tmp_path / 'other')
  state, _ = start(
    tmp_path / 'new',
    bigger,
    init_from=str(tmp_path / 'other'),
    skip=('dense/bias',),
  )
  assert not state.params['dense']['bias'].any()
  assert state.params['dense']['kernel'].all()


@pytest.mark.parametrize('tail', ['', 'checkpoints', 'checkpoints/3'])
def test_the_config_of_a_checkpoint_is_found(tmp_path, tail):
  save(tmp_path)
  assert checkpoints_lib.saved_config(tmp_path / tail) is None
  config = {'model': {'num_frames': 16}}
  (tmp_path / 'config.json').write_text(json.dumps(config))
  assert checkpoints_lib.saved_config(tmp_path / tail) == config
  with pytest.raises(ValueError, match=r'config\.init_from\.path='):
    checkpoints_lib.saved_config(tmp_path / 'nowhere')


@pytest.mark.parametrize('ema', [0.0, 0.9])
def test_variables_are_loaded_for_evaluation(tmp_path, ema):
  def init(key):
    return {**fakes.FakeTask().init(key), 'stats': {'mean': jnp.zeros(3)}}

  saved = save(tmp_path, init=init, ema=ema)
  with jax.set_mesh(sharding.make_mesh()):
    variables, step = checkpoints_lib.load_variables(tmp_path, init)
    assert step == 3
    assert_equal(variables, saved.eval_variables)
    with pytest.raises(ValueError, match='no step 4; there are: 3'):
      checkpoints_lib.load_variables(tmp_path, init, 4)
    with pytest.raises(ValueError, match=r'another model.*\(3, 16\) there and'):
      checkpoints_lib.load_variables(tmp_path, wider)


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
