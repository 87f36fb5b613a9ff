"""Transformer blocks and the stack that runs them.

Precision, here and in every model: parameters, norms, softmax and the residual
stream are float32; the matrix products run in the module's `dtype`, and so do
the activations between two of them.
"""

from collections.abc import Callable, Collection
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Key

from vivit_mae.models import attention as attention_lib
from vivit_mae.models import norms, products

DTYPES = ('float32', 'bfloat16')
QKV_BIASES = ('qv', 'qkv', 'none')
REMATS = {
  'none': None,
  'full': jax.checkpoint_policies.nothing_saveable,
  'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


def check_choice(field: str, value: str, choices: Collection[str]) -> None:
  """Refuses a value that is not one of the choices.

  Args:
    field: name of the field, for the message.
    value: what the field holds.
    choices: what it may hold.

  Raises:
    ValueError: listing the choices.
  """
  if value not in choices:
    raise ValueError(
      f'{field} {value!r} is unknown: take one of {tuple(choices)}.'
    )


def linear(
  width: int, dtype: str, *, use_bias: bool = True, name: str | None = None
) -> nn.Dense:
  """A linear layer with float32 parameters and its product in `dtype`.

  The kernel starts Xavier uniform over its whole shape, so that a fused
  query-key-value kernel is bound by sqrt(6 / 4d); the bias starts at zero
  (VideoMAE).
  """
  return nn.Dense(
    width,
    use_bias=use_bias,
    dtype=dtype,
    kernel_init=nn.initializers.xavier_uniform(),
    dot_general=products.dot_general,
    name=name,
  )


def layer_norm(name: str | None = None) -> norms.LayerNorm:
  """A float32 layer norm, eps 1e-6."""
  return norms.LayerNorm(name=name)


def gelu(x: Float[Array, '*b d']) -> Float[Array, '*b d']:
  """Exact GELU by erf, a third cheaper on CPUs than jax.nn's, by erfc."""
  return 0.5 * x * (1 + jax.lax.erf(x * 0.5**0.5))


def drop_path(
  branch: Float[Array, 'b n d'],
  rate: Float[Array, ''],
  row_keys: Key[Array, 'b'],
) -> Float[Array, 'b n d']:
  """Drops a residual branch for some rows (stochastic depth).

  Args:
    branch: output of the branch.
    rate: the share of rows that lose it.
    row_keys: one key for each row, which alone decides for the row.

  Returns:
    The branch, zero in the dropped rows and scaled by 1 / (1 - rate) in the
    others, which keeps its mean.
  """
  keep = 1.0 - rate
  kept = jax.vmap(lambda rng: jax.random.uniform(rng) < keep)(row_keys)
  scale = jnp.where(kept, 1.0 / keep, 0.0).astype(branch.dtype)
  return branch * scale[:, None, None]


class Attention(nn.Module):
  """Multi-head self-attention with a fused query-key-value product.

  Attributes:
    heads: number of heads.
    qkv_bias: 'qv' learns a bias of queries and values (VideoMAE; one of the
      keys would not change the softmax), 'qkv' of all three (ViT, MAE-ST),
      'none' of none.
    dtype: of the matrix products.
    implementation: a name in `attention.ATTENTIONS`.
  """

  heads: int
  qkv_bias: str = 'qv'
  dtype: str = 'float32'
  implementation: str = 'auto'

  @nn.compact
  def __call__(self, x: Float[Array, 'b n d']) -> Float[Array, 'b n d']:
    """Lets the tokens of each row attend to each other.

    Args:
      x: tokens.

    Returns:
      The attended tokens, in `dtype`.

    Raises:
      ValueError: an unknown choice, or a width that the heads do not divide.
    """
    check_choice('qkv_bias', self.qkv_bias, QKV_BIASES)
    check_choice('attention', self.implementation, attention_lib.ATTENTIONS)
    rows, tokens, width = x.shape
    if width % self.heads:
      raise ValueError(
        f'width {width} is not a multiple of heads {self.heads}.'
      )
    qkv = linear(3 * width, self.dtype, use_bias=False, name='qkv')(x)
    if self.qkv_bias != 'none':
      qkv += self._bias(width).astype(qkv.dtype)
    query, key, value = jnp.unstack(
      qkv.reshape(rows, tokens, 3, self.heads, width // self.heads), axis=2
    )
    attend = attention_lib.ATTENTIONS[self.implementation]
    attended = attend(query, key, value).reshape(rows, tokens, width)
    return linear(width, self.dtype, name='proj')(attended)

  def _bias(self, width: int) -> Float[Array, 'c']:
    """The bias of queries, keys and values in the kernel's order."""
    zeros = nn.initializers.zeros
    query = self.param('q_bias', zeros, (width,))
    if self.qkv_bias == 'qkv':
      key = self.param('k_bias', zeros, (width,))
    else:
      key = jnp.zeros((width,))
    value = self.param('v_bias', zeros, (width,))
    return jnp.concatenate([query, key, value])


class Mlp(nn.Module):
  """Two linear layers with an exact (erf) GELU between.

  Attributes:
    hidden: width between the two layers.
    dtype: of the matrix products.
  """

  hidden: int
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x: Float[Array, 'b n d']) -> Float[Array, 'b n d']:
    """Transforms each token by itself; the result is in `dtype`."""
    width = x.shape[-1]
    x = linear(self.hidden, self.dtype, name='fc1')(x)
    x = gelu(x)
    return linear(width, self.dtype, name='fc2')(x)


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


class Block(nn.Module):
  """A pre-norm transformer block: attention, then MLP, each residual.

  Attributes:
    heads: attention heads.
    mlp_dim: hidden width of the MLP.
    qkv_bias: see `Attention`.
    layer_scale: initial value of LayerScale, 0 for none.
    dtype: of the matrix products.
    attention: a name in `attention.ATTENTIONS`.
  """

  heads: int
  mlp_dim: int
  qkv_bias: str = 'qv'
  layer_scale: float = 0.0
  dtype: str = 'float32'
  attention: str = 'auto'

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b n d'],
    layer: Int[Array, ''],
    rate: Float[Array, ''],
    row_keys: Key[Array, 'b'] | None = None,
  ) -> Float[Array, 'b n d']:
    """Runs the block.

    Args:
      x: tokens, the residual stream.
      layer: number of the layer, which tells its random draws apart.
      rate: drop path rate.
      row_keys: one key for each row for drop path; None drops nothing.

    Returns:
      The tokens, in the dtype of `x`.
    """

    def residual(
      branch: Float[Array, 'b n d'], index: int
    ) -> Float[Array, 'b n d']:
      if self.layer_scale:
        branch = LayerScale(self.layer_scale, name=f'scale{index + 1}')(branch)
      if row_keys is not None:
        keys = jax.vmap(jax.random.fold_in, (0, None))(
          row_keys, 2 * layer + index
        )
        branch = drop_path(branch, rate, keys)
      return x + branch.astype(x.dtype)

    attention = Attention(
      self.heads, self.qkv_bias, self.dtype, self.attention, name='attention'
    )
    x = residual(attention(layer_norm('norm1')(x)), 0)
    mlp = Mlp(self.mlp_dim, self.dtype, name='mlp')
    return residual(mlp(layer_norm('norm2')(x)), 1)


