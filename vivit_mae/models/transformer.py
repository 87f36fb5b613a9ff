"""Transformer blocks and the stack that runs them."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Key

from vivit_mae.models import initialisers, layers, norms
from vivit_mae.models.residual import LayerScale, drop_path, dropout, fold_in

REMATS = {
  'none': None,
  'full': jax.checkpoint_policies.nothing_saveable,
  'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}

# Tells the draws of a block's second attention from those of any first.
_SECOND = 1 << 14
# Tells the draws before the first block from those of blocks.
_BEFORE = 1 << 15


class Block(nn.Module):
  """A pre-norm transformer block: attention, then MLP, each residual.

  With one axis the attention's parameters are `norm1` and `attention`; with
  several there is one attention after the other, `norm_time` and
  `attention_time` and so on.

  Attributes:
    heads: attention heads.
    mlp_dim: hidden width of the MLP.
    qkv_bias: see `layers.Attention`.
    layer_scale: initial value of LayerScale, 0 for none.
    dtype: of the matrix products.
    attention: a name in `attention.ATTENTIONS`.
    axes: along which axes tokens attend, names in `factorised_attention.AXES`.
    frames: frames of a clip in tokens, where an axis is not 'joint'.
    gelu: see `layers.Mlp`.
    dropout: rate of the dropout behind each attention, GELU and MLP.
    drop_path_rescale: see `drop_path`.
    initialisation: a name in `initialisers.INITS`.
    cosine: see `layers.Attention`.
    norm_epsilon: what the norms add to variances.
  """

  heads: int
  mlp_dim: int
  qkv_bias: str = 'qv'
  layer_scale: float = 0.0
  dtype: str = 'float32'
  attention: str = 'auto'
  axes: tuple[str, ...] = ('joint',)
  frames: int = 1
  gelu: str = 'erf'
  dropout: float = 0.0
  drop_path_rescale: bool = True
  initialisation: str = 'videomae'
  cosine: bool = False
  norm_epsilon: float = norms.EPSILON

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b n d'],
    layer: Int[Array, ''],
    rate: Float[Array, ''],
    row_keys: Key[Array, 'b'] | None = None,
    last: int | None = None,
  ) -> Float[Array, 'b m d']:
    """Runs the block.

    Args:
      x: tokens, the residual stream.
      layer: number of the layer, which tells its random draws apart.
      rate: drop path rate.
      row_keys: one key for each row for drop path and dropout; None drops
        nothing.
      last: how many tokens at the end are asked for; None for all. The others
        are attended to, and go no further.

    Returns:
      The tokens, in the dtype of `x`.

    Raises:
      ValueError: only some tokens, and another axis than the joint one.
    """

    def keys_of(branch: int) -> Key[Array, 'b'] | None:
      return None if row_keys is None else fold_in(row_keys, 2 * layer + branch)

    def residual(
      branch: Float[Array, 'b m d'], suffix: str, keys: Key[Array, 'b'] | None
    ) -> Float[Array, 'b m d']:
      if self.dropout and keys is not None:
        branch = dropout(branch, self.dropout, fold_in(keys, 0))
      if self.layer_scale:
        branch = LayerScale(self.layer_scale, name=f'scale{suffix}')(branch)
      if keys is not None:
        branch = drop_path(branch, rate, keys, rescale=self.drop_path_rescale)
      return x + branch.astype(x.dtype)

    alone = len(self.axes) == 1
    for i, axis in enumerate(self.axes):
      attention = layers.Attention(
        self.heads, self.qkv_bias, self.dtype, self.attention, axis,
        self.frames, self.initialisation, self.cosine,
        name='attention' if alone else f'attention_{axis}',
      )  # fmt: skip
      norm = self._norm('norm1' if alone else f'norm_{axis}')
      attended = attention(norm(x), last)
      x = x if last is None else x[:, -last:]
      x = residual(attended, '1' if alone else f'_{axis}', keys_of(i * _SECOND))
    mlp = layers.Mlp(
      self.mlp_dim, self.dtype, self.gelu, self.dropout, self.initialisation,
      name='mlp',
    )  # fmt: skip
    keys = keys_of(1)
    inner = None if keys is None else fold_in(keys, 1)
    return residual(mlp(self._norm('norm2')(x), inner), '2', keys)

  def _norm(self, name: str) -> nn.Module:
    init = initialisers.INITS[self.initialisation]
    return layers.layer_norm(name, init.norm_bias, self.norm_epsilon)


class Stack(nn.Module):
  """Blocks one after the other, named `block_00`, `block_01` and so on.

  Parameters are stored block by block, whether the blocks are scanned or not,
  so that a checkpoint serves both.

  Attributes:
    depth: number of blocks.
    block: makes one block of a name and a dropout rate, which is called like
      `Block`.
    drop_path: rate of the last block; the first has 0, those between lie on
      a line.
    dropout: rate of the dropout before the first block and within each.
    first_layer: number of the first block, where two stacks share row keys.
    scan: compiles one block instead of all (two where of the last one less is
      asked for). Compilation takes a fraction of the time; intermediates of the
      blocks cannot be captured.
    remat: what is computed again in the backward pass instead of being kept:
      'none', 'full' (all but the input of each block) or 'dots' (all but the
      results of linear layers).
  """

  depth: int
  block: Callable[..., nn.Module]
  drop_path: float = 0.0
  dropout: float = 0.0
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
    last: int | None = None,
  ) -> Float[Array, 'b m d']:
    """Runs all blocks.

    Args:
      x: tokens.
      deterministic: switches drop path and dropout off.
      row_keys: one key for each row; needed where something is drawn.
      last: how many tokens at the end are asked for; None for all. The last
        block saves the work on the others.

    Returns:
      The tokens, in the dtype of `x`.

    Raises:
      ValueError: drop path or dropout is on and there are no keys, or see
        `Block`.
    """
    layers.check_choice('remat', self.remat, REMATS)
    if deterministic or not (self.drop_path or self.dropout):
      row_keys = None
    elif row_keys is None:
      raise ValueError(
        (
          f'drop_path {self.drop_path}'
          if self.drop_path
          else f'dropout {self.dropout}'
        )
        + ' needs row_keys, one key for each row, unless deterministic=True.'
      )
    if self.dropout and row_keys is not None:
      keys = fold_in(row_keys, _BEFORE + self.first_layer)
      x = dropout(x, self.dropout, keys)
    names = [f'block_{i:02d}' for i in range(self.depth)]
    numbers = self.first_layer + np.arange(self.depth, dtype=np.int32)
    rates = np.linspace(0.0, self.drop_path, self.depth, dtype=np.float32)
    scanned = 0
    if self.scan and not self.is_initializing():
      # A last block of which less is asked for is not like the others.
      scanned = self.depth if last is None else self.depth - 1
    if scanned:
      first = slice(scanned)
      x = self._scan(x, names[first], numbers[first], rates[first], row_keys)
    for i in range(scanned, self.depth):
      name, layer, rate = names[i], numbers[i], rates[i]
      run = functools.partial(_run, last if name == names[-1] else None)
      if self.remat != 'none':
        run = nn.remat(run, policy=REMATS[self.remat])
      block = self.block(name=name, dropout=self.dropout)
      x = run(block, x, jnp.asarray(layer), jnp.asarray(rate), row_keys)
    return x

  def _scan(
    self,
    x: Float[Array, 'b n d'],
    names: list[str],
    numbers: Int[np.ndarray, 'l'],
    rates: Float[np.ndarray, 'l'],
    row_keys: Key[Array, 'b'] | None,
  ) -> Float[Array, 'b n d']:
    """Stacks the blocks' parameters and scans over them."""
    params = self.variables['params']
    stacked = jax.tree.map(
      lambda *leaves: jnp.stack(leaves), *(params[name] for name in names)
    )
    block = self.block(parent=None, dropout=self.dropout)

    def body(x: Any, per_layer: Any) -> tuple[Any, None]:
      params, layer, rate = per_layer
      return block.apply({'params': params}, x, layer, rate, row_keys), None

    if self.remat != 'none':
      # The scan itself keeps XLA from undoing the rematerialisation.
      body = jax.checkpoint(body, policy=REMATS[self.remat], prevent_cse=False)
    x, _ = lax.scan(body, x, (stacked, numbers, rates))
    return x


def _run(last: int | None, block: Any, *args: Any) -> Any:
  return block(*args, last=last)
