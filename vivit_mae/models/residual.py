"""What happens to a residual branch: drop path, dropout and LayerScale.

Everything drawn comes from one key for each row, which alone decides for its
row, whatever the batch it sits in.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key


def fold_in(
  row_keys: Key[Array, 'b'], purpose: int | Int[Array, '']
) -> Key[Array, 'b']:
  """Keys for one use of each row's key."""
  return jax.vmap(jax.random.fold_in, (0, None))(row_keys, purpose)


def drop_path(
  branch: Float[Array, 'b n d'],
  rate: Float[Array, ''],
  row_keys: Key[Array, 'b'],
  *,
  rescale: bool = True,
) -> Float[Array, 'b n d']:
  """Drops a residual branch for some rows (stochastic depth).

  Args:
    branch: output of the branch.
    rate: the share of rows that lose it.
    row_keys: one key for each row, which alone decides for the row.
    rescale: scales the branch by 1 / (1 - rate) in the other rows, which keeps
      its mean (timm, VideoMAE). Scenic's ViViT does not.

  Returns:
    The branch, zero in the dropped rows.
  """
  keep = 1.0 - rate
  kept = jax.vmap(lambda rng: jax.random.uniform(rng) < keep)(row_keys)
  scale = jnp.where(kept, 1.0 / keep if rescale else 1.0, 0.0)
  return branch * scale.astype(branch.dtype)[:, None, None]


def dropout(
  x: Float[Array, 'b *n'], rate: float, row_keys: Key[Array, 'b']
) -> Float[Array, 'b *n']:
  """Sets values to zero and scales the others by 1 / (1 - rate).

  Args:
    x: values of each row.
    rate: the share of values that are dropped.
    row_keys: one key for each row, which alone decides for the row.

  Returns:
    The values, of the same mean.
  """
  keep = 1.0 - rate
  kept = jax.vmap(lambda rng: jax.random.bernoulli(rng, keep, x.shape[1:]))(
    row_keys
  )
  return jnp.where(kept, x / keep, 0.0).astype(x.dtype)


class LayerScale(nn.Module):
  """A learned factor for each channel (Touvron et al. 2021, equation 4).

  Attributes:
    initial: the value that all factors start with.
  """

  initial: float

  @nn.compact
  def __call__(self, x: Float[Array, 'b n d']) -> Float[Array, 'b n d']:
    """Scales the channels."""
    gamma = self.param(
      'gamma', nn.initializers.constant(self.initial), (x.shape[-1],)
    )
    return x * gamma.astype(x.dtype)