class Stack(nn.Module):
  """Blocks one after the other, named `block_00`, `block_01` and so on.

  Parameters are stored block by block, whether the blocks are scanned or not,
  so that a checkpoint serves both.

  Attributes:
    depth: number of blocks.
    block: makes one block, which is called like `Block`.
    drop_path: rate of the last block; the first has 0, those between lie on
      a line.
    first_layer: number of the first block, where two stacks share row keys.
    scan: compiles one block instead of all. Compilation takes a fraction of
      the time; intermediates of the blocks cannot be captured.
    remat: what is computed again in the backward pass instead of being kept:
      'none', 'full' (all but the input of each block) or 'dots' (all but the
      results of linear layers).
  """

  depth: int
  block: Callable[..., nn.Module]
  drop_path: float = 0.0
  first_layer: int = 0
  scan: bool = False
  remat: str = 'none'

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b n d'],
    *,
    deterministic: bool,
    row_keys: Key[Array, 'b'] | None = None,
  ) -> Float[Array, 'b n d']:
    """Runs all blocks.

    Args:
      x: tokens.
      deterministic: switches drop path off.
      row_keys: one key for each row; needed where something is drawn.

    Returns:
      The tokens, in the dtype of `x`.

    Raises:
      ValueError: drop path is on and there are no keys.
    """
    check_choice('remat', self.remat, REMATS)
    if deterministic or not self.drop_path:
      row_keys = None
    elif row_keys is None:
      raise ValueError(
        f'drop_path {self.drop_path} needs row_keys, one key for each row, '
        'unless deterministic=True.'
      )
    names = [f'block_{i:02d}' for i in range(self.depth)]
    layers = self.first_layer + np.arange(self.depth, dtype=np.int32)
    rates = np.linspace(0.0, self.drop_path, self.depth, dtype=np.float32)
    if self.scan and not self.is_initializing():
      return self._scan(x, names, layers, rates, row_keys)

    def run(block: Any, *args: Any) -> Any:
      return block(*args)

    if self.remat != 'none':
      run = nn.remat(run, policy=REMATS[self.remat])
    for name, layer, rate in zip(names, layers, rates, strict=True):
      block = self.block(name=name)
      x = run(block, x, jnp.asarray(layer), jnp.asarray(rate), row_keys)
    return x

  def _scan(
    self,
    x: Float[Array, 'b n d'],
    names: list[str],
    layers: Int[np.ndarray, 'l'],
    rates: Float[np.ndarray, 'l'],
    row_keys: Key[Array, 'b'] | None,
  ) -> Float[Array, 'b n d']:
    """Stacks the blocks' parameters and scans over them."""
    params = self.variables['params']
    stacked = jax.tree.map(
      lambda *leaves: jnp.stack(leaves), *(params[name] for name in names)
    )
    block = self.block(parent=None)

    def body(x: Any, per_layer: Any) -> tuple[Any, None]:
      params, layer, rate = per_layer
      return block.apply({'params': params}, x, layer, rate, row_keys), None

    if self.remat != 'none':
      # The scan itself keeps XLA from undoing the rematerialisation.
      body = jax.checkpoint(body, policy=REMATS[self.remat], prevent_cse=False)
    x, _ = lax.scan(body, x, (stacked, layers, rates))
    return x
