import functools
from typing import Any

import jax
import numpy as np
import pytest
from flax import traverse_util

from tests.models import numpy_vivit
from vivit_mae.models import inflate, positions, vivit

_WIDTH = 8
_SIDES = (2, 3)


def _flat(tree: Any, prefix: str = '') -> dict[str, Any]:
  flat = traverse_util.flatten_dict(tree, sep='/')
  return {
    name.removeprefix(prefix): value
    for name, value in flat.items()
    if name.startswith(prefix)
  }


def _model(**fields) -> vivit.ViViT:
  fields = {
    'image_size': tuple(4 * side for side in _SIDES),
    'num_frames': 6,
    'tubelet': (2, 4, 4),
    'channels': 3,
    'width': _WIDTH,
    'depth': 2,
    'heads': 2,
    'mlp_dim': 12,
    'qkv_bias': 'qkv',
    'positions': 'learned_1d',
    'num_classes': 3,
    'pooling': 'mean',
    'gelu': 'tanh',
    **fields,
  }
  return vivit.ViViT(**fields)


def _parameters(model, seed=0) -> dict[str, Any]:
  """Random values for all parameters of a model, by name."""
  shape = (1, model.num_frames, *model.image_size, model.channels)
  init = functools.partial(model.init, deterministic=True)
  shapes: Any = jax.eval_shape(
    init, jax.random.key(0), np.zeros(shape, np.float32)
  )
  rng = np.random.default_rng(seed)
  return {
    name: rng.normal(size=leaf.shape).astype(np.float32) / 3
    for name, leaf in _flat(shapes['params']).items()
  }


def _image_model(**fields) -> vivit.ViViT:
  return _model(num_frames=1, tubelet=(1, 4, 4), **fields)


def _image(parameters) -> dict[str, Any]:
  """A model of one frame is an image model."""
  image = {
    name.removeprefix('encoder/'): value
    for name, value in parameters.items()
    if name.startswith('encoder/')
  }
  image['embedding/kernel'] = image['embedding/kernel'][0]
  return image


def _logits(parameters, video, **form) -> Any:
  tree = traverse_util.unflatten_dict(parameters, sep='/')
  form = numpy_vivit.Form(**{'heads': 2, 'pooling': 'mean', **form})
  return numpy_vivit.logits(tree, video, form)['label']


def _still(frames) -> np.ndarray:
  picture = np.random.default_rng(5).normal(size=(2, 1, 8, 12, 3))
  return np.repeat(picture, frames, axis=1)


@pytest.mark.parametrize(
  ('rule', 'frames', 'weights'),
  [
    ('central_frame', 1, [1]),
    ('central_frame', 2, [0, 1]),
    ('central_frame', 4, [0, 0, 1, 0]),
    ('average', 2, [0.5, 0.5]),
    ('average_arp', 1, [1]),
    ('average_arp', 2, [-0.25, 0.25]),
    ('average_arp', 4, [-0.6041667, 0.1458333, 0.2708333, 0.1875]),
  ],
)
def test_kernels_have_scenics_weights(rule, frames, weights):
  kernel = np.random.default_rng(0).normal(size=(6, 6, 3, 8))
  got = inflate.inflate_kernel(kernel, frames, rule)
  assert got.shape == (frames, 6, 6, 3, 8)
  for frame, weight in zip(got, weights, strict=True):
    np.testing.assert_allclose(frame, weight * kernel, atol=1e-6)


@pytest.mark.parametrize(
  ('start', 'end', 'values'),
  [(2, 3, [0, 0.5, 1]), (4, 6, [0, 0.6, 1.2, 1.8, 2.4, 3])],
)
@pytest.mark.parametrize('axis', [0, 1, 2])
def test_tables_resize_with_corners_aligned(start, end, values, axis):
  table = np.arange(start, dtype=np.float32)[:, None]
  grids: list[Any] = [
    tuple(size if i == axis else 1 for i in range(3)) for size in (start, end)
  ]
  got = positions.resize(table, *grids, method='linear')
  np.testing.assert_allclose(got[:, 0], values, atol=1e-6)


def test_still_video_gives_what_the_image_gives():
  image = _parameters(_image_model())
  want = _logits(image, _still(1), model=1)
  fresh = _parameters(_model(factorisation='self_attention'), seed=1)
  made = inflate.inflate(
    _image(image),
    fresh,
    grid=(3, *_SIDES),
    image_grid=_SIDES,
    kernel='average',
    positions='tile',
    temporal='zero',
  )
  head = {name: image[name] for name in fresh if name.startswith('head/')}
  assert set(fresh) == set(made) | set(head)
  got = _logits({**made, **head}, _still(6), model=3)
  np.testing.assert_allclose(got, want, atol=1e-6)


