"""VideoMAE: a masked autoencoder of video.

Tong et al., "VideoMAE: Masked Autoencoders are Data-Efficient Learners for
Self-Supervised Video Pre-Training", NeurIPS 2022, sections 3.2 and 3.3; dual
masking follows Wang et al., "VideoMAE V2", CVPR 2023, section 3.2. Numerically
it is the public implementation of the authors, position tables and initial
distributions included. Beyond it the encoder may be any of ViViT's models 1 to
4, where the mask leaves the same places of every frame visible.
"""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from vivit_mae.masking import TokenMask
from vivit_mae.models import (
  initialisers,
  positions,
  products,
  transformer,
  tubelets,
  video_model,
)


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
    x = self.blocks(
      x, deterministic=deterministic, row_keys=row_keys, last=num_predicted
    )
    prediction = self.head(self.norm(x))
    return prediction.astype(jnp.float32)


class VideoMAE(video_model.VideoModel, kw_only=True):
  """Encoder on the visible tokens, decoder that predicts the masked ones.

  The decoder always attends over all tokens jointly and has fixed positions;
  a class token passes through it, without a position.

  Attributes:
    decoder_width: embedding dimension of the decoder.
    decoder_depth: blocks of the decoder.
    decoder_heads: attention heads of the decoder.
    decoder_mlp_dim: hidden width of the decoder's MLPs.
    target_dim: values predicted for each token; None for a tubelet's pixels.
  """

  decoder_width: int
  decoder_depth: int
  decoder_heads: int
  decoder_mlp_dim: int
  target_dim: int | None = None

  def setup(self) -> None:
    """Checks the fields and builds the submodules."""
    self.check()
    self.encoder = self.make_encoder(
      pooling='mean' if self.class_token == 'none' else 'token'
    )
    self.bridge = nn.Dense(
      self.decoder_width,
      use_bias=False,
      dtype=self.dtype,
      kernel_init=initialisers.uniform(self.width**-0.5),
      dot_general=products.dot_general,
    )
    self.mask_token = self.param(
      'mask_token', _mask_token, (self.decoder_width,)
    )
    self.decoder = Decoder(
      target_dim=self.target_dim or self.patch_dim,
      stack=self.make_stack(
        self.decoder_depth,
        self.decoder_heads,
        self.decoder_mlp_dim,
        self.num_layers,
      ),
      dtype=self.dtype,
    )

  def check(self) -> None:
    """Refuses a combination of fields that cannot be built.

    Raises:
      ValueError: naming the field, what it held and what would do.
    """
    super().check()
    self.check_width('decoder_')
    self.check_positive('decoder_mlp_dim')

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
    for each prediction, each with the position of its own place.

    Args:
      tokens: the encoded visible tokens, as `encode` returns them.
      mask: which tokens are visible, masked and decoded.
      deterministic: switches drop path off.
      row_keys: one key for each row; needed where drop path is on.

    Returns:
      The predictions, float32.
    """
    places = mask.masked if mask.decoded is None else mask.decoded
    indices = jnp.concatenate([mask.visible, places], axis=1)
    table = positions.fixed(self.grid, self.decoder_width, self.position_grid)
    rows = tubelets.gather_tokens(jnp.asarray(table)[None], indices)
    x = self.bridge(tokens).astype(rows.dtype)
    mask_tokens = jnp.broadcast_to(
      self.mask_token, (*places.shape, self.decoder_width)
    )
    x = jnp.concatenate([x, mask_tokens], axis=1)
    if self.class_token != 'none':
      rows = jnp.pad(rows, ((0, 0), (1, 0), (0, 0)))
    return self.decoder(
      x + rows,
      places.shape[1],
      deterministic=deterministic,
      row_keys=row_keys,
    )


def _mask_token(rng: Key[Array, ''], shape: Any) -> Float[Array, 'd']:
  """A normal of deviation .02, cut at one deviation."""
  return 0.02 * jax.random.truncated_normal(rng, -1.0, 1.0, shape)
