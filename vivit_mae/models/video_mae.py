"""VideoMAE: a masked autoencoder of video.

Tong et al., "VideoMAE: Masked Autoencoders are Data-Efficient Learners for
Self-Supervised Video Pre-Training", NeurIPS 2022, sections 3.2 and 3.3; dual
masking follows Wang et al., "VideoMAE V2", CVPR 2023, section 3.2; class
tokens, learned positions and biases Feichtenhofer et al., "Masked Autoencoders
As Spatiotemporal Learners", NeurIPS 2022, and its image model (He et al., CVPR
2022). Numerically it is the public implementations of the authors, position
tables and initial distributions included; `variants.PRETRAINING` names them.
Beyond them the encoder may be any of ViViT's models 1 to 4, where the mask
leaves the same places of every frame visible.
"""

import functools
from typing import Any

import flax.linen as nn
import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from vivit_mae.masking import TokenMask
from vivit_mae.models import (
  initialisers,
  layers,
  norms,
  position_table,
  positions,
  products,
  tubelets,
  video_model,
)

DECODER_CLASS_TOKENS = ('encoder', 'own')

_CHOICES = {
  'decoder_positions': positions.POSITIONS,
  'decoder_class_token': DECODER_CLASS_TOKENS,
}


@flax.struct.dataclass
class VideoMAEOutput:
  """What a masked autoencoder returns.

  Attributes:
    prediction: float32 `[b, m, p]`, the predicted target of each masked (or
      decoded) token, in the mask's order.
    encoded: float32 `[b, v, d]`, the visible tokens after the encoder's norm,
      behind the class token where there is one.
  """

  # Any, because jax also fills trees with shapes, axes and shardings.
  prediction: Any
  encoded: Any


class MaskToken(nn.Module):
  """The token that stands for what is masked, the parameter `mask_token`.

  Attributes:
    width: embedding dimension.
    initialisation: a name in `initialisers.INITS`.
  """

  width: int
  initialisation: str = 'videomae'

  @nn.compact
  def __call__(self) -> Float[Array, ' d']:
    """Returns the token."""
    init = initialisers.INITS[self.initialisation].mask_token
    return self.param('mask_token', init, (self.width,))


class Decoder(nn.Module):
  """Blocks over visible and mask tokens; norm and head over the predicted.

  Attributes:
    target_dim: values predicted for each token.
    stack: makes the stack of blocks.
    table: makes the positions.
    class_token: a name in `DECODER_CLASS_TOKENS`, or 'none'.
    dtype: of the matrix products.
    norm_epsilon: what the last norm adds to variances.
  """

  target_dim: int
  stack: Any
  table: Any
  class_token: str
  dtype: str
  norm_epsilon: float

  def setup(self) -> None:
    """Builds the submodules; blocks and table live in the decoder's scope."""
    self.blocks = self.stack()
    nn.share_scope(self, self.blocks)
    self.positions = self.table()
    nn.share_scope(self, self.positions)
    if self.class_token == 'own':
      width = self.positions.width
      self.cls_token = self.param('cls_token', initialisers.ZEROS, (width,))
    self.norm = layers.layer_norm(epsilon=self.norm_epsilon)
    self.head = layers.linear(self.target_dim, self.dtype)

  def __call__(
    self,
    x: Float[Array, 'b n d'],
    places: Int[Array, 'b n'],
    cls: Float[Array, 'b d'] | None,
    num_predicted: int,
    *,
    deterministic: bool,
    row_keys: Key[Array, 'b'] | None,
  ) -> Float[Array, 'b m p']:
    """Runs the decoder and predicts for the last `num_predicted` tokens.

    Args:
      x: tokens without positions, the mask tokens last.
      places: the tokens' places in the grid.
      cls: the encoder's class token, at the decoder's width, or None.
      num_predicted: how many tokens at the end are predicted.
      deterministic: switches drop path off.
      row_keys: one key for each row; needed where drop path is on.

    Returns:
      The predictions, float32.
    """
    x = x + self.positions.rows(places)
    first = self.cls_token if self.class_token == 'own' else cls
    if first is not None:
      position = self.positions.class_position()
      first = first if position is None else first + position
      first = jnp.broadcast_to(first, (len(x), x.shape[-1]))
      x = jnp.concatenate([first[:, None], x], axis=1)
    x = self.blocks(
      x, deterministic=deterministic, row_keys=row_keys, last=num_predicted
    )
    prediction = self.head(self.norm(x))
    return prediction.astype(jnp.float32)


