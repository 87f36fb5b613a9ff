import logging
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vivit_mae import config as config_lib
from vivit_mae.training import optimizer

GOLDEN = pathlib.Path(__file__).parent / 'data' / 'torch_golden.npz'


def section(**values):
  config = config_lib.defaults().optimizer
  for name, value in values.items():
    config[name] = value
  return config


def build(config, **sizes):
  known = dict(batch_size=256, repeats=1, total_steps=100, steps_per_epoch=10)
  return optimizer.build(config, **{**known, **sizes})


@pytest.mark.parametrize(
  ('total', 'warmup'), [(50, 12), (50, 0), (8, 1), (1601, 40)]
)
def test_videomae_cosine_is_its_table(total, warmup):
  base, final = 1.2e-3, 8e-5
  n = total - warmup
  table = np.concatenate(
    [
      np.linspace(0, base, warmup),
      [
        final + 0.5 * (base - final) * (1 + np.cos(np.pi * i / n))
        for i in range(n)
      ],
    ]
  )
  schedule = optimizer.videomae_cosine(base, final, total, warmup)
  ours = np.array(schedule(jnp.arange(total)))
  np.testing.assert_allclose(ours, table, rtol=2e-6, atol=1e-10)
  if warmup > 1:
    assert ours[0] == 0
    np.testing.assert_allclose(ours[warmup - 1 : warmup + 1], base, rtol=1e-6)
  assert ours[-1] > final


def test_warmup_cosine_is_mae_sts():
  base, final, total, warmup = 1.6e-3, 1e-6, 40, 10
  schedule = optimizer.warmup_cosine(base, final, total, warmup)
  ours = np.array(schedule(jnp.arange(total + 1)))
  np.testing.assert_allclose(
    ours[:warmup], base * np.arange(warmup) / warmup, rtol=1e-6
  )
  rest = (np.arange(warmup, total + 1) - warmup) / (total - warmup)
  np.testing.assert_allclose(
    ours[warmup:],
    final + (base - final) * 0.5 * (1 + np.cos(np.pi * rest)),
    rtol=2e-5,
    atol=1e-9,
  )


def test_one_epoch_of_warmup_ends_at_the_scaled_rate():
  config = section(warmup_epochs=2.0)
  _, schedule = build(config, batch_size=1024)
  np.testing.assert_allclose(schedule(19), 1.5e-4 * 4, rtol=1e-6)
  _, schedule = build(config, batch_size=1024, total_steps=10**6)
  np.testing.assert_allclose(schedule(10**6), 1e-5 * 4, rtol=1e-6)


def test_scales_with_videos_or_clips_and_mae_st_keeps_its_minimum():
  config = section(warmup_steps=0, lr_scales_with='videos')
  np.testing.assert_allclose(build(config, repeats=4)[1](0), 1.5e-4)
  config = section(
    warmup_steps=0, lr_scales_with='clips', schedule='warmup_cosine'
  )
  _, schedule = build(config, repeats=4)
  np.testing.assert_allclose(schedule(0), 6e-4, rtol=1e-6)
  np.testing.assert_allclose(schedule(100), 1e-5, rtol=1e-5)


def test_decay_goes_by_name_and_shape():
  one, two = jnp.ones((3,)), jnp.ones((3, 3))
  params = {
    'encoder': {
      'embedding': {'kernel': jnp.ones((2, 4, 4, 3, 8)), 'bias': one},
      'block_00': {'qkv': {'kernel': two, 'q_bias': two}, 'scale': one},
      'position_embedding': jnp.ones((1, 8, 4)),
      'class_token': jnp.ones((1, 1, 4)),
    },
    'mask_token': jnp.ones((1, 1, 4)),
  }
  assert optimizer.decays(params) == {
    'encoder': {
      'embedding': {'kernel': True, 'bias': False},
      'block_00': {'qkv': {'kernel': True, 'q_bias': False}, 'scale': False},
      'position_embedding': False,
      'class_token': False,
    },
    'mask_token': False,
  }
  # MAE-ST's pretraining spares only what has one dimension there.
  both = optimizer.decays(params, tokens=True)
  assert both['mask_token']
  assert both['encoder']['position_embedding']
  assert both['encoder']['class_token']
  assert not both['encoder']['block_00']['qkv']['q_bias']


