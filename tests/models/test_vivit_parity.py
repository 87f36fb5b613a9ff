"""Our ViViT against the formulas of Scenic, written in plain numpy."""

import functools
from typing import Any

import jax
import numpy as np
import pytest
from flax import traverse_util

from tests.models import numpy_vivit
from vivit_mae.models import vivit

_TOKEN = {'class_token': 'before_positions', 'pooling': 'token'}
_HEADS = (('noun', 3), ('verb', 2))

# For each case: fields of the model, the form of the oracle, and the first
# clip's logits of the first head.
_CASES: dict[str, tuple[dict[str, Any], dict[str, Any], list[float]]] = {
  'model 1': (
    _TOKEN,
    {'model': 1, 'pooling': 'token'},
    [-0.256445, -0.435699, -0.410037],
  ),
  'model 1, class token without a position': (
    {'class_token': 'after_positions', 'pooling': 'token'},
    {'model': 1, 'pooling': 'token', 'cls_has_position': False},
    [-0.191649, -0.383888, -0.395578],
  ),
  'model 1, uniform frames': (
    {**_TOKEN, 'embedding': 'uniform_frames'},
    {'model': 1, 'pooling': 'token', 'sampled_frames': 3},
    [-0.255503, -0.434948, -0.40983],
  ),
  'model 1, two heads': (
    {'num_classes': _HEADS, 'representation_size': 6, 'pooling': 'max'},
    {'model': 1, 'pooling': 'max'},
    [0.421575, 0.412207, 0.208973],
  ),
  'model 2': (
    {**_TOKEN, 'factorisation': 'encoder', 'temporal_depth': 1},
    {'model': 2, 'pooling': 'token'},
    [0.578027, 0.555591, 0.271851],
  ),
  'model 2, means': (
    {'factorisation': 'encoder', 'temporal_depth': 1},
    {'model': 2, 'pooling': 'mean'},
    [0.26996, 0.383522, 0.316708],
  ),
  'model 2, spatial only': (
    {**_TOKEN, 'factorisation': 'encoder', 'spatial_only': True},
    {'model': 2, 'pooling': 'token', 'spatial_only': True},
    [0.223844, -0.045341, -0.2932],
  ),
  'model 3': (
    {'factorisation': 'self_attention'},
    {'model': 3},
    [-0.492615, -0.367534, -0.069595],
  ),
  'model 3, space first': (
    {'factorisation': 'self_attention', 'attention_order': 'space_time'},
    {'model': 3, 'order': ('space', 'time')},
    [-0.509423, -0.390979, -0.088651],
  ),
  'model 4': (
    {'factorisation': 'dot_product'},
    {'model': 4},
    [0.376526, 0.257908, 0.017992],
  ),
  'VideoMAE': (
    {
      'positions': 'sincos_1d',
      'qkv_bias': 'qv',
      'gelu': 'erf',
      'norm': 'after_pooling',
    },
    {'model': 1, 'sincos': True, 'gelu': 'erf', 'norm_after_pooling': True},
    [1.049916, 0.392171, -0.450018],
  ),
}


def _model(fields) -> vivit.ViViT:
  defaults = {
    'image_size': (8, 12),
    'num_frames': 6,
    'tubelet': (2, 4, 4),
    'channels': 3,
    'width': 8,
    'depth': 2,
    'heads': 4,
    'mlp_dim': 12,
    'qkv_bias': 'qkv',
    'positions': 'learned_1d',
    'class_token': 'none',
    'pooling': 'mean',
    'norm': 'before_pooling',
    'gelu': 'tanh',
    'num_classes': 3,
  }
  return vivit.ViViT(**{**defaults, **fields})


def _waves(shape, phase) -> np.ndarray:
  """Numbers that any machine makes alike, none of them special."""
  size = int(np.prod(shape))
  return np.sin(0.7 * np.arange(size) + phase).reshape(shape)


def _parameters(model, video) -> Any:
  init = functools.partial(model.init, deterministic=True)
  shapes: Any = jax.eval_shape(init, jax.random.key(0), video)
  flat: Any = traverse_util.flatten_dict(shapes['params'], sep='/')
  values = {
    name: (name.endswith('/scale') + 0.4 * _waves(flat[name].shape, i)).astype(
      np.float32
    )
    for i, name in enumerate(sorted(flat))
  }
  return traverse_util.unflatten_dict(values, sep='/')


@pytest.mark.parametrize('case', _CASES)
def test_logits(case):
  fields, form, golden = _CASES[case]
  model = _model(fields)
  video = _waves((2, 6, 8, 12, 3), 0.3).astype(np.float32)
  params = _parameters(model, video)
  form = numpy_vivit.Form(**{'heads': 4, 'pooling': 'mean', **form})
  want = numpy_vivit.logits(params, video, form)
  apply = jax.jit(functools.partial(model.apply, deterministic=True))
  got: Any = apply({'params': params}, video)
  assert set(got.logits) == set(want)
  for name, logits in want.items():
    assert got.logits[name].dtype == np.float32
    np.testing.assert_allclose(got.logits[name], logits, atol=1e-5)
  first = want[min(want)][0]
  np.testing.assert_allclose(first, golden, atol=1e-6)
