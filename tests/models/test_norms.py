import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vivit_mae import masking
from vivit_mae.models import norms, video_mae, vivit


def _flax(epsilon=1e-6):
  return nn.LayerNorm(epsilon=epsilon, use_fast_variance=False, dtype='float32')


_FLAX = _flax()


def _variables(width):
  rng = np.random.default_rng(0)
  scale, bias = rng.normal(size=(2, width)).astype(np.float32)
  return {'params': {'scale': jnp.asarray(scale), 'bias': jnp.asarray(bias)}}


@pytest.mark.parametrize('shape', [(5, 8), (2, 3, 7, 16)])
@pytest.mark.parametrize('epsilon', [1e-6, 0.5])
def test_values_and_gradients_are_those_of_flax(shape, epsilon):
  rng = np.random.default_rng(1)
  x, weights = rng.normal(2.0, 3.0, (2, *shape)).astype(np.float32)
  variables = _variables(shape[-1])

  def loss(norm, variables, x):
    return jnp.sum(norm.apply(variables, x) * weights)

  for ours, theirs in zip(
    jax.tree.leaves(
      jax.value_and_grad(loss, argnums=(1, 2))(
        norms.LayerNorm(epsilon=epsilon), variables, jnp.asarray(x)
      )
    ),
    jax.tree.leaves(
      jax.value_and_grad(loss, argnums=(1, 2))(
        _flax(epsilon), variables, jnp.asarray(x)
      )
    ),
    strict=True,
  ):
    np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5)


def test_parameters_are_those_of_flax():
  x = jnp.zeros((2, 6))
  ours, theirs = (
    norm.init(jax.random.key(0), x) for norm in (norms.LayerNorm(), _FLAX)
  )
  jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_half_precision_is_normalised_in_float32():
  x = jnp.asarray(np.random.default_rng(2).normal(size=(4, 32)), jnp.bfloat16)
  result = norms.LayerNorm().apply(_variables(32), x)
  assert isinstance(result, jax.Array)
  assert result.dtype == jnp.float32
  exact = _FLAX.apply(_variables(32), x.astype(jnp.float32))
  assert isinstance(exact, jax.Array)
  np.testing.assert_allclose(result, exact, rtol=1e-5, atol=1e-5)


def test_a_constant_row_gives_the_bias():
  variables = _variables(4)
  result = norms.LayerNorm().apply(variables, jnp.full((1, 4), 3.0))
  assert isinstance(result, jax.Array)
  np.testing.assert_array_equal(result[0], variables['params']['bias'])


def _epsilons(model, *args):
  """The epsilon of each norm that runs, by its path."""
  used = {}

  def watch(call, args, kwargs, context):
    if isinstance(context.module, norms.LayerNorm):
      used['/'.join(context.module.path)] = context.module.epsilon
    return call(*args, **kwargs)

  with nn.intercept_methods(watch):
    jax.eval_shape(
      lambda: model.init(jax.random.key(0), *args, deterministic=True)
    )
  return used


_TINY = {
  'image_size': (8, 8), 'num_frames': 4, 'tubelet': (2, 4, 4), 'channels': 3,
  'width': 8, 'depth': 1, 'heads': 2, 'mlp_dim': 8,
}  # fmt: skip


@pytest.mark.parametrize(
  ('epsilons', 'encoder', 'last'),
  [('published', 1e-6, 1e-6), ('hugging_face', 1e-12, 1e-5)],
)
@pytest.mark.parametrize('factorisation', ['none', 'encoder'])
def test_every_norm_has_the_named_epsilon(
  epsilons, encoder, last, factorisation
):
  video = jnp.zeros((1, 4, 8, 8, 3))
  common = _TINY | {'epsilons': epsilons, 'factorisation': factorisation}
  mae = video_mae.VideoMAE(
    **common,
    decoder_width=8,
    decoder_depth=1,
    decoder_heads=2,
    decoder_mlp_dim=8,
  )
  rows = jnp.asarray([[0, 4], [1, 5]])
  mask = masking.TokenMask(visible=rows[:1], masked=rows[1:])
  used = _epsilons(mae, video, mask)
  assert used.pop('decoder/norm') == last
  assert len(used) == {'none': 5, 'encoder': 14}[factorisation]
  assert set(used.values()) == {encoder}

  classifier = vivit.ViViT(**common, num_classes=3, norm='after_pooling')
  used = _epsilons(classifier, video)
  assert used.pop('head/norm') == last
  assert set(used.values()) == {encoder}


def test_unknown_epsilons_are_refused():
  model = vivit.ViViT(**_TINY, num_classes=3, epsilons='torch')
  with pytest.raises(ValueError, match=r"epsilons 'torch' is unknown.*hugging"):
    model.check()
