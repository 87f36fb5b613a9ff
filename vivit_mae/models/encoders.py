"""The encoders of video: ViViT's models 1 to 4 on one stack of blocks.

Arnab et al., "ViViT: A Video Vision Transformer", ICCV 2021, section 3.3. Each
encodes all tokens of a clip, or the visible ones that a mask leaves; those
which tell time from space need visible tokens at the same places of every
frame, as tube masks leave them.
"""

from typing import Any

import flax.linen as nn
import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from vivit_mae.masking import Grid
from vivit_mae.models import heads as heads_lib
from vivit_mae.models import (
  initialisers,
  layers,
  norms,
  position_table,
  tubelets,
)

# The axes of a block's attentions, see `transformer.Block`, by the way in
# which space and time are factorised: not at all (model 1), by an encoder for
# each (2), within each block (3), within each attention (4).
FACTORISATIONS: dict[str, tuple[str, ...]] = {
  'none': ('joint',),
  'encoder': ('joint',),
  'self_attention': ('time', 'space'),
  'dot_product': ('halves',),
}

# No class token; one with a row of the position table (ViViT); one without
# (AV-MAE, VideoMAE's relatives).
CLASS_TOKENS = ('none', 'before_positions', 'after_positions')


@flax.struct.dataclass
class EncoderOutput:
  """What an encoder makes of a clip.

  Attributes:
    tokens: float32 `[b, v, d]`, the encoded tokens. Those of model 2 are the
      spatial encoder's, each plus the temporal encoder's output of its frame.
    cls: float32 `[b, d]`, the class token, or None.
    frames: float32 `[b, t, d]`, model 2's temporal outputs, or None. A
      spatial-only model has one, the mean over its frames.
  """

  # Any, because jax also fills trees with shapes, axes and shardings.
  tokens: Any
  cls: Any = None
  frames: Any = None

  @property
  def pooled(self) -> Float[Array, 'b s d']:
    """What a classifier pools: frames where there are, or else tokens."""
    return self.tokens if self.frames is None else self.frames


class Stage(nn.Module):
  """Adds positions and a class token, runs the blocks and a norm.

  Attributes:
    grid: tokens of a whole sequence along time, height and width.
    width: embedding dimension.
    stack: makes the stack of blocks.
    positions: a name in `positions.POSITIONS`.
    position_grid: the grid that a fixed table is made for, before it is
      resized to `grid`; None for `grid`.
    class_token: a name in `CLASS_TOKENS`.
    final_norm: puts a norm behind the blocks.
    deferred_norm: builds this norm and leaves it to others to apply it.
    initialisation: a name in `initialisers.INITS`.
    norm_epsilon: what this norm adds to variances.
  """

  grid: Grid
  width: int
  stack: Any
  positions: str = 'sincos_1d'
  position_grid: Grid | None = None
  class_token: str = 'none'
  final_norm: bool = True
  deferred_norm: bool = False
  initialisation: str = 'videomae'
  norm_epsilon: float = norms.EPSILON

  def setup(self) -> None:
    """Builds the submodules; the blocks live in the stage's own scope."""
    self.blocks = self.stack()
    nn.share_scope(self, self.blocks)
    init = initialisers.INITS[self.initialisation]
    if self.final_norm:
      self.norm = layers.layer_norm(
        bias_init=init.norm_bias, epsilon=self.norm_epsilon
      )
    if self.class_token != 'none':
      self.cls_token = self.param('cls_token', init.class_token, (self.width,))
    self.table = position_table.PositionTable(
      kind=self.positions,
      grid=self.grid,
      width=self.width,
      made_for=self.position_grid,
      class_row=self.class_token == 'before_positions',
      initialisation=self.initialisation,
    )
    nn.share_scope(self, self.table)

  def encode(
    self,
    x: Float[Array, 'b v d'],
    places: Int[Array, 'b v'] | None,
    *,
    deterministic: bool,
    row_keys: Key[Array, 'b'] | None,
  ) -> tuple[Float[Array, 'b v d'], Float[Array, 'b d'] | None]:
    """Encodes embedded tokens.

    Args:
      x: the tokens.
      places: their places in the grid; None where all are there.
      deterministic: switches drop path and dropout off.
      row_keys: one key for each row; needed where something is drawn.

    Returns:
      The tokens, and the class token or None.
    """
    x = x.astype(jnp.float32) + self.table.rows(places)
    if self.class_token != 'none':
      cls = self.cls_token
      position = self.table.class_position()
      cls = cls if position is None else cls + position
      cls = jnp.broadcast_to(cls, (len(x), 1, self.width))
      x = jnp.concatenate([cls, x], axis=1)
    x = self.blocks(x, deterministic=deterministic, row_keys=row_keys)
    if self.final_norm and not self.deferred_norm:
      x = self.norm(x)
    return (x, None) if self.class_token == 'none' else (x[:, 1:], x[:, 0])


