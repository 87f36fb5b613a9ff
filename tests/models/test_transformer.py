import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vivit_mae.models import layers, residual, transformer


def _keys(count, seed=0):
  return jax.random.split(jax.random.key(seed), count)


def _tokens(shape=(3, 5, 16), seed=1):
  return jax.random.normal(jax.random.key(seed), shape)


def _stack(**fields):
  fields = {'depth': 2, **fields}
  block = functools.partial(transformer.Block, heads=2, mlp_dim=24)
  return transformer.Stack(block=fields.pop('block', block), **fields)


@pytest.fixture(scope='module')
def variables() -> Any:
  return jax.jit(functools.partial(_stack().init, deterministic=True))(
    jax.random.key(0), _tokens()
  )


def _run(stack, variables, x=None, **options) -> Any:
  options = {'deterministic': True, **options}
  x = _tokens() if x is None else x
  return jax.jit(lambda v: stack.apply(v, x, **options))(variables)


def _randomised(variables):
  """Parameters with no zeros, so that each of them matters."""
  leaves, tree = jax.tree.flatten(variables)
  return jax.tree.unflatten(
    tree,
    [
      leaf + 0.3 * jax.random.normal(key, leaf.shape)
      for leaf, key in zip(leaves, _keys(len(leaves), 7), strict=True)
    ],
  )


@pytest.mark.parametrize(
  ('qkv_bias', 'names'),
  [
    ('qv', {'q_bias', 'v_bias'}),
    ('qkv', {'q_bias', 'k_bias', 'v_bias'}),
    ('none', set()),
  ],
)
def test_attention_by_hand(qkv_bias, names):
  module = layers.Attention(heads=2, qkv_bias=qkv_bias)
  x = _tokens((2, 5, 8))
  params: Any = _randomised(module.init(jax.random.key(0), x))['params']
  assert set(params) == {'qkv', 'proj'} | names
  assert params['qkv']['kernel'].shape == (8, 24)
  q, k, v = (
    np.asarray(x @ params['qkv']['kernel'][:, 8 * i : 8 * i + 8])
    + np.asarray(params.get(f'{name}_bias', 0))
    for i, name in enumerate('qkv')
  )
  out = np.zeros((2, 5, 8))
  for head in range(2):
    at = slice(4 * head, 4 * head + 4)
    score = np.exp(q[..., at] @ k[..., at].transpose(0, 2, 1) / 2)
    out[..., at] = score / score.sum(-1, keepdims=True) @ v[..., at]
  expected = out @ params['proj']['kernel'] + params['proj']['bias']
  got: Any = module.apply({'params': params}, x)
  np.testing.assert_allclose(got, expected, atol=2e-5)


def test_initial_distributions(variables):
  params = jax.jit(transformer.Block(heads=3, mlp_dim=768).init)(
    jax.random.key(0), jnp.zeros((1, 2, 192)), jnp.array(0), jnp.array(0.0)
  )['params']
  bounds = {
    ('attention', 'qkv'): np.sqrt(6 / (4 * 192)),
    ('attention', 'proj'): np.sqrt(6 / (2 * 192)),
    ('mlp', 'fc1'): np.sqrt(6 / (5 * 192)),
    ('mlp', 'fc2'): np.sqrt(6 / (5 * 192)),
  }
  for (part, name), bound in bounds.items():
    kernel = params[part][name]['kernel']
    assert 0.999 * bound < jnp.abs(kernel).max() <= bound
    np.testing.assert_allclose(kernel.std(), bound / np.sqrt(3), rtol=0.02)
  for part, name in (('attention', 'q_bias'), ('attention', 'v_bias')):
    assert not params[part][name].any()
  for part, name in (('attention', 'proj'), ('mlp', 'fc1'), ('mlp', 'fc2')):
    assert not params[part][name]['bias'].any()
  for name in ('norm1', 'norm2'):
    assert (params[name]['scale'] == 1).all()
    assert not params[name]['bias'].any()
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))


