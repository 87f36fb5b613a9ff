"""A task as small as can be, which exercises what the loop relies on."""

import clu.metrics
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax


@flax.struct.dataclass
class Metrics(clu.metrics.Collection):
  loss: clu.metrics.Average.from_output('loss')  # pyright: ignore[reportInvalidTypeForm]


class FakeTask:
  """Regression of noise per row from the mean colour.

  The loss is no number once a bias has moved by more than `breaks`.
  """

  def __init__(self, breaks=np.inf):
    self.breaks = breaks
    self.model = None

  def init(self, rng):
    return {
      'params': {
        'dense': {
          'kernel': jax.random.normal(rng, (3, 16)) * 0.1,
          'bias': jnp.zeros((16,)),
        },
        'head': {'kernel': jnp.ones((16, 8))},
      }
    }

  def loss(self, variables, batch, rngs):
    params = variables['params']
    x = batch['video'].astype(jnp.float32).mean((1, 2, 3)) / 255
    noise = jax.vmap(lambda key: jax.random.normal(key, (8,)))(rngs)
    y = x @ params['dense']['kernel'] + params['dense']['bias']
    y = jnp.tanh(y) @ params['head']['kernel']
    losses = ((y - noise) ** 2).mean(1)
    moved = jnp.abs(params['dense']['bias']).max()
    losses += jnp.where(moved > self.breaks, jnp.nan, 0.0)
    return losses.mean(), (Metrics.single_from_model_output(loss=losses), {})

  def flops_per_clip(self):
    return 1e3

  num_layers = 0
  frozen = ()

  def layer_of(self, name):
    del name
    return 1

  def adapt(self, name, saved, wanted):
    del name, saved, wanted


def make_batch(rows=8, seed=0, frames=2, size=4):
  rng = np.random.default_rng(seed)
  return {
    'video': rng.integers(0, 256, (rows, frames, size, size, 3), np.uint8),
    'index': np.arange(rows, dtype=np.int32),
    'valid': np.ones((rows,), bool),
  }


def optimizer():
  return optax.adamw(1e-2)