def test_class_token_of_the_image_is_kept_by_model_2():
  fields = {'class_token': 'before_positions', 'pooling': 'token'}
  image = _parameters(_image_model(**fields))
  want = _logits(image, _still(1), model=1, pooling='token')
  model = _model(factorisation='encoder', spatial_only=True, **fields)
  fresh = _parameters(model, seed=1)
  made = inflate.inflate(
    _image(image), fresh, grid=(3, *_SIDES), image_grid=_SIDES, kernel='average'
  )
  head = {name: image[name] for name in fresh if name.startswith('head/')}
  assert set(fresh) == set(made) | set(head)
  got = _logits(
    {**made, **head}, _still(6), model=2, pooling='token', spatial_only=True
  )
  np.testing.assert_allclose(got, want, atol=1e-6)


def test_temporal_encoder_stays_fresh():
  fields = {'class_token': 'before_positions', 'pooling': 'token'}
  image = _parameters(_image_model(**fields))
  model = _model(factorisation='encoder', temporal_depth=1, **fields)
  fresh = _parameters(model)
  made = inflate.inflate(
    _image(image), fresh, grid=(3, *_SIDES), image_grid=_SIDES
  )
  left = {name for name in fresh if name not in made}
  temporal = {name for name in fresh if name.startswith('encoder/temporal/')}
  assert temporal
  assert left == temporal | {'head/label/kernel', 'head/label/bias'}


@pytest.mark.parametrize('factorisation', ['none', 'dot_product'])
@pytest.mark.parametrize('rule', ['tile', 'resize_tile'])
def test_joint_and_dot_product_copy_by_name(factorisation, rule):
  image = _image(_parameters(_image_model()))
  fresh = _parameters(_model(factorisation=factorisation), seed=1)
  made = inflate.inflate(
    image, fresh, grid=(3, *_SIDES), image_grid=_SIDES, positions=rule
  )
  for name, value in image.items():
    if name.startswith(('block_', 'norm/')) or name == 'embedding/bias':
      np.testing.assert_array_equal(made[f'encoder/{name}'], value)
  table = made['encoder/position_embedding'].reshape(3, 6, _WIDTH)
  for frame in table:
    np.testing.assert_array_equal(
      frame, image['position_embedding'].reshape(6, _WIDTH)
    )
  assert set(fresh) - set(made) == {'head/label/kernel', 'head/label/bias'}


@pytest.mark.parametrize('temporal', ['copy', 'zero', 'fresh'])
def test_attention_over_time(temporal):
  image = _image(_parameters(_image_model()))
  fresh = _parameters(_model(factorisation='self_attention'), seed=1)
  made = inflate.inflate(
    image, fresh, grid=(3, *_SIDES), image_grid=_SIDES, temporal=temporal
  )
  block = 'encoder/block_01/'
  for name, value in image.items():
    if not name.startswith('block_01/'):
      continue
    rest = name.removeprefix('block_01/')
    if not rest.startswith(('attention/', 'norm1/')):
      np.testing.assert_array_equal(made[block + rest], value)
      continue
    module, leaf = rest.split('/', 1)
    module = module.removesuffix('1')
    np.testing.assert_array_equal(made[f'{block}{module}_space/{leaf}'], value)
    over_time = f'{block}{module}_time/{leaf}'
    if temporal == 'fresh':
      assert over_time not in made
    elif temporal == 'zero' and leaf.startswith('proj/'):
      np.testing.assert_array_equal(made[over_time], 0 * value)
    else:
      np.testing.assert_array_equal(made[over_time], value)


def test_other_image_sizes_that_are_not_square():
  image = _image(_parameters(_image_model(image_size=(8, 12))))
  down, across = np.meshgrid(np.arange(2.0), np.arange(3.0), indexing='ij')
  table = np.zeros((6, _WIDTH), np.float32)
  table[:, 0], table[:, 1] = down.ravel(), across.ravel()
  image['position_embedding'] = table
  fresh = _parameters(_model(image_size=(12, 20)))
  made = inflate.inflate(image, fresh, grid=(3, 3, 5), image_grid=_SIDES)
  table = made['encoder/position_embedding'].reshape(3, 3, 5, _WIDTH)
  down = np.array([0, 0.5, 1])[:, None] * np.ones(5)
  across = np.array([0, 0.5, 1, 1.5, 2]) * np.ones((3, 1))
  for frame in table:
    np.testing.assert_allclose(frame[..., 0], down, atol=1e-6)
    np.testing.assert_allclose(frame[..., 1], across, atol=1e-6)