def test_layer_norm_keeps_small_variances():
  # A mean far above the deviation breaks E[x^2] - E[x]^2.
  x = 1000 + jax.random.normal(jax.random.key(0), (4, 64))
  norm = layers.layer_norm()
  got: Any = norm.apply(norm.init(jax.random.key(0), x), x)
  x64 = np.asarray(x, np.float64)
  expected = (x64 - x64.mean(-1, keepdims=True)) / np.sqrt(
    x64.var(-1, keepdims=True) + 1e-6
  )
  np.testing.assert_allclose(got, expected, atol=1e-3)


def test_scan_is_the_loop_with_the_same_parameters(variables):
  scanned = _stack(scan=True)
  shapes = jax.eval_shape(
    functools.partial(scanned.init, deterministic=True),
    jax.random.key(0),
    _tokens(),
  )
  assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, variables)
  assert set(variables['params']) == {'block_00', 'block_01'}
  np.testing.assert_allclose(
    _run(scanned, variables), _run(_stack(), variables), atol=1e-5
  )


def _gradient(variables, **fields):
  stack = _stack(drop_path=0.5, **fields)

  def loss(params):
    out: Any = stack.apply(
      params, _tokens(), deterministic=False, row_keys=_keys(3)
    )
    return jnp.square(out).sum()

  return jax.jit(jax.grad(loss))(variables)


@pytest.fixture(scope='module')
def gradient(variables):
  return _gradient(variables)


@pytest.mark.parametrize(
  ('remat', 'scan'),
  [('full', False), ('dots', False), ('none', True), ('dots', True)],
)
def test_remat_and_scan_change_no_gradient(variables, gradient, remat, scan):
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5),
    _gradient(variables, remat=remat, scan=scan),
    gradient,
  )


def test_remat_keeps_less():
  x = _tokens((2, 64, 16))

  def kept(remat, scan):
    stack = _stack(remat=remat, scan=scan)
    variables = jax.eval_shape(
      functools.partial(stack.init, deterministic=True), jax.random.key(0), x
    )

    def loss(params):
      out: Any = stack.apply(params, x, deterministic=True)
      return out.sum()

    # What the backward pass holds on to: the leaves of the closed-over vjp.
    _, backward = jax.eval_shape(lambda p: jax.vjp(loss, p), variables)
    return sum(leaf.size for leaf in jax.tree.leaves(backward))

  for scan in (False, True):
    full, dots, none = (kept(each, scan) for each in ('full', 'dots', 'none'))
    assert full < dots < none


@pytest.mark.parametrize(
  'fields', [{}, {'scan': True}, {'remat': 'dots'}, {'depth': 1}]
)
def test_the_last_tokens_are_those_of_all(variables, fields):
  def run(**options):
    return _run(
      _stack(drop_path=0.5, **fields), _randomised(variables),
      deterministic=False, row_keys=_keys(3), **options,
    )  # fmt: skip

  last = run(last=2)
  assert last.shape == (3, 2, 16)
  np.testing.assert_allclose(last, run()[:, 3:], atol=1e-5)


def test_the_last_block_spares_the_tokens_that_are_not_asked_for(variables):
  def flops(last):
    run = jax.jit(
      functools.partial(_stack().apply, deterministic=True, last=last)
    )
    analysis: Any = run.lower(variables, _tokens()).compile().cost_analysis()
    return analysis['flops']

  assert flops(1) < 0.8 * flops(None)


def test_deterministic_is_drop_path_off(variables):
  dropping = _stack(drop_path=0.5)
  np.testing.assert_array_equal(
    _run(dropping, variables, row_keys=_keys(3)),
    _run(_stack(), variables),
  )
  assert (
    jnp.abs(
      _run(dropping, variables, deterministic=False, row_keys=_keys(3))
      - _run(_stack(), variables)
    ).max()
    > 0.01
  )


