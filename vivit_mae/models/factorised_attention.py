"""Attention along time, along space, or half of the heads along each.

Tokens stand in raster order, frame by frame, and every frame has equally many:
then those of one frame, and those of one place, are rows of their own.

Arnab et al., "ViViT: A Video Vision Transformer", ICCV 2021, section 3.3,
models 3 and 4.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

Heads = Float[Array, 'b n k h']
Keys = Float[Array, 'b m k h']
Attend = Callable[[Heads, Keys, Keys], Heads]


def _space(attend: Attend, frames: int, *qkv: Heads) -> Heads:
  """Tokens of a frame attend to each other."""
  shape = qkv[0].shape
  rows = (shape[0] * frames, shape[1] // frames, *shape[2:])
  return attend(*(x.reshape(rows) for x in qkv)).reshape(shape)


def _time(attend: Attend, frames: int, *qkv: Heads) -> Heads:
  """Tokens of a place attend to each other."""
  batch, tokens, heads, width = qkv[0].shape
  places = tokens // frames

  def split(x: Heads) -> Float[Array, 'r t k h']:
    x = x.reshape(batch, frames, places, heads, width).swapaxes(1, 2)
    return x.reshape(batch * places, frames, heads, width)

  x = attend(*(split(x) for x in qkv))
  x = x.reshape(batch, places, frames, heads, width).swapaxes(1, 2)
  return x.reshape(batch, tokens, heads, width)


def _halves(attend: Attend, frames: int, *qkv: Heads) -> Heads:
  """The first half of the heads looks along time, the second along space."""
  half = qkv[0].shape[2] // 2
  time = _time(attend, frames, *(x[:, :, :half] for x in qkv))
  space = _space(attend, frames, *(x[:, :, half:] for x in qkv))
  return jnp.concatenate([time, space], axis=2)


AXES: dict[str, Callable[..., Heads]] = {
  'joint': lambda attend, frames, *qkv: attend(*qkv),
  'time': _time,
  'space': _space,
  'halves': _halves,
}


def along(
  axis: str, attend: Attend, frames: int, query: Heads, key: Keys, value: Keys
) -> Heads:
  """Lets tokens attend along an axis.

  Args:
    axis: a name in `AXES`.
    attend: the attention of whole sequences, a value of
      `attention.ATTENTIONS`.
    frames: frames of a clip, counted in tokens.
    query: queries of each head; along the joint axis there may be fewer of
      them than of keys.
    key: keys of each head.
    value: values of each head.

  Returns:
    The heads' outputs.

  Raises:
    ValueError: the frames do not have equally many tokens, or the heads no
      halves.
  """
  tokens, heads = query.shape[1:3]
  if axis != 'joint' and tokens % frames:
    raise ValueError(
      f'{tokens} tokens are no rectangle of {frames} frames with equally many '
      f'each, which attention along {axis!r} needs.'
    )
  if axis == 'halves' and heads % 2:
    raise ValueError(f'heads {heads} must be even to look along two axes.')
  return AXES[axis](attend, frames, query, key, value)
