"""Pixels to tubelets and back, and the embedding of tubelets."""

import math

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from vivit_mae.masking import Grid
from vivit_mae.models import initialisers, products

Tubelet = tuple[int, int, int]


def grid(
  num_frames: int, image_size: tuple[int, int], tubelet: Tubelet
) -> Grid:
  """Counts the tubelets of a clip along time, height and width.

  Args:
    num_frames: frames of the clip.
    image_size: height and width in pixels.
    tubelet: frames, height and width of a tubelet.

  Returns:
    The number of tubelets along each axis.

  Raises:
    ValueError: a size is not a positive multiple of the tubelet's.
  """
  names = ('num_frames', 'image_size height', 'image_size width')
  sizes = (num_frames, *image_size)
  for name, size, step in zip(names, sizes, tubelet, strict=True):
    if step < 1 or size < 1 or size % step:
      raise ValueError(
        f'{name} {size} is not a positive multiple of {step}, the size of '
        f'the tubelet {tuple(tubelet)} (frames, height, width) along it.'
      )
  return (
    sizes[0] // tubelet[0],
    sizes[1] // tubelet[1],
    sizes[2] // tubelet[2],
  )


def uniform_frames(
  video: Shaped[Array, 'b t h w c'], count: int
) -> Shaped[Array, 'b f h w c']:
  """Picks frames at equal distances (ViViT, section 3.2, "uniform").

  Args:
    video: clips.
    count: frames wanted, at most as many as there are.

  Returns:
    The frames; of 32 the 8 at 4, 7, 11, 14, 18, 21, 25 and 28 (Scenic,
    common_lib/video_utils.py).
  """
  frames = video.shape[1]
  if count == frames:
    return video
  places = np.round(np.arange(1, count + 1) * frames / (count + 1))
  return video[:, np.minimum(places, frames - 1).astype(int)]


def patchify(
  video: Shaped[Array, 'b t h w c'], tubelet: Tubelet
) -> Shaped[Array, 'b n p']:
  """Cuts clips into tubelets.

  Args:
    video: clips.
    tubelet: frames, height and width of a tubelet.

  Returns:
    The pixels of each tubelet, tubelets in raster order `(t, h, w)`, pixels in
    the order `(t, h, w, c)` with the channel fastest: the order of VideoMAE's
    and MAE-ST's targets, and of a flattened Conv3D kernel of Flax.

  Raises:
    ValueError: a size is not a multiple of the tubelet's.
  """
  rows, frames, height, width, channels = video.shape
  nt, nh, nw = grid(frames, (height, width), tubelet)
  pt, ph, pw = tubelet
  split = video.reshape(rows, nt, pt, nh, ph, nw, pw, channels)
  return split.transpose(0, 1, 3, 5, 2, 4, 6, 7).reshape(
    rows, nt * nh * nw, pt * ph * pw * channels
  )


def unpatchify(
  patches: Shaped[Array, 'b n p'], size: Grid, tubelet: Tubelet
) -> Shaped[Array, 'b t h w c']:
  """Puts tubelets together again; the inverse of `patchify`.

  Args:
    patches: the pixels of each tubelet, see `patchify`.
    size: the number of tubelets along time, height and width.
    tubelet: frames, height and width of a tubelet.

  Returns:
    The clips.

  Raises:
    ValueError: the number of tubelets or of their pixels does not fit.
  """
  rows, tokens, pixels = patches.shape
  if tokens != math.prod(size) or pixels % math.prod(tubelet):
    raise ValueError(
      f'{tokens} tubelets of {pixels} values do not fill the grid {size} '
      f'with tubelets {tuple(tubelet)}: {math.prod(size)} of a multiple of '
      f'{math.prod(tubelet)} values do.'
    )
  pt, ph, pw = tubelet
  nt, nh, nw = size
  split = patches.reshape(rows, nt, nh, nw, pt, ph, pw, -1)
  return split.transpose(0, 1, 4, 2, 5, 3, 6, 7).reshape(
    rows, nt * pt, nh * ph, nw * pw, -1
  )


def gather_tokens(
  tokens: Shaped[Array, '#b n p'], indices: Int[Array, 'b v']
) -> Shaped[Array, 'b v p']:
  """Picks tokens of each row.

  Args:
    tokens: tokens of each row, or one row for all (a position table).
    indices: which tokens each row keeps.

  Returns:
    The kept tokens, in the order of the indices.
  """
  return jnp.take_along_axis(tokens, indices[:, :, None], axis=1)


class TubeletEmbedding(nn.Module):
  """The Conv3D of VideoMAE as one matrix product over tubelets' pixels.

  Kernel and bias keep the names and shapes of a Flax convolution.

  Attributes:
    tubelet: frames, height and width of a tubelet.
    channels: channels of the video.
    width: embedding dimension.
    dtype: of the matrix product and of the result.
    initialisation: a name in `initialisers.INITS`.
  """

  tubelet: Tubelet
  channels: int
  width: int
  dtype: str = 'float32'
  initialisation: str = 'videomae'

  @nn.compact
  def __call__(self, patches: Float[Array, 'b n p']) -> Float[Array, 'b n d']:
    """Embeds tubelets.

    Args:
      patches: the pixels of each tubelet, see `patchify`.

    Returns:
      The embedded tubelets.
    """
    pixels = math.prod(self.tubelet) * self.channels
    init = initialisers.INITS[self.initialisation]
    kernel = self.param(
      'kernel',
      init.embedding(pixels),
      (*self.tubelet, self.channels, self.width),
    )
    bias = self.param('bias', init.embedding_bias(pixels), (self.width,))
    kernel = kernel.reshape(pixels, self.width).astype(self.dtype)
    embedded = products.dot_general(
      patches.astype(self.dtype), kernel, (((2,), (0,)), ((), ()))
    )
    return embedded + bias.astype(self.dtype)