class Encoder(Stage):
  """Embeds tubelets and encodes them in one sequence: models 1, 3 and 4.

  Attributes:
    tubelet: frames, height and width of a tubelet.
    channels: channels of the video.
    dtype: of the matrix products.
  """

  tubelet: tubelets.Tubelet = (2, 16, 16)
  channels: int = 3
  dtype: str = 'float32'

  def setup(self) -> None:
    """Builds the submodules."""
    self.embedding = tubelets.TubeletEmbedding(
      self.tubelet, self.channels, self.width, self.dtype, self.initialisation
    )
    super().setup()

  def __call__(
    self,
    video: Float[Array, 'b t h w c'],
    indices: Int[Array, 'b v'] | None,
    *,
    deterministic: bool,
    row_keys: Key[Array, 'b'] | None,
  ) -> EncoderOutput:
    """Encodes the tokens at `indices`, or all of them.

    Pixels are gathered before they are embedded: what is masked costs nothing.

    Args:
      video: normalised clips.
      indices: the visible tokens of each row, ascending; None for all.
      deterministic: switches drop path and dropout off.
      row_keys: one key for each row; needed where something is drawn.

    Returns:
      Tokens and class token.
    """
    patches = tubelets.patchify(video, self.tubelet)
    if indices is not None:
      patches = tubelets.gather_tokens(patches, indices)
    tokens, cls = self.encode(
      self.embedding(patches),
      indices,
      deterministic=deterministic,
      row_keys=row_keys,
    )
    return EncoderOutput(tokens, cls)


class FactorisedEncoder(nn.Module):
  """A spatial encoder of each frame, a temporal one over frames: model 2.

  Attributes:
    spatial: makes the `Stage` of a frame's tokens.
    temporal: makes the `Stage` of a clip's frames; None takes their mean
      instead (ViViT's spatial-only baseline).
    grid: tokens of a whole clip along time, height and width.
    tubelet: frames, height and width of a tubelet.
    channels: channels of the video.
    width: embedding dimension.
    pooling: how a frame's tokens become one, a name in `heads.POOLINGS`.
    dtype: of the matrix products.
    initialisation: a name in `initialisers.INITS`.
  """

  spatial: Any
  temporal: Any
  grid: Grid
  tubelet: tubelets.Tubelet
  channels: int
  width: int
  pooling: str = 'mean'
  dtype: str = 'float32'
  initialisation: str = 'videomae'

  def setup(self) -> None:
    """Builds the submodules."""
    self.embedding = tubelets.TubeletEmbedding(
      self.tubelet, self.channels, self.width, self.dtype, self.initialisation
    )
    self.space = self.spatial(name='spatial')
    if self.temporal is not None:
      self.time = self.temporal(name='temporal')

  def __call__(
    self,
    video: Float[Array, 'b t h w c'],
    indices: Int[Array, 'b v'] | None,
    *,
    deterministic: bool,
    row_keys: Key[Array, 'b'] | None,
  ) -> EncoderOutput:
    """Encodes the tokens at `indices`, or all of them.

    Args:
      video: normalised clips.
      indices: the visible tokens of each row, ascending, equally many of each
        frame; None for all.
      deterministic: switches drop path and dropout off.
      row_keys: one key for each row, whose draws all its frames share; needed
        where something is drawn.

    Returns:
      Tokens, class token and frames.

    Raises:
      ValueError: the tokens are no rectangle of frames and places.
    """
    frames = self.grid[0]
    patches = tubelets.patchify(video, self.tubelet)
    places = None
    if indices is not None:
      patches = tubelets.gather_tokens(patches, indices)
      places = indices % (self.grid[1] * self.grid[2])
    rows, tokens = patches.shape[:2]
    if tokens % frames:
      raise ValueError(
        f'{tokens} visible tokens are no rectangle of {frames} frames with '
        'equally many each: take a mask that keeps one, such as tubes.'
      )
    sequences = (rows * frames, tokens // frames)
    x, cls = self.space.encode(
      self.embedding(patches).reshape(*sequences, self.width),
      None if places is None else places.reshape(sequences),
      deterministic=deterministic,
      row_keys=None if row_keys is None else jnp.repeat(row_keys, frames),
    )
    pooled = heads_lib.POOLINGS[self.pooling](x, cls)
    pooled = pooled.reshape(rows, frames, self.width)
    x = x.reshape(rows, frames, -1, self.width)
    if self.temporal is None:
      pooled = pooled.mean(axis=1, keepdims=True)
      cls = None if cls is None else pooled[:, 0]
    else:
      pooled, cls = self.time.encode(
        pooled, None, deterministic=deterministic, row_keys=row_keys
      )
      x += pooled[:, :, None]
    return EncoderOutput(x.reshape(rows, tokens, self.width), cls, pooled)