@pytest.mark.parametrize('end', [None, 0.25])
def test_two_steps_are_adamw_by_hand(end):
  config = section(
    learning_rate=0.1,
    warmup_steps=0,
    weight_decay=0.05,
    weight_decay_end=end,
    b1=0.9,
    b2=0.95,
    clip_norm=1.0,
  )
  tx, schedule = build(config, total_steps=4)
  params = {'kernel': np.array([[1.0, -2.0]]), 'bias': np.array([0.5])}
  grads = {'kernel': np.array([[3.0, 4.0]]), 'bias': np.array([12.0])}
  state = tx.init(params)
  mean = {k: np.zeros_like(v) for k, v in params.items()}
  square = {k: np.zeros_like(v) for k, v in params.items()}
  for t in range(2):
    updates: Any
    updates, state = tx.update(grads, state, params)
    rate, decay = float(schedule(t)), 0.05
    if end is not None:
      decay = end + 0.5 * (0.05 - end) * (1 + np.cos(np.pi * t / 4))
    for name in params:
      grad = grads[name] / 13  # the global norm of (3, 4, 12)
      mean[name] = 0.9 * mean[name] + 0.1 * grad
      square[name] = 0.95 * square[name] + 0.05 * grad**2
      step = (mean[name] / (1 - 0.9 ** (t + 1))) / (
        np.sqrt(square[name] / (1 - 0.95 ** (t + 1))) + 1e-8
      )
      if name == 'kernel':
        step = step + decay * params[name]
      np.testing.assert_allclose(updates[name], -rate * step, rtol=1e-5)
    params = {k: np.array(params[k] + updates[k]) for k in params}


@pytest.mark.parametrize(
  ('field', 'value', 'message'),
  [
    ('name', 'adam', "name='adam' is unknown; choose one of adamw, sgd, lars"),
    ('layer_decay', 1.5, r'layer_decay=1.5 must be in \(0, 1\]'),
    ('layer_decay', 0.75, 'needs a task that numbers its layers'),
    ('schedule', 'cosin', 'choose one of cosine, warmup_cosine'),
    ('lr_scales_with', 'frames', 'choose one of videos, clips'),
    ('warmup_steps', 100, 'warm-up of 100 steps leaves nothing'),
  ],
)
def test_impossible_fields_are_named(field, value, message):
  with pytest.raises(ValueError, match=message):
    build(section(**{'warmup_steps': 0, field: value}))


@pytest.fixture(scope='module')
def golden():
  """What torch gives; see make_torch_golden.py."""
  with np.load(GOLDEN) as arrays:
    return dict(arrays)


def unjoined(golden, values):
  """The tree of parameters out of the row of all their numbers."""
  tree, start = {}, 0
  for name, text in zip(golden['names'], golden['shapes'], strict=True):
    shape = tuple(map(int, text.split()))
    stop = start + int(np.prod(shape))
    *parents, last = name.split('/')
    branch = tree
    for parent in parents:
      branch = branch.setdefault(parent, {})
    branch[last] = jnp.asarray(values[start:stop].reshape(shape), jnp.float32)
    start = stop
  return tree


def layer_of(depth):
  def layer(name):
    if '/block_' in name:
      return int(name.split('/')[1].removeprefix('block_')) + 1
    return 0 if name.startswith('encoder/') else depth + 1

  return layer


def test_schedules_are_torchs(golden):
  for name, schedule in optimizer.SCHEDULES.items():
    table = golden[f'schedule_{name}']
    ours = schedule(1.0, 0.1, len(table), 8)(jnp.arange(len(table)))
    np.testing.assert_allclose(ours, table, rtol=2e-6)


def test_layer_scales_of_twelve_layers_are_torchs(golden):
  tx = optimizer.scale_by_layer(0.75, layer_of(12), 12)
  one = jnp.ones((2,))
  blocks = {f'block_{i:02d}': {'kernel': one} for i in range(12)}
  params = {
    'encoder': {'embedding': one, **blocks, 'position_embedding': one},
    'head': one,
  }
  updates: Any
  updates, _ = tx.update(params, tx.init(params), params)
  encoder = updates['encoder']
  names = ['embedding', *blocks]
  ours = [*(jax.tree.leaves(encoder[n])[0][0] for n in names)]
  np.testing.assert_allclose(
    [*ours, updates['head'][0]], golden['layer_scales'], rtol=1e-6
  )
  np.testing.assert_array_equal(
    encoder['position_embedding'], encoder['embedding']
  )


@pytest.mark.parametrize('rule', ['adamw', 'sgd', 'sgd_nesterov'])
def test_three_steps_with_layer_decay_are_torchs(golden, rule, monkeypatch):
  rates = jnp.asarray(golden['rates'], jnp.float32)
  monkeypatch.setitem(
    optimizer.SCHEDULES, 'table', lambda *_: lambda step: rates[step]
  )
  config = section(
    name=rule.split('_')[0],
    nesterov='nesterov' in rule,
    schedule='table',
    warmup_steps=0,
    weight_decay=0.3,
    layer_decay=0.75,
  )
  tx, _ = build(config, layer_of=layer_of(2), num_layers=2)
  params = unjoined(golden, golden['start'])
  state = tx.init(params)
  for grads, wanted in zip(golden['grads'], golden[rule], strict=True):
    updates, state = tx.update(unjoined(golden, grads), state, params)
    params = jax.tree.map(jnp.add, params, updates)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6),
      params,
      unjoined(golden, wanted),
    )