class VideoMAE(video_model.VideoModel, kw_only=True):
  """Encoder on the visible tokens, decoder that predicts the masked ones.

  The decoder always attends over all tokens jointly.

  Attributes:
    decoder_width: embedding dimension of the decoder.
    decoder_depth: blocks of the decoder.
    decoder_heads: attention heads of the decoder.
    decoder_mlp_dim: hidden width of the decoder's MLPs.
    decoder_positions: a name in `positions.POSITIONS`.
    decoder_class_token: where the encoder has a class token, whether the
      decoder goes on with it ('encoder': PySlowFast, MAE) or has one of its
      own ('own': MAE-ST).
    bridge_bias: whether the linear map from encoder to decoder has a bias.
    target_dim: values predicted for each token; None for a tubelet's pixels.
  """

  decoder_width: int
  decoder_depth: int
  decoder_heads: int
  decoder_mlp_dim: int
  decoder_positions: str = 'sincos_1d'
  decoder_class_token: str = 'encoder'
  bridge_bias: bool = False
  target_dim: int | None = None

  def setup(self) -> None:
    """Checks the fields and builds the submodules."""
    self.check()
    init = initialisers.INITS[self.initialisation]
    self.encoder = self.make_encoder(
      pooling='mean' if self.class_token == 'none' else 'token'
    )
    self.bridge = nn.Dense(
      self.decoder_width,
      use_bias=self.bridge_bias,
      dtype=self.dtype,
      kernel_init=init.bridge(self.width),
      dot_general=products.dot_general,
    )
    # A module of its own, so that an encoder without a decoder can be run.
    self.masked = MaskToken(self.decoder_width, self.initialisation)
    nn.share_scope(self, self.masked)
    class_token = self.class_token
    if class_token != 'none':
      class_token = self.decoder_class_token
    initialisation = init.decoder or self.initialisation
    # Fixed tables tell tokens apart; a class token needs no row of them.
    learned = self.decoder_positions in ('learned_1d', 'separable')
    self.decoder = Decoder(
      target_dim=self.target_dim or self.patch_dim,
      stack=self.make_stack(
        self.decoder_depth,
        self.decoder_heads,
        self.decoder_mlp_dim,
        self.num_layers,
        initialisation=initialisation,
      ),
      table=functools.partial(
        position_table.PositionTable,
        kind=self.decoder_positions,
        grid=self.grid,
        width=self.decoder_width,
        made_for=self.position_grid,
        class_row=learned and class_token != 'none',
        initialisation=initialisation,
      ),
      class_token=class_token,
      dtype=self.dtype,
      norm_epsilon=norms.EPSILONS[self.epsilons].last,
    )

  def check(self) -> None:
    """Refuses a combination of fields that cannot be built.

    Raises:
      ValueError: naming the field, what it held and what would do.
    """
    super().check()
    self.check_width('decoder_')
    self.check_positive('decoder_mlp_dim')
    for field, choices in _CHOICES.items():
      layers.check_choice(field, getattr(self, field), choices)
    if self.decoder_positions == 'sincos_2d':
      positions.check_fixed_2d(self.position_grid or self.grid)

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
    """Encodes the visible tokens; arguments as of `__call__`.

    Returns:
      The tokens, behind the class token where there is one.
    """
    self.check_video(video)
    output = self.encoder(
      video, mask.visible, deterministic=deterministic, row_keys=row_keys
    )
    if output.cls is None:
      return output.tokens
    return jnp.concatenate([output.cls[:, None], output.tokens], axis=1)

  def features(
    self,
    video: Float[Array, 'b t h w c'],
    *,
    deterministic: bool,
    row_keys: Key[Array, 'b'] | None = None,
  ) -> Float[Array, 'b n d']:
    """Encodes all tokens; arguments as of `__call__`, no class token."""
    self.check_video(video)
    output = self.encoder(
      video, None, deterministic=deterministic, row_keys=row_keys
    )
    return output.tokens

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
    for each prediction, each with the position of its own place. (MAE-ST puts
    them in raster order, which is the same to attention.)

    Args:
      tokens: the encoded visible tokens, as `encode` returns them.
      mask: which tokens are visible, masked and decoded.
      deterministic: switches drop path off.
      row_keys: one key for each row; needed where drop path is on.

    Returns:
      The predictions, float32.
    """
    places = mask.masked if mask.decoded is None else mask.decoded
    return self._decode(
      tokens, mask.visible, places, places.shape[1], deterministic, row_keys
    )

  def decode_all(
    self,
    tokens: Float[Array, 'b v d'],
    mask: TokenMask,
    *,
    deterministic: bool,
    row_keys: Key[Array, 'b'] | None = None,
  ) -> Float[Array, 'b n p']:
    """Predicts all tokens, the visible ones too, in raster order (MAE-ST).

    Arguments as of `decode`; `mask.decoded` is without effect. What is
    predicted of visible tokens was never trained.
    """
    places = jnp.concatenate([mask.visible, mask.masked], axis=1)
    prediction = self._decode(
      tokens,
      mask.visible,
      mask.masked,
      places.shape[1],
      deterministic,
      row_keys,
    )
    return tubelets.gather_tokens(prediction, jnp.argsort(places))

  def _decode(
    self,
    tokens: Float[Array, 'b v d'],
    visible: Int[Array, 'b w'],
    places: Int[Array, 'b m'],
    num_predicted: int,
    deterministic: bool,
    row_keys: Key[Array, 'b'] | None,
  ) -> Float[Array, 'b k p']:
    """Predicts the last tokens of visible and mask tokens."""
    x, cls = self.bridge(tokens).astype(jnp.float32), None
    if self.class_token != 'none':
      x, cls = x[:, 1:], x[:, 0]
    mask_tokens = jnp.broadcast_to(
      self.masked(), (*places.shape, self.decoder_width)
    )
    return self.decoder(
      jnp.concatenate([x, mask_tokens], axis=1),
      jnp.concatenate([visible, places], axis=1),
      cls,
      num_predicted,
      deterministic=deterministic,
      row_keys=row_keys,
    )