@pytest.mark.parametrize('scan', [False, True])
def test_a_row_drops_the_same_whatever_its_batch(variables, scan):
  stack = _stack(drop_path=0.5, scan=scan)
  keys, x = _keys(6), _tokens((6, 5, 16))
  order = jnp.array([4, 0, 3])
  whole = _run(stack, variables, x, deterministic=False, row_keys=keys)
  part = _run(
    stack, variables, x[order], deterministic=False, row_keys=keys[order]
  )
  np.testing.assert_allclose(part, whole[order], atol=1e-6)


def test_drop_path_drops_at_its_rate_and_keeps_the_mean():
  rows = 4000
  out = residual.drop_path(jnp.ones((rows, 2, 3)), jnp.array(0.3), _keys(rows))
  assert (out == out[:, :1, :1]).all()
  np.testing.assert_allclose((out == 0).mean(), 0.3, atol=0.03)
  np.testing.assert_allclose(out.max(), 1 / 0.7, rtol=1e-6)
  np.testing.assert_allclose(out.mean(), 1.0, atol=0.05)


def test_layers_and_branches_drop_independently(variables):
  # Where all other branches give zero, only this one can act.
  keys, x = _keys(64), _tokens((64, 2, 16))
  acted = []
  for active in (('block_01', 'attention'), ('block_01', 'mlp')):
    params = {
      block: {
        part: leaves
        if 'norm' in part or (block, part) == active
        else jax.tree.map(jnp.zeros_like, leaves)
        for part, leaves in parts.items()
      }
      for block, parts in variables['params'].items()
    }
    out = _run(
      _stack(drop_path=0.5),
      {'params': params},
      x,
      deterministic=False,
      row_keys=keys,
    )
    acted.append(np.asarray(jnp.abs(out - x).max((1, 2)) > 0))
  for each in acted:
    assert 0.3 < each.mean() < 0.7
  assert 0.2 < (acted[0] != acted[1]).mean() < 0.8


def test_drop_path_without_keys_is_refused(variables):
  with pytest.raises(ValueError, match=r'drop_path 0.5 needs row_keys'):
    _stack(drop_path=0.5).apply(variables, _tokens(), deterministic=False)


def test_layer_scale_of_zero_size_is_nearly_identity():
  block = functools.partial(
    transformer.Block, heads=2, mlp_dim=24, layer_scale=1e-6
  )
  stack = _stack(block=block)
  params: Any = stack.init(jax.random.key(0), _tokens(), deterministic=True)
  gamma = params['params']['block_01']['scale2']['gamma']
  np.testing.assert_array_equal(gamma, np.full(16, 1e-6, np.float32))
  np.testing.assert_allclose(_run(stack, params), _tokens(), atol=1e-4)


def test_bfloat16_keeps_a_float32_stream(variables):
  block = functools.partial(
    transformer.Block, heads=2, mlp_dim=24, dtype='bfloat16'
  )
  stack = _stack(block=block)
  shapes = jax.eval_shape(
    functools.partial(stack.init, deterministic=True),
    jax.random.key(0),
    _tokens(),
  )
  assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {
    jnp.dtype('float32')
  }
  got = _run(stack, variables)
  assert got.dtype == jnp.float32
  exact = _run(_stack(), variables)
  assert 1e-5 < jnp.abs(got - exact).max() < 0.1


def test_errors_say_what_would_do():
  x = _tokens()
  with pytest.raises(ValueError, match='width 16 is not a multiple of heads 3'):
    layers.Attention(heads=3).init(jax.random.key(0), x)
  with pytest.raises(ValueError, match=r"'kv' is unknown.*'qv'"):
    layers.Attention(2, qkv_bias='kv').init(jax.random.key(0), x)
  with pytest.raises(ValueError, match=r"'gpu' is unknown.*'xla'"):
    layers.Attention(2, implementation='gpu').init(jax.random.key(0), x)
  with pytest.raises(ValueError, match=r"last 2 needs a joint axis.*'time'"):
    layers.Attention(2, axis='time', frames=5).init(
      jax.random.key(0), x, last=2
    )
  with pytest.raises(ValueError, match=r"'half' is unknown.*'dots'"):
    _stack(remat='half').init(jax.random.key(0), x, deterministic=True)
