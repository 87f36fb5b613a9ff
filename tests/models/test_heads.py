import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vivit_mae.models import heads, residual


def _keys(count, seed=0):
  return jax.random.split(jax.random.key(seed), count)


def _normal(shape, seed=1):
  return jax.random.normal(jax.random.key(seed), shape)


def _apply(module, variables, *args, **options) -> Any:
  return module.apply(variables, *args, **options)


def _linear(**fields):
  return functools.partial(heads.LinearHead, **{'num_classes': 5, **fields})


def _shapes(tree):
  return jax.tree.map(jnp.shape, tree)


def test_poolings():
  tokens, cls = _normal((2, 3, 4)), _normal((2, 4), 2)
  want = {
    'token': cls,
    'mean': np.mean(tokens, 1),
    'max': np.max(tokens, 1),
    'sum': np.sum(tokens, 1),
    'first': tokens[:, 0],
  }
  assert set(heads.POOLINGS) == set(want)
  for name, expected in want.items():
    got = heads.POOLINGS[name](tokens, cls)
    np.testing.assert_allclose(got, expected, rtol=1e-6, err_msg=name)
  with pytest.raises(ValueError, match='class_token'):
    heads.POOLINGS['token'](tokens, None)


def test_named_classes():
  assert heads.named_classes(4) == {'label': 4}
  pairs = (('noun', 300), ('verb', 97))
  assert heads.named_classes(pairs) == {'noun': 300, 'verb': 97}
  for wrong, message in [
    (0, "'label' is 0"),
    ((), 'at least one head'),
    ((('a', 2), ('a', 3)), 'another name'),
    ((('norm', 2),), "a head 'norm'"),
  ]:
    with pytest.raises(ValueError, match=message):
      heads.named_classes(wrong)


def test_linear_head_by_hand():
  head = _linear(
    num_classes=(('noun', 3), ('verb', 2)), representation_size=4
  )()
  x = _normal((2, 6))
  params: Any = head.init(jax.random.key(0), x, deterministic=True)['params']
  assert _shapes(params) == {
    'pre_logits': {'kernel': (6, 4), 'bias': (4,)},
    'noun': {'kernel': (4, 3), 'bias': (3,)},
    'verb': {'kernel': (4, 2), 'bias': (2,)},
  }
  params['pre_logits']['bias'] += 0.3
  out: Any = head.apply({'params': params}, x, deterministic=True)
  hidden = np.tanh(x @ params['pre_logits']['kernel'] + 0.3)
  for name in ('noun', 'verb'):
    np.testing.assert_allclose(
      out[name], hidden @ params[name]['kernel'], atol=1e-6
    )


def test_initial_values_of_the_head():
  x = jnp.ones((1, 400))
  fields = {'num_classes': 300, 'init_scale': 0.001, 'init_bias': -6.9}
  params: Any = _linear(**fields)().init(
    jax.random.key(0), x, deterministic=True
  )['params']['label']
  np.testing.assert_allclose(np.std(params['kernel']), 2e-5, rtol=0.02)
  np.testing.assert_array_equal(params['bias'], np.float32(-6.9))
  zero: Any = _linear(init_scale=0.0)()
  out, _ = zero.init_with_output(jax.random.key(0), x, deterministic=True)
  np.testing.assert_array_equal(out['label'], 0)


def test_dropout_depends_on_the_row_key_alone():
  head = _linear(dropout=0.5)()
  x = jnp.ones((6, 8))
  variables = head.init(jax.random.key(0), x, deterministic=True)
  run: Any = functools.partial(head.apply, variables, deterministic=False)
  keys = _keys(6)
  out = run(x, row_keys=keys)['label']
  part = run(x[:2], row_keys=keys[4:])['label']
  np.testing.assert_allclose(out[4:], part, atol=1e-6)
  assert np.abs(out[0] - out[1]).max() > 1e-4
  with pytest.raises(ValueError, match='row_keys'):
    run(x)
  with pytest.raises(ValueError, match=r'1\.0 must lie'):
    _linear(dropout=1.0)().init(jax.random.key(0), x, deterministic=True)


