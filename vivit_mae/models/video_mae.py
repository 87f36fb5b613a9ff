"""VideoMAE: a masked autoencoder of video with joint space-time attention.

Tong et al., "VideoMAE: Masked Autoencoders are Data-Efficient Learners for
Self-Supervised Video Pre-Training", NeurIPS 2022, sections 3.2 and 3.3; dual
masking follows Wang et al., "VideoMAE V2", CVPR 2023, section 3.2. Numerically
it is the public implementation of the authors, position tables and initial
distributions included.
"""

import functools
import math
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from vivit_mae.masking import Grid, TokenMask
from vivit_mae.models import attention as attention_lib
from vivit_mae.models import positions, products, transformer, tubelets

_CHOICES = {
  'attention': attention_lib.ATTENTIONS,
  'dtype': transformer.DTYPES,
  'qkv_bias': transformer.QKV_BIASES,
  'remat': transformer.REMATS,
}


@flax.struct.dataclass
class VideoMAEOutput:
  """What a masked autoencoder returns.

  Attributes:
    prediction: float32 `[b, m, p]`, the predicted target of each masked (or
      decoded) token, in the mask's order.
    encoded: float32 `[b, v, d]`, the visible tokens after the encoder's norm.
  """

  # Any, because jax also fills trees with shapes, axes and shardings.
  prediction: Any
  encoded: Any


class Encoder(nn.Module):
  """Embeds tubelets, adds their positions, runs the blocks and a norm.

  Attributes:
    grid: tokens of a whole clip along time, height and width.
    tubelet: frames, height and width of a tubelet.
    channels: channels of the video.
    width: embedding dimension.
    stack: makes the stack of blocks.
    dtype: of the matrix products.
  """

  grid: Grid
  tubelet: tubelets.Tubelet
  channels: int
  width: int
  stack: Any
  dtype: str

  def setup(self) -> None:
    """Builds the submodules; the blocks live in the encoder's own scope."""
    self.embedding = tubelets.TubeletEmbedding(
      self.tubelet, self.channels, self.width, self.dtype
    )
    self.blocks = self.stack()
    nn.share_scope(self, self.blocks)
    self.norm = transformer.layer_norm()

  def __call__(
    self,
    video: Float[Array, 'b t h w c'],
    indices: Int[Array, 'b v'] | None,
    *,
    deterministic: bool,
    row_keys: Key[Array, 'b'] | None,
  ) -> Float[Array, 'b v d']:
    """Encodes the tokens at `indices`, or all of them.

    Pixels are gathered before they are embedded: what is masked costs nothing.
    """
    patches = tubelets.patchify(video, self.tubelet)
    table = position_table(self.grid, self.width)
    if indices is not None:
      patches = tubelets.gather_tokens(patches, indices)
      table = tubelets.gather_tokens(table, indices)
    x = self.embedding(patches).astype(table.dtype) + table
    x = self.blocks(x, deterministic=deterministic, row_keys=row_keys)
    return self.norm(x)


class Decoder(nn.Module):
  """Blocks over visible and mask tokens; norm and head over the latter.

  Attributes:
    target_dim: values predicted for each token.
    stack: makes the stack of blocks.
    dtype: of the matrix products.
  """

  target_dim: int
  stack: Any
  dtype: str

  def setup(self) -> None:
    """Builds the submodules; the blocks live in the decoder's own scope."""
    self.blocks = self.stack()
    nn.share_scope(self, self.blocks)
    self.norm = transformer.layer_norm()
    self.head = transformer.linear(self.target_dim, self.dtype)

  def __call__(
    self,
    x: Float[Array, 'b n d'],
    num_predicted: int,
    *,
    deterministic: bool,
    row_keys: Key[Array, 'b'] | None,
  ) -> Float[Array, 'b m p']:
    """Runs the decoder and predicts for the last `num_predicted` tokens."""
    x = self.blocks(x, deterministic=deterministic, row_keys=row_keys)
    prediction = self.head(self.norm(x[:, -num_predicted:]))
    return prediction.astype(jnp.float32)


