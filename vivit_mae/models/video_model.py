"""What every model of video has in common: the fields of its encoder."""

import functools
import math
import re
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import numpy as np
from jaxtyping import Array, Float, Shaped

from vivit_mae.masking import Grid
from vivit_mae.models import (
  activations,
  encoders,
  initialisers,
  layers,
  norms,
  positions,
  transformer,
  tubelets,
)
from vivit_mae.models import attention as attention_lib

ATTENTION_ORDERS = ('time_space', 'space_time')

_CHOICES = {
  'attention': attention_lib.ATTENTIONS,
  'attention_order': ATTENTION_ORDERS,
  'class_token': encoders.CLASS_TOKENS,
  'dtype': layers.DTYPES,
  'epsilons': norms.EPSILONS,
  'factorisation': encoders.FACTORISATIONS,
  'gelu': activations.GELUS,
  'initialisation': initialisers.INITS,
  'positions': positions.POSITIONS,
  'qkv_bias': layers.QKV_BIASES,
  'remat': transformer.REMATS,
}
_LAYER = re.compile(r'encoder/((?:spatial|temporal)/)?(?:block_(\d+)/)?(.*)')


class VideoModel(nn.Module, kw_only=True):
  """Base of the models: sizes, the encoder's fields, and what follows.

  Attributes:
    image_size: height and width of the frames in pixels.
    num_frames: frames of a clip.
    tubelet: frames, height and width of a tubelet.
    channels: channels of the video.
    width: embedding dimension of the encoder.
    depth: blocks of the encoder; of the spatial one where there are two.
    heads: attention heads of the encoder.
    mlp_dim: hidden width of the encoder's MLPs.
    factorisation: how space and time are told apart, ViViT's models 1 to 4:
      'none' (all tokens attend to each other), 'encoder' (a spatial encoder
      of each frame, then a temporal one over frames), 'self_attention' (in
      each block one attention along time and one along space) or
      'dot_product' (half of the heads along each).
    temporal_depth: blocks of the temporal encoder.
    spatial_only: replaces the temporal encoder by the mean over frames.
    attention_order: which attention of 'self_attention' comes first,
      'time_space' or 'space_time'.
    positions: a name in `positions.POSITIONS`: 'sincos_1d' or 'sincos_2d'
      (fixed, the latter for one frame), 'learned_1d', 'separable' (learned
      for places and for frames, and added) or 'none'.
    position_grid: tokens along time, height and width that the fixed tables
      are made for, and loaded ones come from, before they are resized to this
      model's grid; None for the same.
    class_token: 'none', 'before_positions' (it has a position of its own:
      ViViT) or 'after_positions' (it has none).
    qkv_bias: see `layers.Attention`.
    cosine_attention: likewise `cosine`; in the decoder too.
    layer_scale: initial value of LayerScale, 0 for none.
    gelu: 'erf' or 'tanh', see `layers.Mlp`.
    epsilons: what norms add to variances, a name in `norms.EPSILONS`.
    dropout: rate of the dropout behind positions, attentions, GELUs and MLPs.
    drop_path: drop path rate of the last block of each stack.
    drop_path_rescale: see `residual.drop_path`.
    initialisation: how parameters start, a name in `initialisers.INITS`.
    dtype: of the matrix products, 'float32' or 'bfloat16'. Parameters, norms,
      softmax, residual stream and outputs are float32.
    remat: see `transformer.Stack`.
    scan: see `transformer.Stack`.
    attention: a name in `attention.ATTENTIONS`.
  """

  image_size: tuple[int, int]
  num_frames: int
  tubelet: tubelets.Tubelet
  channels: int
  width: int
  depth: int
  heads: int
  mlp_dim: int
  factorisation: str = 'none'
  temporal_depth: int = 4
  spatial_only: bool = False
  attention_order: str = 'time_space'
  positions: str = 'sincos_1d'
  position_grid: Grid | None = None
  class_token: str = 'none'
  qkv_bias: str = 'qv'
  cosine_attention: bool = False
  layer_scale: float = 0.0
  gelu: str = 'erf'
  epsilons: str = 'published'
  dropout: float = 0.0
  drop_path: float = 0.0
  drop_path_rescale: bool = True
  initialisation: str = 'videomae'
  dtype: str = 'float32'
  remat: str = 'none'
  scan: bool = False
  attention: str = 'auto'

  @property
  def grid(self) -> Grid:
    """Tokens of a whole clip along time, height and width.

    Raises:
      ValueError: the clip does not divide into tubelets.
    """
    return tubelets.grid(self.num_frames, self.image_size, self.tubelet)

  @property
  def patch_dim(self) -> int:
    """Values in the pixels of one tubelet."""
    return math.prod(self.tubelet) * self.channels

  @property
  def num_layers(self) -> int:
    """Blocks of the encoder, those of the temporal one included."""
    return self.depth + self._temporal_depth

  @property
  def _temporal_depth(self) -> int:
    two = self.factorisation == 'encoder' and not self.spatial_only
    return self.temporal_depth if two else 0

  def layer_of(self, name: str) -> int:
    """The layer of a parameter, for layer-wise decay of the learning rate.

    Args:
      name: names on the way to the parameter, joined by '/'.

    Returns:
      0 for what comes before the first block (embedding, positions, class
      token), i + 1 for block i, those of the temporal encoder counted on
      after the spatial ones', and `num_layers + 1` for all behind. What
      stands between the two encoders belongs to the last spatial block.
    """
    match = _LAYER.fullmatch(name)
    if match is None:
      return self.num_layers + 1
    stage, block, rest = match.groups()
    first = self.depth if stage == 'temporal/' else 0
    if block is not None:
      return first + int(block) + 1
    if rest.startswith('norm/'):
      between = stage == 'spatial/' and not self.spatial_only
      return self.depth if between else self.num_layers + 1
    return first

  def adapt(
    self,
    name: str,
    saved: Shaped[np.ndarray, '...'],
    wanted: tuple[int, ...],
  ) -> Shaped[np.ndarray, '...'] | None:
    """Fits a saved parameter of another shape to this model.

    Learned position tables are resized from `position_grid`: as one where
    they are one, separable ones each along its own axes.

    Args:
      name: names on the way to the parameter, joined by '/'.
      saved: its saved value.
      wanted: its shape in this model.

    Returns:
      The parameter in the wanted shape, or None where it does not fit.
    """
    *_, stage, last = f'//{name}'.split('/')
    if last not in positions.TABLES or self.position_grid is None:
      return None
    old, new = self.position_grid, self.grid
    if stage == 'spatial' or last == 'position_space':
      old, new = (1, *old[1:]), (1, *new[1:])
    elif stage == 'temporal' or last == 'position_time':
      old, new = (old[0], 1, 1), (new[0], 1, 1)
    extra = len(saved) - math.prod(old)
    if extra < 0 or (extra + math.prod(new), *saved.shape[1:]) != wanted:
      return None
    return positions.resize(saved, old, new)

  def make_encoder(
    self,
    *,
    pooling: str,
    tubelet: tubelets.Tubelet | None = None,
    final_norm: bool = True,
    deferred_norm: bool = False,
  ) -> encoders.Encoder | encoders.FactorisedEncoder:
    """Builds the encoder.

    Args:
      pooling: how a frame's tokens become one where there is a temporal
        encoder, a name in `heads.POOLINGS`.
      tubelet: what the encoder sees of a tubelet, if not all of it.
      final_norm: puts a norm behind the last block.
      deferred_norm: see `encoders.Stage`; not where there are two stages.
    """
    pixels = {
      'tubelet': tubelet or self.tubelet,
      'channels': self.channels,
      'dtype': self.dtype,
    }
    if self.factorisation != 'encoder':
      fields = self._stage(lambda grid: grid, self.depth, 0, final_norm)
      return encoders.Encoder(**fields, **pixels, deferred_norm=deferred_norm)
    temporal = None
    if not self.spatial_only:
      fields = self._stage(
        lambda grid: (grid[0], 1, 1),
        self.temporal_depth,
        self.depth,
        final_norm,
      )
      temporal = functools.partial(encoders.Stage, **fields)
    spatial = self._stage(
      lambda grid: (1, *grid[1:]),
      self.depth,
      0,
      final_norm or not self.spatial_only,
    )
    return encoders.FactorisedEncoder(
      spatial=functools.partial(encoders.Stage, **spatial),
      temporal=temporal,
      grid=self.grid,
      width=self.width,
      pooling=pooling,
      initialisation=self.initialisation,
      **pixels,
    )

  def make_stack(
    self, depth: int, heads: int, mlp_dim: int, first_layer: int, **fields: Any
  ) -> Any:
    """Makes a factory of stacks that follow the common fields.

    Args:
      depth: number of blocks.
      heads: attention heads.
      mlp_dim: hidden width of the MLPs.
      first_layer: number of the first block.
      **fields: further fields of `transformer.Block`.

    Returns:
      A `transformer.Stack` to be called for one.
    """
    common = {
      'qkv_bias': self.qkv_bias,
      'layer_scale': self.layer_scale,
      'dtype': self.dtype,
      'attention': self.attention,
      'gelu': self.gelu,
      'drop_path_rescale': self.drop_path_rescale,
      'initialisation': self.initialisation,
      'cosine': self.cosine_attention,
      'norm_epsilon': norms.EPSILONS[self.epsilons].encoder,
    }
    block = functools.partial(
      transformer.Block, heads=heads, mlp_dim=mlp_dim, **{**common, **fields}
    )
    return functools.partial(
      transformer.Stack,
      depth=depth,
      block=block,
      drop_path=self.drop_path,
      dropout=self.dropout,
      first_layer=first_layer,
      scan=self.scan,
      remat=self.remat,
    )

  def _stage(
    self,
    part: Callable[[Grid], Grid],
    depth: int,
    first_layer: int,
    final_norm: bool,
  ) -> dict[str, Any]:
    """Fields of the `encoders.Stage` that sees a part of the grid."""
    axes = encoders.FACTORISATIONS[self.factorisation]
    if self.attention_order == 'space_time':
      axes = axes[::-1]
    return {
      'grid': part(self.grid),
      'width': self.width,
      'stack': self.make_stack(
        depth, self.heads, self.mlp_dim, first_layer,
        axes=axes, frames=self.grid[0],
      ),
      'positions': self.positions,
      'position_grid': self.position_grid and part(self.position_grid),
      'class_token': self.class_token,
      'final_norm': final_norm,
      'initialisation': self.initialisation,
      'norm_epsilon': norms.EPSILONS[self.epsilons].encoder,
    }  # fmt: skip

  def check_video(self, video: Float[Array, 'b t h w c']) -> None:
    """Refuses clips of another size than the model's."""
    expected = (self.num_frames, *self.image_size, self.channels)
    if video.shape[1:] != expected:
      raise ValueError(
        f'video has shape {video.shape}: this model takes [rows, frames, '
        f'height, width, channels] = (any, {", ".join(map(str, expected))}).'
      )

  def check(self) -> None:
    """Refuses a combination of fields that cannot be built.

    Raises:
      ValueError: naming the field, what it held and what would do.
    """
    tubelets.grid(self.num_frames, self.image_size, self.tubelet)
    for field, choices in _CHOICES.items():
      layers.check_choice(field, getattr(self, field), choices)
    self.check_width('')
    for field in ('channels', 'depth', 'mlp_dim', 'temporal_depth'):
      self.check_positive(field)
    for field in ('dropout', 'drop_path'):
      if not 0.0 <= getattr(self, field) < 1.0:
        raise ValueError(f'{field} {getattr(self, field)} must lie in [0, 1).')
    if self.positions == 'sincos_2d':
      positions.check_fixed_2d(self.position_grid or self.grid)
    if self.positions == 'separable' and self.factorisation == 'encoder':
      raise ValueError(
        "positions 'separable' are those of a clip's tokens together, which "
        "factorisation 'encoder' has not: take 'learned_1d', or factorisation "
        "'none'."
      )
    within = self.factorisation in ('self_attention', 'dot_product')
    if within and self.class_token != 'none':
      raise ValueError(
        f'class_token {self.class_token!r} has no frame and no place, which '
        f"factorisation {self.factorisation!r} asks for: take 'none', or "
        "factorisation 'none' or 'encoder'."
      )
    if self.factorisation == 'dot_product' and self.heads % 2:
      raise ValueError(
        f'heads {self.heads} must be even for factorisation '
        "'dot_product', where half of them look along time."
      )
    if self.spatial_only and self.factorisation != 'encoder':
      raise ValueError(
        "spatial_only True needs factorisation 'encoder', whose temporal "
        f'encoder it replaces, not {self.factorisation!r}.'
      )
    if (
      self.attention_order != 'time_space'
      and self.factorisation != 'self_attention'
    ):
      raise ValueError(
        f'attention_order {self.attention_order!r} needs factorisation '
        f"'self_attention', not {self.factorisation!r}."
      )

  def check_width(self, prefix: str) -> None:
    """Refuses a width, of the fields of a prefix, that heads do not divide."""
    width = getattr(self, f'{prefix}width')
    heads = getattr(self, f'{prefix}heads')
    if heads < 1 or width < 1 or width % heads:
      raise ValueError(
        f'{prefix}width {width} is not a multiple of {prefix}heads {heads}.'
      )

  def check_positive(self, field: str) -> None:
    """Refuses a field below 1."""
    if getattr(self, field) < 1:
      raise ValueError(f'{field} {getattr(self, field)} must be 1 or more.')