def test_dropout_keeps_its_share_and_the_mean():
  out = np.asarray(residual.dropout(jnp.ones((40, 500)), 0.25, _keys(40)))
  np.testing.assert_allclose(np.unique(out), [0.0, 4 / 3], rtol=1e-6)
  # Four standard errors.
  bound = 4 * (0.25 * 0.75 / out.size) ** 0.5
  assert abs((out == 0).mean() - 0.25) < bound


def _norm(x, params):
  centred = x - x.mean(-1, keepdims=True)
  scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
  return scaled * params['scale'] + params['bias']


def _dense(x, params):
  return x @ params['kernel'] + params['bias']


def _numpy_pool(tokens, params, count):
  query = params['query']
  tokens = _norm(tokens, params['norm1'])
  q = _dense(query, params['q'])
  k, v = np.split(_dense(tokens, params['kv']), 2, axis=-1)
  size = q.shape[-1] // count
  out = np.zeros((len(tokens), *q.shape))
  for head in range(count):
    at = slice(size * head, size * (head + 1))
    score = np.exp(q[:, at] @ k[..., at].transpose(0, 2, 1) / size**0.5)
    out[..., at] = score / score.sum(-1, keepdims=True) @ v[..., at]
  x = query + _dense(out, params['proj'])
  hidden = _dense(_norm(x, params['norm2']), params['mlp']['fc1'])
  hidden = 0.5 * hidden * (1 + np.asarray(jax.lax.erf(hidden / 2**0.5)))
  return (x + _dense(hidden, params['mlp']['fc2'])).mean(1)


@pytest.mark.parametrize('queries', [1, 2])
def test_attentive_pool_by_hand(queries):
  pool = heads.AttentivePool(heads=2, mlp_dim=12, queries=queries)
  tokens = _normal((3, 5, 8))
  params: Any = pool.init(jax.random.key(0), tokens)['params']
  assert _shapes(params) == {
    'query': (queries, 8),
    'norm1': {'scale': (8,), 'bias': (8,)},
    'q': {'kernel': (8, 8), 'bias': (8,)},
    'kv': {'kernel': (8, 16), 'bias': (16,)},
    'proj': {'kernel': (8, 8), 'bias': (8,)},
    'norm2': {'scale': (8,), 'bias': (8,)},
    'mlp': {
      'fc1': {'kernel': (8, 12), 'bias': (12,)},
      'fc2': {'kernel': (12, 8), 'bias': (8,)},
    },
  }
  leaves, tree = jax.tree.flatten(params)
  leaves = [leaf + 0.3 * _normal(leaf.shape, 9) for leaf in leaves]
  params = jax.tree.unflatten(tree, leaves)
  got: Any = pool.apply({'params': params}, tokens)
  arrays = jax.tree.map(np.asarray, params)
  want = _numpy_pool(np.asarray(tokens), arrays, 2)
  np.testing.assert_allclose(got, want, atol=2e-5)


def test_attentive_pool_ignores_the_order_of_tokens():
  pool = heads.AttentivePool(heads=2, mlp_dim=12, dtype='bfloat16')
  tokens = _normal((2, 5, 8))
  out, variables = pool.init_with_output(jax.random.key(0), tokens)
  assert out.dtype == jnp.float32
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {
    jnp.dtype('float32')
  }
  turned = _apply(pool, variables, tokens[:, ::-1])
  np.testing.assert_allclose(out, turned, atol=2e-2)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'heads': 3}, 'heads 3'),
    ({'queries': 0}, 'queries 0'),
    ({'attention': 'flash'}, "attention 'flash' is unknown"),
  ],
)
def test_attentive_pool_refuses(fields, message):
  pool = heads.AttentivePool(**{'heads': 2, 'mlp_dim': 4, **fields})
  with pytest.raises(ValueError, match=message):
    pool.init(jax.random.key(0), _normal((1, 2, 8)))


