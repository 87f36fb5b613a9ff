"""Our VideoMAE against that of `transformers`.

The golden file is written by tests/data/make_videomae_golden.py.
"""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vivit_mae import masking, targets
from vivit_mae.models import video_mae

_GOLDEN = pathlib.Path(__file__).parents[1] / 'data' / 'videomae_golden.npz'


@pytest.fixture(scope='module')
def golden():
  with np.load(_GOLDEN) as file:
    return dict(file)


def _linear(weights, name):
  params = {'kernel': weights[f'{name}.weight'].T}
  if f'{name}.bias' in weights:
    params['bias'] = weights[f'{name}.bias']
  return params


def _norm(weights, name):
  return {'scale': weights[f'{name}.weight'], 'bias': weights[f'{name}.bias']}


def _block(weights, name):
  inner = f'{name}.attention.attention'
  kernels = [
    weights[f'{inner}.{part}.weight'].T for part in ('query', 'key', 'value')
  ]
  return {
    'norm1': _norm(weights, f'{name}.layernorm_before'),
    'attention': {
      'qkv': {'kernel': np.concatenate(kernels, axis=1)},
      'q_bias': weights[f'{inner}.query.bias'],
      'v_bias': weights[f'{inner}.value.bias'],
      'proj': _linear(weights, f'{name}.attention.output.dense'),
    },
    'norm2': _norm(weights, f'{name}.layernorm_after'),
    'mlp': {
      'fc1': _linear(weights, f'{name}.intermediate.dense'),
      'fc2': _linear(weights, f'{name}.output.dense'),
    },
  }


def _params(weights):
  convolution = 'videomae.embeddings.patch_embeddings.projection'
  return {
    'encoder': {
      'embedding': {
        'kernel': weights[f'{convolution}.weight'].transpose(2, 3, 4, 1, 0),
        'bias': weights[f'{convolution}.bias'],
      },
      **{
        f'block_{i:02d}': _block(weights, f'videomae.encoder.layer.{i}')
        for i in range(3)
      },
      'norm': _norm(weights, 'videomae.layernorm'),
    },
    'bridge': _linear(weights, 'encoder_to_decoder'),
    'mask_token': weights['mask_token'][0, 0],
    'decoder': {
      **{
        f'block_{i:02d}': _block(weights, f'decoder.decoder_layers.{i}')
        for i in range(2)
      },
      'norm': _norm(weights, 'decoder.norm'),
      'head': _linear(weights, 'decoder.head'),
    },
  }


def test_forward_and_loss_agree(golden):
  weights = {
    name.removeprefix('weights/'): value
    for name, value in golden.items()
    if name.startswith('weights/')
  }
  model = video_mae.VideoMAE(
    image_size=(24, 24),
    num_frames=4,
    tubelet=(2, 8, 8),
    channels=3,
    width=24,
    depth=3,
    heads=3,
    mlp_dim=48,
    decoder_width=16,
    decoder_depth=2,
    decoder_heads=2,
    decoder_mlp_dim=32,
  )
  masked = golden['mask']
  mask = masking.TokenMask(
    visible=jnp.asarray([np.flatnonzero(~row) for row in masked]),
    masked=jnp.asarray([np.flatnonzero(row) for row in masked]),
  )
  unit = jnp.asarray(golden['unit'])
  mean = jnp.asarray([0.485, 0.456, 0.406])
  std = jnp.asarray([0.229, 0.224, 0.225])
  params = jax.tree.map(jnp.asarray, _params(weights))
  out: Any = model.apply(
    {'params': params}, (unit - mean) / std, mask, deterministic=True
  )
  np.testing.assert_allclose(out.prediction, golden['logits'], atol=1e-5)
  target = targets.build(tubelet=(2, 8, 8)).target(unit, mask.masked)
  loss = jnp.square(out.prediction - target).mean()
  np.testing.assert_allclose(loss, golden['loss'], atol=5e-6)