class VideoMAE(nn.Module):
  """Encoder on the visible tokens, decoder that predicts the masked ones.

  Attributes:
    image_size: height and width of the frames in pixels.
    num_frames: frames of a clip.
    tubelet: frames, height and width of a tubelet.
    channels: channels of the video.
    width: embedding dimension of the encoder.
    depth: blocks of the encoder.
    heads: attention heads of the encoder.
    mlp_dim: hidden width of the encoder's MLPs.
    decoder_width: embedding dimension of the decoder.
    decoder_depth: blocks of the decoder.
    decoder_heads: attention heads of the decoder.
    decoder_mlp_dim: hidden width of the decoder's MLPs.
    target_dim: values predicted for each token; None for a tubelet's pixels.
    qkv_bias: see `transformer.Attention`.
    layer_scale: initial value of LayerScale, 0 for none.
    drop_path: drop path rate of the last block of encoder and decoder.
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
  decoder_width: int
  decoder_depth: int
  decoder_heads: int
  decoder_mlp_dim: int
  target_dim: int | None = None
  qkv_bias: str = 'qv'
  layer_scale: float = 0.0
  drop_path: float = 0.0
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

  def setup(self) -> None:
    """Checks the fields and builds the submodules."""
    check(self)
    self.encoder = Encoder(
      grid=self.grid,
      tubelet=self.tubelet,
      channels=self.channels,
      width=self.width,
      stack=self._stack(self.depth, self.heads, self.mlp_dim, 0),
      dtype=self.dtype,
    )
    self.bridge = nn.Dense(
      self.decoder_width,
      use_bias=False,
      dtype=self.dtype,
      kernel_init=_uniform(self.width**-0.5),
      dot_general=products.dot_general,
    )
    self.mask_token = self.param(
      'mask_token', _mask_token, (self.decoder_width,)
    )
    self.decoder = Decoder(
      target_dim=self.target_dim or self.patch_dim,
      stack=self._stack(
        self.decoder_depth,
        self.decoder_heads,
        self.decoder_mlp_dim,
        self.depth,
      ),
      dtype=self.dtype,
    )

  def _stack(self, depth: int, heads: int, mlp_dim: int, first: int) -> Any:
    block = functools.partial(
      transformer.Block,
      heads=heads,
      mlp_dim=mlp_dim,
      qkv_bias=self.qkv_bias,
      layer_scale=self.layer_scale,
      dtype=self.dtype,
      attention=self.attention,
    )
    return functools.partial(
      transformer.Stack,
      depth=depth,
      block=block,
      drop_path=self.drop_path,
      first_layer=first,
      scan=self.scan,
      remat=self.remat,
    )

  def __call__(
    self,
    video: Float[Array, 'b t h w c'],
    mask: TokenMask,
    *,
    deterministic: bool,
    row_keys: Key[Array, 'b'] | None = None,
  ) -> VideoMAEOutput:
    """Encodes what is visible and predicts what is not.

    Args:
      video: normalised clips.
      mask: which tokens are visible, masked and decoded.
      deterministic: switches drop path off.
      row_keys: one key for each row; needed where drop path is on.

    Returns:
      Predictions and encoded tokens.

    Raises:
      ValueError: the clips have other sizes than the model.
    """
    encoded = self.encode(
      video, mask, deterministic=deterministic, row_keys=row_keys
    )
    prediction = self.decode(
      encoded, mask, deterministic=deterministic, row_keys=row_keys
    )
    return VideoMAEOutput(prediction=prediction, encoded=encoded)

  def encode(
    self,
    video: Float[Array, 'b t h w c'],
    mask: TokenMask,
    *,
    deterministic: bool,
    row_keys: Key[Array, 'b'] | None = None,
  ) -> Float[Array, 'b v d']:
    """Encodes the visible tokens; arguments as of `__call__`."""
    self._check_video(video)
    return self.encoder(
      video, mask.visible, deterministic=deterministic, row_keys=row_keys
    )

  def features(
    self,
    video: Float[Array, 'b t h w c'],
    *,
    deterministic: bool,
    row_keys: Key[Array, 'b'] | None = None,
  ) -> Float[Array, 'b n d']:
    """Encodes all tokens; arguments as of `__call__`."""
    self._check_video(video)
    return self.encoder(
      video, None, deterministic=deterministic, row_keys=row_keys
    )

  def decode(
    self,
    tokens: Float[Array, 'b v d'],
    mask: TokenMask,
    *,
    deterministic: bool,
    row_keys: Key[Array, 'b'] | None = None,
  ) -> Float[Array, 'b m p']:
    """Predicts the tokens at `mask.decoded`, or else all masked ones.

    The decoder's sequence is the visible tokens followed by one mask token
    for each prediction, each with the position of its own place.

    Args:
      tokens: the encoded visible tokens.
      mask: which tokens are visible, masked and decoded.
      deterministic: switches drop path off.
      row_keys: one key for each row; needed where drop path is on.

    Returns:
      The predictions, float32.
    """
    places = mask.masked if mask.decoded is None else mask.decoded
    indices = jnp.concatenate([mask.visible, places], axis=1)
    table = position_table(self.grid, self.decoder_width)
    x = self.bridge(tokens).astype(table.dtype)
    mask_tokens = jnp.broadcast_to(
      self.mask_token, (*places.shape, self.decoder_width)
    )
    x = jnp.concatenate([x, mask_tokens], axis=1)
    return self.decoder(
      x + tubelets.gather_tokens(table, indices),
      places.shape[1],
      deterministic=deterministic,
      row_keys=row_keys,
    )

  def _check_video(self, video: Float[Array, 'b t h w c']) -> None:
    expected = (self.num_frames, *self.image_size, self.channels)
    if video.shape[1:] != expected:
      raise ValueError(
        f'video has shape {video.shape}: this model takes [rows, frames, '
        f'height, width, channels] = (any, {", ".join(map(str, expected))}).'
      )


def check(model: VideoMAE) -> None:
  """Refuses a combination of fields that cannot be built.

  Args:
    model: the model.

  Raises:
    ValueError: naming the field, what it held and what would do.
  """
  tubelets.grid(model.num_frames, model.image_size, model.tubelet)
  for field, choices in _CHOICES.items():
    transformer.check_choice(field, getattr(model, field), choices)
  for prefix in ('', 'decoder_'):
    width = getattr(model, f'{prefix}width')
    heads = getattr(model, f'{prefix}heads')
    if heads < 1 or width < 1 or width % heads:
      raise ValueError(
        f'{prefix}width {width} is not a multiple of {prefix}heads {heads}.'
      )
  for field in ('channels', 'depth', 'mlp_dim', 'decoder_mlp_dim'):
    if getattr(model, field) < 1:
      raise ValueError(f'{field} {getattr(model, field)} must be 1 or more.')
  if not 0.0 <= model.drop_path < 1.0:
    raise ValueError(f'drop_path {model.drop_path} must lie in [0, 1).')


def position_table(grid: Grid, width: int) -> Float[Array, '1 n d']:
  """The fixed sin-cos table of VideoMAE over the flattened grid."""
  return jnp.asarray(positions.sincos_1d(math.prod(grid), width))[None]


def _uniform(bound: float) -> nn.initializers.Initializer:
  """Uniform in +-bound: what torch leaves in a linear layer by default."""

  def init(
    rng: Key[Array, ''], shape: Any, dtype: Any = jnp.float32
  ) -> Float[Array, '...']:
    return jax.random.uniform(rng, shape, dtype, -bound, bound)

  return init


def _mask_token(rng: Key[Array, ''], shape: Any) -> Float[Array, 'd']:
  """A normal of deviation .02, cut at one deviation."""
  return 0.02 * jax.random.truncated_normal(rng, -1.0, 1.0, shape)