def _head(**fields):
  return heads.Head(linear=_linear(), **fields)


def _init(head, tokens) -> Any:
  return head.init(jax.random.key(0), tokens, None, deterministic=True)


def test_head_normalises_what_it_pooled():
  tokens = _normal((3, 4, 6))
  variables = _init(_head(norm=True), tokens)
  assert set(variables['params']) == {'norm', 'label'}
  variables['params']['norm']['bias'] += 0.2
  logits, features = _apply(
    _head(norm=True), variables, tokens, None, deterministic=True
  )
  arrays = jax.tree.map(np.asarray, variables['params'])
  want = _norm(np.asarray(tokens).mean(1), arrays['norm'])
  np.testing.assert_allclose(features, want, atol=1e-5)
  want = _dense(want, arrays['label'])
  np.testing.assert_allclose(logits['label'], want, atol=1e-5)
  pooled = _apply(_head(norm=True), variables, tokens, None, method='pooled')
  np.testing.assert_array_equal(pooled, features)


def test_head_with_attentive_pool():
  pool = functools.partial(heads.AttentivePool, heads=2, mlp_dim=8)
  tokens = _normal((3, 4, 6))
  variables = _init(_head(pool=pool), tokens)
  assert set(variables['params']) == {'pool', 'label'}
  _, features = _apply(
    _head(pool=pool), variables, tokens, None, deterministic=True
  )
  alone = _apply(pool(), {'params': variables['params']['pool']}, tokens)
  np.testing.assert_array_equal(features, alone)


@pytest.mark.parametrize('probe', [False, True])
def test_probe_gives_the_encoder_no_gradient(probe):
  tokens = _normal((3, 4, 6))
  head = _head(norm=True, probe=probe)
  variables = _init(head, tokens)

  def loss(variables, tokens):
    logits: Any = head.apply(variables, tokens, None, deterministic=True)
    return jnp.square(logits[0]['label']).sum()

  own, encoder = jax.grad(loss, argnums=(0, 1))(variables, tokens)
  assert (np.abs(encoder).max() == 0) == probe
  assert np.abs(own['params']['norm']['scale']).max() > 0


def test_batch_norm_of_the_probe():
  head = _head(batch_norm=True)
  tokens = 3 + 2 * _normal((8, 4, 6))
  variables = _init(head, tokens)
  assert set(variables) == {'params', 'batch_stats'}
  assert set(variables['params']) == {'label'}
  start = variables['batch_stats']['batch_norm']
  np.testing.assert_array_equal(start['mean'], 0)
  np.testing.assert_array_equal(start['var'], 1)
  (logits, features), mutated = _apply(
    head, variables, tokens, None, deterministic=False, mutable=['batch_stats']
  )
  pooled = np.asarray(tokens).mean(1)
  np.testing.assert_allclose(features, pooled, rtol=1e-5)
  label = jax.tree.map(np.asarray, variables['params']['label'])
  mean, var = pooled.mean(0), pooled.var(0)
  want = _dense((pooled - mean) / np.sqrt(var + 1e-6), label)
  np.testing.assert_allclose(logits['label'], want, atol=1e-5)
  after = mutated['batch_stats']['batch_norm']
  np.testing.assert_allclose(after['mean'], 0.1 * mean, rtol=1e-4)
  np.testing.assert_allclose(after['var'], 0.9 + 0.1 * var, rtol=1e-4)
  still = {**variables, **mutated}
  logits, _ = _apply(head, still, tokens, None, deterministic=True)
  want = (pooled - after['mean']) / np.sqrt(after['var'] + 1e-6)
  np.testing.assert_allclose(logits['label'], _dense(want, label), atol=1e-4)


def test_unknown_pooling_is_refused():
  with pytest.raises(ValueError, match="pooling 'median' is unknown"):
    _init(_head(pooling='median'), _normal((1, 2, 6)))
