"""Masked autoencoding: predict the masked tubelets from the visible ones.

VideoMAE (Tong et al., NeurIPS 2022, section 3.2) and, with other masks and
targets, MAE-ST (Feichtenhofer et al., NeurIPS 2022). Encoders that factorise
space and time learn so too, from masks that leave a rectangle of tokens.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import ml_collections
import numpy as np
from clu import metrics as clu_metrics
from jaxtyping import Array, Float, Key, Shaped, UInt8

from vivit_mae import masking, preprocess, targets
from vivit_mae.models import flops, residual, variants, video_mae

Metrics = clu_metrics.Collection.create(
  loss=clu_metrics.Average.from_output('loss')
)


# Tells the draws of the decoder's mask from those of the encoder's.
_DECODER = 1


@dataclasses.dataclass(frozen=True)
class MaskedAutoencoding:
  """Pretraining of a masked video autoencoder.

  Raises:
    ValueError: a mask that cannot be, or one that the encoder cannot take.

  Attributes:
    model: encoder and decoder.
    target: what is predicted for each masked tubelet.
    mask_kind: name of the masking strategy, see `masking.KINDS`.
    mask_ratio: share of the tokens that is hidden from the encoder.
    mask_rounding: how the share becomes a count, see `masking.ROUNDINGS`.
    decoder_mask_kind: of a second mask in training, whose visible tokens are
      decoded (VideoMAE V2, section 3.2: 'running_cell'); None decodes all
      masked tokens.
    decoder_mask_ratio: share of the tokens that is not decoded.
    mean: subtracted from the pixels in [0, 1], per channel.
    std: divides them, per channel.
  """

  model: video_mae.VideoMAE
  target: targets.PixelTarget
  mask_kind: str
  mask_ratio: int | float
  mask_rounding: str
  decoder_mask_kind: str | None
  decoder_mask_ratio: int | float
  mean: tuple[int | float, ...]
  std: tuple[int | float, ...]

  def __post_init__(self) -> None:
    # An impossible mask is an error from the start.
    self._num_visible()
    self._num_decoded()
    factorisation = self.model.factorisation
    if factorisation == 'none' or masking.keeps_rectangle(self.mask_kind):
      return
    good = [kind for kind in masking.KINDS if masking.keeps_rectangle(kind)]
    raise ValueError(
      f'mask kind {self.mask_kind!r} does not leave the same places of every '
      f'frame visible, which factorisation {factorisation!r} needs: take one '
      f"of {tuple(good)}, or factorisation 'none'."
    )

  @property
  def num_layers(self) -> int:
    """Blocks of the encoder; see `tasks.Task`."""
    return self.model.num_layers

  @property
  def frozen(self) -> tuple[str, ...]:
    """No parameter is; see `tasks.Task`."""
    return ()

  def layer_of(self, name: str) -> int:
    """The layer of a parameter; see `tasks.Task`."""
    return self.model.layer_of(name)

  def adapt(
    self, name: str, saved: Shaped[np.ndarray, '...'], wanted: tuple[int, ...]
  ) -> Shaped[np.ndarray, '...'] | None:
    """Fits a saved parameter of another shape; see `tasks.Task`."""
    return self.model.adapt(name, saved, wanted)

  def init(self, rng: Key[Array, '']) -> dict[str, Any]:
    """Fresh variables of the model; see `tasks.Task`."""
    model = self.model
    video = jnp.zeros(
      (1, model.num_frames, *model.image_size, model.channels), jnp.float32
    )
    mask = self.sample_mask(rng[None])
    return dict(model.init(rng, video, mask, deterministic=True))

  def sample_mask(self, rngs: Key[Array, 'b']) -> masking.TokenMask:
    """Draws one mask per key."""
    return masking.sample(
      rngs,
      self.mask_kind,
      self.mask_ratio,
      self.model.grid,
      self.mask_rounding,
    )

  def sample_training_mask(self, rngs: Key[Array, 'b']) -> masking.TokenMask:
    """Draws one mask per key, with what is decoded where that is its own."""
    mask = self.sample_mask(rngs)
    if self.decoder_mask_kind is None:
      return mask
    decoder = masking.sample(
      residual.fold_in(rngs, _DECODER),
      self.decoder_mask_kind,
      self.decoder_mask_ratio,
      self.model.grid,
    )
    return masking.with_decoder(mask, decoder)

  def inputs(
    self, video: UInt8[Array, 'b t h w c']
  ) -> tuple[Float[Array, 'b t h w c'], Float[Array, 'b t h w c']]:
    """The clip's pixels in [0, 1], and what the network is fed."""
    unit = preprocess.to_unit(video)
    return unit, preprocess.normalise(unit, self.mean, self.std)

  def predict(
    self,
    variables: Mapping[str, Any],
    inputs: Float[Array, 'b t h w c'],
    mask: masking.TokenMask,
    *,
    deterministic: bool,
    row_keys: Key[Array, 'b'] | None = None,
  ) -> Float[Array, 'b m p']:
    """What the model makes of the masked tubelets; see `models.VideoMAE`."""
    output = self.model.apply(
      variables, inputs, mask, deterministic=deterministic, row_keys=row_keys
    )
    assert isinstance(output, video_mae.VideoMAEOutput)
    return output.prediction

  def loss(
    self,
    variables: dict[str, Any],
    batch: dict[str, Array],
    rngs: Key[Array, 'b'],
  ) -> tuple[Float[Array, ''], tuple[clu_metrics.Collection, dict[str, Any]]]:
    """Mean squared error over the masked tubelets; see `tasks.Task`."""
    mask_rngs, path_rngs = (residual.fold_in(rngs, i) for i in range(2))
    mask = self.sample_training_mask(mask_rngs)
    unit, inputs = self.inputs(batch['video'])
    prediction = self.predict(
      variables, inputs, mask, deterministic=False, row_keys=path_rngs
    )
    per_clip = self.clip_loss(prediction, unit, mask)
    valid = batch['valid']
    loss = jnp.sum(per_clip * valid) / jnp.maximum(jnp.sum(valid), 1)
    metrics = Metrics.single_from_model_output(loss=per_clip, mask=valid)
    return loss, (metrics, {})

  def clip_loss(
    self,
    prediction: Float[Array, 'b m p'],
    unit: Float[Array, 'b t h w c'],
    mask: masking.TokenMask,
  ) -> Float[Array, 'b']:
    """Mean squared error of each clip over its masked tubelets, float32.

    With a decoder's mask, over those of them that are decoded.
    """
    places = mask.masked if mask.decoded is None else mask.decoded
    error = prediction - self.target.target(unit, places)
    if mask.decoded is None:
      return jnp.mean(jnp.square(error), axis=(1, 2))
    counted = masking.decoded_and_masked(mask, math.prod(self.model.grid))
    total = jnp.sum(jnp.mean(jnp.square(error), axis=2) * counted, axis=1)
    return total / jnp.maximum(jnp.sum(counted, axis=1), 1.0)

  def flops_per_clip(self) -> float:
    """Operations of one clip's forward pass; see `tasks.Task`."""
    return flops.video_mae_flops(
      self.model, self._num_visible(), self._num_decoded()
    )

  def _num_visible(self) -> int:
    return masking.num_visible(
      self.mask_kind, self.mask_ratio, self.model.grid, self.mask_rounding
    )

  def _num_decoded(self) -> int:
    if self.decoder_mask_kind is None:
      return math.prod(self.model.grid) - self._num_visible()
    return masking.num_visible(
      self.decoder_mask_kind, self.decoder_mask_ratio, self.model.grid
    )


def from_config(config: ml_collections.ConfigDict) -> MaskedAutoencoding:
  """Builds the task from the sections model, target, mask and preprocess.

  Args:
    config: an experiment's configuration.

  Returns:
    The task.

  Raises:
    ValueError: a field holds something impossible.
  """
  _, tubelet = variants.parse(config.model.variant)
  target = targets.build(
    tubelet=tubelet, channels=config.model.channels, **config.target
  )
  model = variants.build(**config.model, target_dim=target.dim)
  return MaskedAutoencoding(
    model=model,
    target=target,
    mask_kind=config.mask.kind,
    mask_ratio=config.mask.ratio,
    mask_rounding=config.mask.rounding,
    decoder_mask_kind=config.mask.decoder_kind,
    decoder_mask_ratio=config.mask.decoder_ratio,
    mean=tuple(config.preprocess.mean),
    std=tuple(config.preprocess.std),
  )
