from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from vivit_mae import config as config_lib
from vivit_mae.training import optimizer


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
    ('name', 'sgd', "name='sgd' is unknown; choose 'adamw'"),
    ('schedule', 'cosin', 'choose one of cosine, warmup_cosine'),
    ('lr_scales_with', 'frames', 'choose one of videos, clips'),
    ('warmup_steps', 100, 'warm-up of 100 steps leaves nothing'),
  ],
)
def test_impossible_fields_are_named(field, value, message):
  with pytest.raises(ValueError, match=message):
    build(section(**{'warmup_steps': 0, field: value}))
