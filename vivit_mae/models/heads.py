"""What stands between an encoder's tokens and the classes.

A `Head` pools the tokens, normalises what it got and classifies it; its parts
can be used alone.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from vivit_mae.models import attention as attention_lib
from vivit_mae.models import layers, norms, products, residual

Tokens = Float[Array, 'b n d']
ClassToken = Float[Array, 'b d'] | None
Classes = int | tuple[tuple[str, int], ...]

# Name of the only head, which is also the key of its labels in a batch.
SINGLE = 'label'
# Other modules of a head's scope.
_RESERVED = ('batch_norm', 'norm', 'pool', 'pre_logits')
# Tells the draws of a head from those of blocks, which count from 0.
_DROPOUT = 1 << 20


def _token(tokens: Tokens, cls: ClassToken) -> Float[Array, 'b d']:
  if cls is None:
    raise ValueError(
      "pooling 'token' reads the class token, and the encoder has none: give "
      "it one with class_token, or take another pooling, such as 'mean'."
    )
  return cls


POOLINGS: dict[str, Callable[[Tokens, ClassToken], Float[Array, 'b d']]] = {
  'token': _token,
  'mean': lambda tokens, _: tokens.mean(axis=1),
  'max': lambda tokens, _: tokens.max(axis=1),
  'sum': lambda tokens, _: tokens.sum(axis=1),
  'first': lambda tokens, _: tokens[:, 0],
}


def named_classes(num_classes: Classes) -> dict[str, int]:
  """The heads of a classifier and how many classes each tells apart.

  Args:
    num_classes: the number of classes, or pairs of a head's name and its
      number: `(('noun', 300), ('verb', 97))` for Epic-Kitchens.

  Returns:
    The numbers by the names of the heads; a single head is called 'label'.

  Raises:
    ValueError: no head, a name twice or one that the head's own modules have,
      or a number below 1.
  """
  if isinstance(num_classes, int):
    num_classes = ((SINGLE, num_classes),)
  heads = dict(num_classes)
  if not heads or len(heads) < len(num_classes):
    raise ValueError(
      f'num_classes {num_classes} must hold at least one head, and each of '
      'another name.'
    )
  for name, count in heads.items():
    if name in _RESERVED:
      raise ValueError(
        f'num_classes names a head {name!r}: take a name that is not one of '
        f'{_RESERVED}.'
      )
    if count < 1:
      raise ValueError(
        f'num_classes of head {name!r} is {count}: it must be 1 or more.'
      )
  return heads


class AttentivePool(nn.Module):
  """Pools tokens by a learned query that attends to them, and an MLP.

  The attentive probe of V-JEPA (Bardes et al., "Revisiting Feature Prediction
  for Learning Visual Representations from Video", 2024, section 4.2;
  facebookresearch/jepa, attentive_pooler.py): `q += attention(q, norm(x))`,
  `q += mlp(norm(q))`, the query itself going into the attention unnormalised.

  Parameters: `query` `[q, d]`, normal of deviation .02 cut at two deviations;
  `norm1`, `norm2`; `q` `[d, d]`, `kv` `[d, 2d]` and `proj` `[d, d]` with
  biases; `mlp`. Linear layers and norms start as everywhere here: Xavier
  uniform and eps 1e-6 (V-JEPA: normal of deviation .02, the two output layers
  divided by sqrt(2), and eps 1e-5).

  Attributes:
    heads: attention heads.
    mlp_dim: hidden width of the MLP.
    queries: number of queries; the results of several are averaged.
    dtype: of the matrix products; the result is float32.
    attention: a name in `attention.ATTENTIONS`.
  """

  heads: int
  mlp_dim: int
  queries: int = 1
  dtype: str = 'float32'
  attention: str = 'auto'

  @nn.compact
  def __call__(self, tokens: Float[Array, 'b n d']) -> Float[Array, 'b d']:
    """Pools the tokens of each row.

    Args:
      tokens: the encoder's tokens.

    Returns:
      One vector for each row.

    Raises:
      ValueError: a width that the heads do not divide, no query, or an
        unknown attention.
    """
    rows, count, width = tokens.shape
    if self.heads < 1 or width % self.heads:
      raise ValueError(
        f"width {width} is not a multiple of the attentive pool's heads "
        f'{self.heads}.'
      )
    if self.queries < 1:
      raise ValueError(f'queries {self.queries} must be 1 or more.')
    layers.check_choice('attention', self.attention, attention_lib.ATTENTIONS)
    learned = self.param(
      'query',
      nn.initializers.truncated_normal(0.02),
      (self.queries, width),
    )
    head = (self.heads, width // self.heads)
    tokens = layers.layer_norm('norm1')(tokens)
    query = layers.linear(width, self.dtype, name='q')(learned)
    query = jnp.broadcast_to(
      query.reshape(1, self.queries, *head), (rows, self.queries, *head)
    )
    key, value = jnp.unstack(
      layers.linear(2 * width, self.dtype, name='kv')(tokens).reshape(
        rows, count, 2, *head
      ),
      axis=2,
    )
    attend = attention_lib.ATTENTIONS[self.attention]
    attended = attend(query, key, value).reshape(rows, self.queries, width)
    projected = layers.linear(width, self.dtype, name='proj')(attended)
    x = learned + projected.astype(learned.dtype)
    mlp = layers.Mlp(self.mlp_dim, dtype=self.dtype, name='mlp')
    x += mlp(layers.layer_norm('norm2')(x)).astype(x.dtype)
    return x.mean(axis=1)


class LinearHead(nn.Module):
  """Linear classifiers on one vector for each clip, in float32.

  Kernels start normal with deviation `.02 * init_scale` (VideoMAE,
  modeling_finetune.py, whose recipes take .001), so that 0 gives the zeros of
  ViViT.

  Attributes:
    num_classes: see `named_classes`; each head is a linear layer of its name.
    representation_size: width of a linear layer `pre_logits` with a tanh
      before the classifiers (ViT, appendix D.3); None for none.
    dropout: rate of the dropout before the classifiers.
    init_scale: scale of the initial kernels.
    init_bias: initial value of the biases (Scenic's init_head_bias).
  """

  num_classes: Classes
  representation_size: int | None = None
  dropout: float = 0.0
  init_scale: float = 1.0
  init_bias: float = 0.0

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b d'],
    *,
    deterministic: bool,
    row_keys: Key[Array, 'b'] | None = None,
  ) -> dict[str, Float[Array, 'b _']]:
    """Classifies.

    Args:
      x: one vector for each clip.
      deterministic: switches dropout off.
      row_keys: one key for each row; needed where dropout is on.

    Returns:
      The logits of each head, float32.

    Raises:
      ValueError: heads that cannot be, a dropout rate outside [0, 1), or
        dropout without keys.
    """
    heads = named_classes(self.num_classes)
    if not 0.0 <= self.dropout < 1.0:
      raise ValueError(f'head dropout {self.dropout} must lie in [0, 1).')
    x = x.astype(jnp.float32)
    if self.representation_size:
      x = layers.linear(self.representation_size, 'float32', name='pre_logits')(
        x
      )
      x = jnp.tanh(x)
    if self.dropout and not deterministic:
      if row_keys is None:
        raise ValueError(
          f'head dropout {self.dropout} needs row_keys, one key for each row, '
          'unless deterministic=True.'
        )
      keys = residual.fold_in(row_keys, _DROPOUT)
      x = residual.dropout(x, self.dropout, keys)
    return {name: self._linear(name, count)(x) for name, count in heads.items()}

  def _linear(self, name: str, count: int) -> nn.Dense:
    return nn.Dense(
      count,
      kernel_init=nn.initializers.normal(0.02 * self.init_scale),
      bias_init=nn.initializers.constant(self.init_bias),
      dot_general=products.dot_general,
      name=name,
    )


class Head(nn.Module):
  """Pooling, norm and linear classifiers, in one scope of parameters.

  The scope holds `pool` (attentive pooling), `norm`, `pre_logits` and one
  linear layer for each head, each where it is asked for.

  Attributes:
    linear: makes the linear classifiers, a `LinearHead`.
    pooling: a name in `POOLINGS`; without use where there is a `pool`.
    pool: makes an `AttentivePool`; None pools by the rule `pooling`.
    norm: puts a layer norm behind the pooling (VideoMAE's fc_norm).
    norm_epsilon: what it adds to variances.
    batch_norm: puts a batch norm without scale and bias before the
      classifiers (MAE, appendix A.1, linear probing), whose running means and
      variances are the collection 'batch_stats'.
    probe: stops the gradients before the head, so that the encoder is not
      trained.
  """

  linear: Callable[..., LinearHead]
  pooling: str = 'mean'
  pool: Callable[..., AttentivePool] | None = None
  norm: bool = False
  norm_epsilon: float = norms.EPSILON
  batch_norm: bool = False
  probe: bool = False

  def setup(self) -> None:
    """Builds the submodules; the classifiers live in the head's own scope."""
    layers.check_choice('pooling', self.pooling, POOLINGS)
    self.classifiers: Any = self.linear()
    nn.share_scope(self, self.classifiers)
    if self.pool is not None:
      self.attentive = self.pool(name='pool')
    if self.norm:
      self.fc_norm = layers.layer_norm('norm', epsilon=self.norm_epsilon)
    if self.batch_norm:
      # PyTorch's momentum .1 is .9 in Flax.
      self.standardise = nn.BatchNorm(
        momentum=0.9,
        epsilon=1e-6,
        dtype='float32',
        use_bias=False,
        use_scale=False,
        use_fast_variance=False,
        name='batch_norm',
      )

  def pooled(
    self,
    tokens: Float[Array, 'b n d'],
    cls: Float[Array, 'b d'] | None,
    norm: nn.Module | None = None,
  ) -> Float[Array, 'b d']:
    """One vector for each clip: the tokens pooled, and normed if so asked.

    Args:
      tokens: the encoder's tokens, without the class token.
      cls: the class token, where the encoder has one.
      norm: a norm of the encoder that stands behind the pooling.

    Returns:
      The vectors, float32.

    Raises:
      ValueError: the class token is asked for and there is none.
    """
    if self.probe:
      tokens, cls = jax.lax.stop_gradient((tokens, cls))
    if self.pool is not None:
      x = self.attentive(tokens)
    else:
      x = POOLINGS[self.pooling](tokens, cls)
    norm = self.fc_norm if self.norm else norm
    return x if norm is None else norm(x)

  def __call__(
    self,
    tokens: Float[Array, 'b n d'],
    cls: Float[Array, 'b d'] | None,
    norm: nn.Module | None = None,
    *,
    deterministic: bool,
    row_keys: Key[Array, 'b'] | None = None,
  ) -> tuple[dict[str, Float[Array, 'b _']], Float[Array, 'b d']]:
    """Pools and classifies.

    Args:
      tokens: the encoder's tokens, without the class token.
      cls: the class token, where the encoder has one.
      norm: see `pooled`.
      deterministic: switches dropout off, and lets the batch norm use its
        running statistics instead of the batch's.
      row_keys: one key for each row; needed where dropout is on.

    Returns:
      The logits of each head, and the pooled vectors.

    Raises:
      ValueError: see `pooled` and `LinearHead`.
    """
    features = self.pooled(tokens, cls, norm)
    x = features
    if self.batch_norm:
      x = self.standardise(x, use_running_average=deterministic)
    logits = self.classifiers(x, deterministic=deterministic, row_keys=row_keys)
    return logits, features
