"""Transformer blocks and the stack that runs them.

Precision, here and in every model: parameters, norms, softmax and the residual
stream are float32; the matrix products run in the module's `dtype`, and so do
the activations between two of them.
"""

import functools
from collections.abc import Callable, Collection
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Key

from vivit_mae.models import (
  activations,
  factorised_attention,
  initialisers,
  norms,
  products,
)
from vivit_mae.models import attention as attention_lib
from vivit_mae.models.residual import LayerScale, drop_path, dropout, fold_in

DTYPES = ('float32', 'bfloat16')
QKV_BIASES = ('qv', 'qkv', 'none')
REMATS = {
  'none': None,
  'full': jax.checkpoint_policies.nothing_saveable,
  'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


# Tells the draws of a block's second attention from those of any first.
_SECOND = 1 << 14
# Tells the draws before the first block from those of blocks.
_BEFORE = 1 << 15


def check_choice(field: str, value: str, choices: Collection[str]) -> None:
  """Refuses a value that is not one of the choices.

  Raises:
    ValueError: naming the field and listing the choices.
  """
  if value not in choices:
    raise ValueError(
      f'{field} {value!r} is unknown: take one of {tuple(choices)}.'
    )


def linear(
  width: int,
  dtype: str,
  *,
  use_bias: bool = True,
  kernel_init: initialisers.Initialiser = initialisers.XAVIER,
  name: str | None = None,
) -> nn.Dense:
  """A linear layer with float32 parameters and its product in `dtype`.

  The kernel starts Xavier uniform if nothing else is asked for, the bias at
  zero.
  """
  return nn.Dense(
    width,
    use_bias=use_bias,
    dtype=dtype,
    kernel_init=kernel_init,
    dot_general=products.dot_general,
    name=name,
  )


def layer_norm(name: str | None = None) -> norms.LayerNorm:
  """A float32 layer norm, eps 1e-6."""
  return norms.LayerNorm(name=name)


class Attention(nn.Module):
  """Multi-head self-attention with a fused query-key-value product.

  Attributes:
    heads: number of heads.
    qkv_bias: 'qv' learns a bias of queries and values (VideoMAE; one of the
      keys would not change the softmax), 'qkv' of all three (ViT, MAE-ST),
      'none' of none.
    dtype: of the matrix products.
    implementation: a name in `attention.ATTENTIONS`.
    axis: along which axis tokens attend, a name in
      `factorised_attention.AXES`.
    frames: frames of a clip in tokens, where the axis is not 'joint'.
    initialisation: a name in `initialisers.INITS`.
  """

  heads: int
  qkv_bias: str = 'qv'
  dtype: str = 'float32'
  implementation: str = 'auto'
  axis: str = 'joint'
  frames: int = 1
  initialisation: str = 'videomae'

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b n d'], last: int | None = None
  ) -> Float[Array, 'b m d']:
    """Lets the tokens of each row attend to each other.

    Args:
      x: tokens.
      last: how many tokens at the end are asked for; None for all.

    Returns:
      What these have attended to, in `dtype`.

    Raises:
      ValueError: an unknown choice, a width that the heads do not divide, only
        some tokens along an axis that is not 'joint', or see
        `factorised_attention.along`.
    """
    check_choice('qkv_bias', self.qkv_bias, QKV_BIASES)
    check_choice('attention', self.implementation, attention_lib.ATTENTIONS)
    check_choice('axis', self.axis, factorised_attention.AXES)
    check_choice('initialisation', self.initialisation, initialisers.INITS)
    init = initialisers.INITS[self.initialisation]
    rows, tokens, width = x.shape
    if width % self.heads:
      raise ValueError(
        f'width {width} is not a multiple of heads {self.heads}.'
      )
    if last is not None and self.axis != 'joint':
      raise ValueError(f'last {last} needs a joint axis, not {self.axis!r}.')
    qkv = linear(
      3 * width, self.dtype, use_bias=False, kernel_init=init.qkv, name='qkv'
    )(x)
    if self.qkv_bias != 'none':
      qkv += self._bias(width).astype(qkv.dtype)
    query, key, value = jnp.unstack(
      qkv.reshape(rows, tokens, 3, self.heads, width // self.heads), axis=2
    )
    if last is not None:
      query = query[:, -last:]
    attend = attention_lib.ATTENTIONS[self.implementation]
    attended = factorised_attention.along(
      self.axis, attend, self.frames, query, key, value
    ).reshape(rows, -1, width)
    return linear(width, self.dtype, kernel_init=init.linear, name='proj')(
      attended
    )

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
  """Two linear layers with a GELU between.

  Attributes:
    hidden: width between the two layers.
    dtype: of the matrix products.
    gelu: 'erf' (exact: VideoMAE, MAE-ST) or 'tanh' (its approximation: ViViT).
    dropout: rate of the dropout behind the GELU.
    initialisation: a name in `initialisers.INITS`.
  """

  hidden: int
  dtype: str = 'float32'
  gelu: str = 'erf'
  dropout: float = 0.0
  initialisation: str = 'videomae'

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b n d'],
    row_keys: Key[Array, 'b'] | None = None,
  ) -> Float[Array, 'b n d']:
    """Transforms each token by itself.

    Args:
      x: tokens.
      row_keys: one key for each row for dropout; None drops nothing.

    Returns:
      The tokens, in `dtype`.

    Raises:
      ValueError: an unknown choice.
    """
    check_choice('gelu', self.gelu, activations.GELUS)
    check_choice('initialisation', self.initialisation, initialisers.INITS)
    kernel_init = initialisers.INITS[self.initialisation].linear
    width = x.shape[-1]
    x = linear(self.hidden, self.dtype, kernel_init=kernel_init, name='fc1')(x)
    x = activations.GELUS[self.gelu](x)
    if self.dropout and row_keys is not None:
      x = dropout(x, self.dropout, row_keys)
    return linear(width, self.dtype, kernel_init=kernel_init, name='fc2')(x)