def _table_and_token(image_token, video_token) -> tuple[Any, ...]:
  """Both tables and tokens of models 1 with and without class tokens."""
  image = _image(_parameters(_image_model(class_token=image_token)))
  fresh = _parameters(_model(class_token=video_token), seed=1)
  made = inflate.inflate(
    image, fresh, grid=(3, *_SIDES), image_grid=_SIDES, positions='tile'
  )
  table = made['encoder/position_embedding'].reshape(-1, _WIDTH)
  token = made.get('encoder/cls_token')
  return image, fresh, table, token


@pytest.mark.parametrize(
  ('image_token', 'video_token', 'rows'),
  [
    ('before_positions', 'before_positions', 19),
    ('before_positions', 'after_positions', 18),
    ('after_positions', 'before_positions', 19),
    ('before_positions', 'none', 18),
    ('none', 'before_positions', 19),
  ],
)
def test_rows_of_the_class_token(image_token, video_token, rows):
  image, fresh, table, token = _table_and_token(image_token, video_token)
  assert len(table) == rows
  source = image['position_embedding'].reshape(-1, _WIDTH)
  np.testing.assert_array_equal(table[-6:], source[-6:])
  if 'none' in (image_token, video_token):
    assert token is None
    if rows == 19:
      own = fresh['encoder/position_embedding'].reshape(-1, _WIDTH)
      np.testing.assert_array_equal(table[0], own[0])
    return
  # What enters the first block is the same.
  row = source[0] if image_token == 'before_positions' else 0
  want = np.ravel(image['cls_token']) + row
  row = table[0] if video_token == 'before_positions' else 0
  np.testing.assert_allclose(np.ravel(token) + row, want, atol=1e-6)


def test_biases_of_keys_may_go():
  image = _image(_parameters(_image_model()))
  fresh = _parameters(_model(qkv_bias='qv'), seed=1)
  made = inflate.inflate(image, fresh, grid=(3, *_SIDES), image_grid=_SIDES)
  assert 'encoder/block_00/attention/q_bias' in made
  assert not any(name.endswith('k_bias') for name in made)


def test_model_without_a_learned_table():
  image = _image(_parameters(_image_model()))
  fresh = _parameters(_model(positions='sincos_1d'), seed=1)
  made = inflate.inflate(image, fresh, grid=(3, *_SIDES))
  assert 'encoder/position_embedding' not in made


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'kernel': 'last'}, "kernel 'last' is unknown"),
    ({'positions': 'crop'}, "positions 'crop' is unknown"),
    ({'temporal': 'half'}, "temporal 'half' is unknown"),
    ({'positions': 'resize'}, "has 3: take 'resize_tile'"),
    ({'image_grid': None}, '6 rows, which is no square'),
    ({'image_grid': (2, 2)}, r'image_grid \(2, 2\) has 4 tokens'),
    ({'image_grid': (3, 2), 'positions': 'tile'}, 'does not tile'),
    ({'grid': (3, 3, 3)}, r'grid \(3, 3, 3\) has 27 tokens'),
  ],
)
def test_refuses(options, message):
  image = _image(_parameters(_image_model()))
  fresh = _parameters(_model())
  options = {'grid': (3, *_SIDES), 'image_grid': _SIDES, **options}
  with pytest.raises(ValueError, match=message):
    inflate.inflate(image, fresh, **options)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'depth': 1}, 'block_01/.* has no place'),
    ({'depth': 3}, 'nothing for .*block_02'),
    ({'mlp_dim': 16}, r'mlp/fc1/.* has \(16,\)|has \(8, 16\)'),
    ({'tubelet': (2, 2, 2), 'image_size': (4, 6)}, r'embedding/kernel .*4, 4'),
  ],
)
def test_refuses_another_architecture(fields, message):
  image = _image(_parameters(_image_model()))
  fresh = _parameters(_model(**fields))
  with pytest.raises(ValueError, match=message):
    inflate.inflate(image, fresh, grid=(3, *_SIDES), image_grid=_SIDES)


def test_refuses_what_is_no_image_model():
  fresh = _parameters(_model())
  with pytest.raises(ValueError, match="no 'embedding/kernel'; it has"):
    inflate.inflate({'encoder/norm/scale': 1}, fresh, grid=(3, *_SIDES))
