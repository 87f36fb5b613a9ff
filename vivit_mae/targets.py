"""What a masked autoencoder is asked to predict.

A target turns clips into one vector for each token. `normalise` tells in which
of the published ways its pixels are standardised; all variances are unbiased.
"""

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vivit_mae.models import tubelets
from vivit_mae.models.layers import check_choice

NORMALISATIONS = ('channel', 'patch', 'none')
FRAMES = ('all', 'one', 'linspace')

_EPSILON = 1e-6


@dataclasses.dataclass(frozen=True)
class PixelTarget:
  """The pixels of each tubelet.

  Attributes:
    tubelet: frames, height and width of a tubelet.
    channels: channels of the video.
    normalise: 'channel' standardises the pixels of each channel of a tubelet
      by `(x - mean) / (std + epsilon)` (VideoMAE); 'patch' all values of a
      tubelet together by `(x - mean) / sqrt(var + epsilon)` (MAE-ST); 'none'
      leaves them in [0, 1].
    frames: 'all' frames of a tubelet (VideoMAE); 'one', its first (the
      released weights of MAE-ST, frames 0, 2, ... 14 of 16); 'linspace', as
      many frames as there are tubelets along time, from the first to the last
      (the published code of MAE-ST, frames 0, 2, ... 12, 15).
    epsilon: see `normalise`. MAE-ST applies its own to pixels divided by .225:
      for pixels in [0, 1] the same is 1e-6 * .225 ** 2.
  """

  tubelet: tubelets.Tubelet
  channels: int = 3
  normalise: str = 'channel'
  frames: str = 'all'
  epsilon: int | float = _EPSILON

  def __post_init__(self) -> None:
    check_choice('target.normalise', self.normalise, NORMALISATIONS)
    check_choice('target.frames', self.frames, FRAMES)

  @property
  def patch(self) -> tubelets.Tubelet:
    """Frames, height and width of what is predicted for each token."""
    frames, height, width = self.tubelet
    return (frames if self.frames == 'all' else 1, height, width)

  @property
  def dim(self) -> int:
    """Values predicted for each token."""
    return math.prod(self.patch) * self.channels

  def frame_indices(self, num_frames: int) -> Int[np.ndarray, ' t']:
    """The frames of a clip that are predicted.

    Args:
      num_frames: frames of the clip, a multiple of the tubelet's.

    Returns:
      Their indices, ascending.
    """
    count = num_frames // self.tubelet[0]
    if self.frames == 'linspace':
      # MAE-ST truncates a float linspace; in integers nothing can round.
      return np.arange(count) * (num_frames - 1) // max(count - 1, 1)
    return np.arange(
      0, num_frames, 1 if self.frames == 'all' else self.tubelet[0]
    )

  def pixels(
    self,
    video: Float[Array, 'b t h w c'],
    indices: Int[Array, 'b m'] | None = None,
  ) -> Float[Array, 'b m p']:
    """The target's pixels before they are standardised.

    Args:
      video: clips, pixels in [0, 1].
      indices: the tokens wanted; None for all.

    Returns:
      Float32 pixels in the order `(t, h, w, c)`, the channel fastest.

    Raises:
      ValueError: the clips have other channels, or do not divide into
        tubelets.
    """
    if video.shape[-1] != self.channels:
      raise ValueError(
        f'video has {video.shape[-1]} channels, the target {self.channels}.'
      )
    _, frames, height, width, _ = video.shape
    tubelets.grid(frames, (height, width), self.tubelet)
    if self.frames != 'all':
      video = video[:, self.frame_indices(frames)]
    patches = tubelets.patchify(video.astype(jnp.float32), self.patch)
    if indices is not None:
      patches = tubelets.gather_tokens(patches, indices)
    return patches

  def target(
    self,
    video: Float[Array, 'b t h w c'],
    indices: Int[Array, 'b m'] | None = None,
  ) -> Float[Array, 'b m p']:
    """What the model should predict; arguments as of `pixels`."""
    patches = self.pixels(video, indices)
    mean, std = self._moments(patches)
    grouped = self._grouped(patches)
    return ((grouped - mean[:, :, None]) / std[:, :, None]).reshape(
      patches.shape
    )

  def statistics(
    self,
    video: Float[Array, 'b t h w c'],
    indices: Int[Array, 'b m'] | None = None,
  ) -> tuple[Float[Array, 'b m g'], Float[Array, 'b m g']]:
    """What the standardisation took away, which `invert` puts back.

    Args:
      video: clips, pixels in [0, 1].
      indices: the tokens wanted; None for all.

    Returns:
      What was subtracted and what was divided by, for each channel or (all
      but 'channel') once for each token.
    """
    return self._moments(self.pixels(video, indices))

  def invert(
    self,
    prediction: Float[Array, 'b m p'],
    mean: Float[Array, '#b #m #g'],
    std: Float[Array, '#b #m #g'],
  ) -> Float[Array, 'b m p']:
    """Turns predictions into pixels.

    Args:
      prediction: in the target's standardised units.
      mean: see `statistics`; of the tokens themselves, or of what stands in
        for them. Axes of size 1 serve all rows, tokens or channels.
      std: likewise.

    Returns:
      Pixels, clipped to [0, 1]; `tubelets.unpatchify` with `patch` makes a
      video of them.
    """
    grouped = self._grouped(prediction.astype(jnp.float32))
    pixels = grouped * std[:, :, None] + mean[:, :, None]
    return jnp.clip(pixels, 0.0, 1.0).reshape(prediction.shape)

  def _grouped(self, patches: Float[Array, 'b m p']) -> Float[Array, 'b m s c']:
    return patches.reshape(*patches.shape[:2], -1, self.channels)

  def _moments(
    self, patches: Float[Array, 'b m p']
  ) -> tuple[Float[Array, 'b m g'], Float[Array, 'b m g']]:
    if self.normalise == 'none':
      shape = (*patches.shape[:2], 1)
      return jnp.zeros(shape), jnp.ones(shape)
    if self.normalise == 'patch':
      mean = patches.mean(-1, keepdims=True)
      variance = patches.var(-1, ddof=1, keepdims=True)
      return mean, jnp.sqrt(variance + self.epsilon)
    # As matrix products: CPUs crawl over sums along a strided axis.
    size = patches.shape[-1] // self.channels
    ones = np.tile(np.eye(self.channels, dtype=np.float32), (size, 1))
    mean = jnp.dot(patches, ones / size, precision='highest')
    centred = self._grouped(patches) - mean[:, :, None]
    squares = jnp.square(centred).reshape(patches.shape)
    variance = jnp.dot(squares, ones / (size - 1), precision='highest')
    return mean, jnp.sqrt(variance) + self.epsilon


TARGETS = {'pixels': PixelTarget}


def build(kind: str = 'pixels', **fields: Any) -> PixelTarget:
  """Builds a target by name.

  Args:
    kind: one of `TARGETS`.
    **fields: its fields.

  Returns:
    The target.

  Raises:
    ValueError: the kind or the value of a field is unknown.
  """
  check_choice('target.kind', kind, TARGETS)
  return TARGETS[kind](**fields)
