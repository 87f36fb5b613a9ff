"""What happens to a clip on the device, inside the step: uint8 to input.

Clips travel as uint8 (a quarter of the bytes of float32); everything that only
rescales values happens here, where XLA fuses it into its consumer.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8


def to_unit(
  video: UInt8[Array, 'b t h w c'],
) -> Float[Array, 'b t h w c']:
  """Maps uint8 pixels to float32 in [0, 1]."""
  return video.astype(jnp.float32) / 255.0


def normalise(
  video: Float[Array, 'b t h w c'],
  mean: Sequence[int | float],
  std: Sequence[int | float],
) -> Float[Array, 'b t h w c']:
  """Subtracts `mean` and divides by `std`, both per channel.

  Args:
    video: pixels in [0, 1].
    mean: one value per channel, in the same unit; or one for all channels.
    std: likewise.

  Returns:
    The network's input, float32.

  Raises:
    ValueError: if `mean` or `std` has neither one value nor one per channel.
  """
  channels = video.shape[-1]
  for name, values in (('mean', mean), ('std', std)):
    if len(values) not in (1, channels):
      raise ValueError(
        f'preprocess.{name} holds {len(values)} values {tuple(values)}; the '
        f'video has {channels} channels: give 1 or {channels}.'
      )
  return (video - jnp.asarray(mean)) / jnp.asarray(std)