def test_lars_is_maes():
  config = section(
    name='lars',
    learning_rate=0.1,
    warmup_steps=0,
    weight_decay=0.05,
    trust_coefficient=0.01,
  )
  tx, schedule = build(config, total_steps=4)
  kind = np.float32
  params = {'kernel': np.array([[1, -2]], kind), 'bias': np.array([0.5], kind)}
  grads = {'kernel': np.array([[3, 4]], kind), 'bias': np.array([12], kind)}
  state = tx.init(params)
  moment = {name: np.zeros_like(value) for name, value in params.items()}
  for t in range(2):
    updates: Any
    updates, state = tx.update(grads, state, params)
    kernel = grads['kernel'] + 0.05 * params['kernel']
    norm = np.linalg.norm
    kernel *= 0.01 * norm(params['kernel']) / norm(kernel)
    for name, step in (('kernel', kernel), ('bias', grads['bias'])):
      moment[name] = 0.9 * moment[name] + step
      np.testing.assert_allclose(
        updates[name], -float(schedule(t)) * moment[name], rtol=1e-5
      )
    params = {k: np.array(params[k] + updates[k]) for k in params}


def tree():
  return {
    'encoder': {
      'block_00': {'kernel': jnp.ones((3, 4)), 'bias': jnp.ones((4,))},
      'block_01': {'kernel': jnp.ones((3, 4)), 'bias': jnp.ones((4,))},
    },
    'head': {'kernel': jnp.ones((4, 2))},
  }


@pytest.mark.parametrize('name', ['adamw', 'sgd', 'lars'])
def test_frozen_parameters_stay_and_have_no_state(name):
  config = section(
    name=name,
    freeze=('.*/bias',),
    warmup_steps=0,
    clip_norm=1.0,
    layer_decay=0.5,
    weight_decay_end=0.1,
  )
  tx, _ = build(
    config,
    layer_of=layer_of(2),
    num_layers=2,
    frozen=('encoder/block_00/.*',),
  )
  params = tree()
  state = tx.init(params)
  sizes = [x.size for x in jax.tree.leaves(state) if x.size > 1]
  assert sizes == [12, 8] * (2 if name == 'adamw' else 1)
  updates: Any
  updates, state = jax.jit(tx.update)(params, state, params)
  still = updates['encoder']['block_00'], updates['encoder']['block_01']['bias']
  assert not any(np.any(x) for x in jax.tree.leaves(still))
  assert np.all(updates['encoder']['block_01']['kernel'])

  # What is frozen counts in no norm: alone, the others move just so.
  alone = {
    'encoder': {
      'block_01': {'kernel': params['encoder']['block_01']['kernel']}
    },
    'head': params['head'],
  }
  config.freeze = ()
  tx, _ = build(config, layer_of=layer_of(2), num_layers=2)
  expected: Any
  expected, _ = jax.jit(tx.update)(alone, tx.init(alone), alone)
  for part in ('encoder', 'head'):
    wanted = jax.tree.leaves(expected[part])
    got = updates[part].get('block_01', updates[part])['kernel']
    np.testing.assert_array_equal(got, wanted[0])


@pytest.mark.parametrize(
  ('freeze', 'message'),
  [
    (('encoder',), r"freeze: 'encoder' matches none of the 5 parameters"),
    (('head/.*', 'neck/.*'), r"'neck/.*' matches none.*encoder/block_00/bias"),
    (('head/(',), r"freeze: 'head/\(' is no regular expression"),
    (('.*',), 'leaves nothing to train: all 5'),
  ],
)
def test_a_pattern_that_cannot_be_meant_is_an_error(freeze, message):
  tx, _ = build(section(freeze=freeze, warmup_steps=0))
  with pytest.raises(ValueError, match=message):
    tx.init(tree())


def test_says_what_is_frozen_and_how_the_rates_decay(caplog):
  caplog.set_level(logging.INFO)
  config = section(freeze=('.*/block_00/.*',), layer_decay=0.5)
  optimizer.describe(config, tree(), layer_of=layer_of(2), num_layers=2)
  assert 'frozen: 2 of 5 arrays, 16 of 40 parameters' in caplog.text
  assert 'rate x 0.5 in layer 2, 1 in layer 3' in caplog.text
  caplog.clear()
  optimizer.describe(section(), tree())
  assert not caplog.text


def test_a_layer_outside_the_model_is_an_error():
  tx = optimizer.scale_by_layer(0.5, lambda name: 7, 2)
  with pytest.raises(ValueError, match=r"layer_of\('w'\) is 7, outside 0 to 3"):
    tx.update({'w': jnp.ones(2)}, tx.init({}), {'w': jnp.ones(2)})