class Block(nn.Module):
  """A pre-norm transformer block: attention, then MLP, each residual.

  With one axis the attention's parameters are `norm1` and `attention`; with
  several there is one attention after the other, `norm_time` and
  `attention_time` and so on.

  Attributes:
    heads: attention heads.
    mlp_dim: hidden width of the MLP.
    qkv_bias: see `Attention`.
    layer_scale: initial value of LayerScale, 0 for none.
    dtype: of the matrix products.
    attention: a name in `attention.ATTENTIONS`.
    axes: along which axes tokens attend, names in `factorised_attention.AXES`.
    frames: frames of a clip in tokens, where an axis is not 'joint'.
    gelu: see `Mlp`.
    dropout: rate of the dropout behind each attention, GELU and MLP.
    drop_path_rescale: see `drop_path`.
    initialisation: a name in `initialisers.INITS`.
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
      attention = Attention(
        self.heads, self.qkv_bias, self.dtype, self.attention, axis,
        self.frames, self.initialisation,
        name='attention' if alone else f'attention_{axis}',
      )  # fmt: skip
      norm = layer_norm('norm1' if alone else f'norm_{axis}')
      attended = attention(norm(x), last)
      x = x if last is None else x[:, -last:]
      x = residual(attended, '1' if alone else f'_{axis}', keys_of(i * _SECOND))
    mlp = Mlp(
      self.mlp_dim, self.dtype, self.gelu, self.dropout, self.initialisation,
      name='mlp',
    )  # fmt: skip
    keys = keys_of(1)
    inner = None if keys is None else fold_in(keys, 1)
    return residual(mlp(layer_norm('norm2')(x), inner), '2', keys)


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
    check_choice('remat', self.remat, REMATS)
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
    layers = self.first_layer + np.arange(self.depth, dtype=np.int32)
    rates = np.linspace(0.0, self.drop_path, self.depth, dtype=np.float32)
    scanned = 0
    if self.scan and not self.is_initializing():
      # A last block of which less is asked for is not like the others.
      scanned = self.depth if last is None else self.depth - 1
    if scanned:
      first = slice(scanned)
      x = self._scan(x, names[first], layers[first], rates[first], row_keys)
    for i in range(scanned, self.depth):
      name, layer, rate = names[i], layers[i], rates[i]
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
    layers: Int[np.ndarray, 'l'],
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
    x, _ = lax.scan(body, x, (stacked, layers, rates))
    return x


def _run(last: int | None, block: Any, *args: Any) -> Any:
  return block(*args, last=last)
