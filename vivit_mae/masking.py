"""Which tokens are seen, which are masked, and which are decoded.

A mask is drawn as index arrays whose lengths are known before tracing, so that
everything downstream gathers with static shapes. Each row of a batch has its
own random key: the same key gives the same mask whatever the batch it sits in.
Tokens are numbered in raster order `(t, h, w)`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key, UInt32

Grid = tuple[int, int, int]

ROUNDINGS = ('masked_down', 'visible_down')

# Spacetime cuboids of a block mask. Few enough to leave whole regions hidden,
# enough that a mask is not one solid box.
_NUM_BLOCKS = 4
# Half extents of a cuboid relative to the grid's, before it grows: the longest
# is at most four times the shortest along each axis.
_BLOCK_EXTENTS = (0.5, 2.0)


@flax.struct.dataclass
class TokenMask:
  """The tokens of each clip, by what happens to them.

  Attributes:
    visible: int32 `[b, v]`, tokens that the encoder sees, ascending.
    masked: int32 `[b, m]`, all the others, ascending.
    decoded: int32 `[b, d]`, tokens that the decoder predicts, ascending, where
      these are drawn apart from the encoder's mask (VideoMAE V2, section 3.2);
      None where the decoder predicts the masked tokens.
  """

  # Any, because jax also fills trees with shapes, axes and shardings.
  visible: Any
  masked: Any
  decoded: Any = None


def num_visible(
  kind: str, ratio: int | float, grid: Grid, rounding: str = 'masked_down'
) -> int:
  """Counts the tokens that a mask leaves visible in each clip.

  Args:
    kind: the name of a mask, one of `KINDS`.
    ratio: the share of masked tokens, in (0, 1).
    grid: the number of tokens along time, height and width.
    rounding: 'masked_down' masks `int(ratio * n)` of n sites (VideoMAE,
      Scenic); 'visible_down' keeps `int(n * (1 - ratio))` of them (MAE-ST).
      They differ: 157 and 156 of 1568 at ratio .9.

  Returns:
    The number of visible tokens, a Python int.

  Raises:
    ValueError: an unknown kind or rounding, or a ratio that would mask nothing
      or everything on this grid.
  """
  implementation = _kind(kind)
  sites = implementation.num_sites(grid)
  kept = _num_kept(kind, sites, ratio, grid, rounding)
  return kept * (grid[0] * grid[1] * grid[2] // sites)


def keeps_rectangle(kind: str) -> bool:
  """Says whether the visible tokens form a full (time, place) rectangle.

  Only then can they be reshaped to `[b, t, k, d]`, as encoders that factorise
  space and time need.

  Args:
    kind: the name of a mask, one of `KINDS`.

  Returns:
    True where every frame keeps the same number of tokens at the same places.

  Raises:
    ValueError: the kind is unknown.
  """
  return _kind(kind).rectangle


def sample(
  rngs: Key[Array, 'b'],
  kind: str,
  ratio: int | float,
  grid: Grid,
  rounding: str = 'masked_down',
) -> TokenMask:
  """Draws one mask for each row key.

  Args:
    rngs: one key for each clip.
    kind: 'tube' (the same places in every frame: VideoMAE, section 3.3),
      'random' (any tokens: MAE-ST, section 3), 'frame' (whole frames), 'block'
      (spacetime cuboids) or 'running_cell' (VideoMAE V2, section 3.2).
    ratio: the share of masked tokens, in (0, 1).
    grid: the number of tokens along time, height and width.
    rounding: see `num_visible`.

  Returns:
    The mask; `num_visible` tells the number of visible tokens beforehand.

  Raises:
    ValueError: see `num_visible`.
  """
  implementation = _kind(kind)
  sites = implementation.num_sites(grid)
  kept = _num_kept(kind, sites, ratio, grid, rounding)
  visible, masked = jax.vmap(lambda rng: implementation.draw(rng, kept, grid))(
    rngs
  )
  return TokenMask(visible=visible, masked=masked)


def with_decoder(encoder: TokenMask, decoder: TokenMask) -> TokenMask:
  """Joins two masks to dual masking (VideoMAE V2, section 3.2).

  Args:
    encoder: the mask of the encoder, kept as it is.
    decoder: a mask drawn apart, usually 'running_cell' at ratio .5: what it
      leaves visible is decoded.

  Returns:
    The encoder's mask with `decoded` set.
  """
  return TokenMask(encoder.visible, encoder.masked, decoder.visible)


def decoded_and_masked(mask: TokenMask, num_tokens: int) -> Float[Array, 'b d']:
  """Which predictions of dual masking count.

  Args:
    mask: a mask with `decoded`.
    num_tokens: tokens of a clip.

  Returns:
    For each decoded token 1 where the encoder did not see it, or else 0:
    VideoMAE V2 leaves the error of the others out (engine_for_pretraining.py).
  """
  rows = jnp.arange(len(mask.masked))[:, None]
  hidden = jnp.zeros((len(mask.masked), num_tokens))
  hidden = hidden.at[rows, mask.masked].set(1.0)
  return jnp.take_along_axis(hidden, mask.decoded, axis=1)


def _permute(rng: Key[Array, ''], size: int) -> Int[Array, ' n']:
  """A random order: one sort of random bits (equal bits keep their order)."""
  bits: UInt32[Array, ' n'] = jax.random.bits(rng, (size,))
  return jnp.argsort(bits).astype(jnp.int32)


def _split(
  order: Int[Array, ' n'], kept: int
) -> tuple[Int[Array, ' v'], Int[Array, ' m']]:
  return jnp.sort(order[:kept]), jnp.sort(order[kept:])


def _tube(
  rng: Key[Array, ''], kept: int, grid: Grid
) -> tuple[Int[Array, ' v'], Int[Array, ' m']]:
  places = grid[1] * grid[2]
  starts = places * jnp.arange(grid[0], dtype=jnp.int32)[:, None]
  visible, masked = _split(_permute(rng, places), kept)
  return (starts + visible).ravel(), (starts + masked).ravel()


def _random(
  rng: Key[Array, ''], kept: int, grid: Grid
) -> tuple[Int[Array, ' v'], Int[Array, ' m']]:
  return _split(_permute(rng, grid[0] * grid[1] * grid[2]), kept)


def _frame(
  rng: Key[Array, ''], kept: int, grid: Grid
) -> tuple[Int[Array, ' v'], Int[Array, ' m']]:
  places = jnp.arange(grid[1] * grid[2], dtype=jnp.int32)
  visible, masked = _split(_permute(rng, grid[0]), kept)
  return (
    (visible[:, None] * places.size + places).ravel(),
    (masked[:, None] * places.size + places).ravel(),
  )


def _block(
  rng: Key[Array, ''], kept: int, grid: Grid
) -> tuple[Int[Array, ' v'], Int[Array, ' m']]:
  """Cuboids of random centre and shape that grow until the count is exact.

  A token's score is its scaled Chebyshev distance from the nearest centre, so
  the tokens below any score are a union of cuboids. The outermost shell is
  completed at random.
  """
  rng_centre, rng_extent, rng_tie = jax.random.split(rng, 3)
  sizes = jnp.asarray(grid, jnp.float32)
  centres = sizes * jax.random.uniform(rng_centre, (_NUM_BLOCKS, 3))
  low, high = (jnp.log(extent) for extent in _BLOCK_EXTENTS)
  extents = sizes * jnp.exp(
    jax.random.uniform(rng_extent, (_NUM_BLOCKS, 3), minval=low, maxval=high)
  )
  token = jnp.arange(grid[0] * grid[1] * grid[2], dtype=jnp.int32)
  points: Float[Array, 'n 3'] = 0.5 + jnp.stack(
    [
      token // (grid[1] * grid[2]),
      token // grid[2] % grid[1],
      token % grid[2],
    ],
    axis=-1,
  )
  distances = jnp.abs(points[:, None] - centres) / extents
  score: Float[Array, ' n'] = distances.max(-1).min(-1)
  tie = jax.random.bits(rng_tie, token.shape)
  # Farthest first: the visible tokens lead, as everywhere here.
  _, _, order = lax.sort((-score, tie, token), num_keys=2)
  return _split(order, kept)


def _running_cell(
  rng: Key[Array, ''], kept: int, grid: Grid
) -> tuple[Int[Array, ' v'], Int[Array, ' m']]:
  """A 2 x 2 cell tiled over the frame, its mask moving on by one each frame.

  The four possible starts are equally likely (VideoMAE V2, section 3.2).
  """
  start = jax.random.randint(rng, (), 0, 4)
  frame, row, column = jnp.meshgrid(
    *(jnp.arange(size, dtype=jnp.int32) for size in grid), indexing='ij'
  )
  phase = (2 * (row % 2) + column % 2 + start + 1 + frame) % 4
  is_masked = (phase < 4 - kept).ravel()
  order = jnp.argsort(is_masked, stable=True).astype(jnp.int32)
  total = kept * (is_masked.size // 4)
  return order[:total], order[total:]


def _cell_sites(grid: Grid) -> int:
  if grid[1] % 2 or grid[2] % 2:
    raise ValueError(
      "The mask 'running_cell' tiles cells of 2 x 2 tokens: height and width "
      f'in tokens must be even, not {grid[1]} and {grid[2]}.'
    )
  return 4


@dataclasses.dataclass(frozen=True)
class _Kind:
  """How a mask is drawn, and from how many equal sites."""

  draw: Callable[[Any, int, Grid], tuple[Any, Any]]
  num_sites: Callable[[Grid], int]
  rectangle: bool = False


_KINDS = {
  'tube': _Kind(_tube, lambda grid: grid[1] * grid[2], rectangle=True),
  'random': _Kind(_random, lambda grid: grid[0] * grid[1] * grid[2]),
  'frame': _Kind(_frame, lambda grid: grid[0]),
  'block': _Kind(_block, lambda grid: grid[0] * grid[1] * grid[2]),
  'running_cell': _Kind(_running_cell, _cell_sites),
}
KINDS = tuple(_KINDS)


def _kind(name: str) -> _Kind:
  if name not in _KINDS:
    raise ValueError(f'mask kind {name!r} is unknown: take one of {KINDS}.')
  return _KINDS[name]


def _num_kept(
  kind: str, sites: int, ratio: int | float, grid: Grid, rounding: str
) -> int:
  """The number of sites left visible."""
  if rounding == 'masked_down':
    kept = sites - int(ratio * sites)
  elif rounding == 'visible_down':
    # This order of operations is MAE-ST's: 1 - .9 is a little less than .1.
    kept = int(sites * (1 - ratio))
  else:
    raise ValueError(
      f'mask rounding {rounding!r} is unknown: take one of {ROUNDINGS}.'
    )
  if not 0 < kept < sites:
    raise ValueError(
      f'mask ratio {ratio} leaves {kept} of the {sites} sites that a '
      f'{kind!r} mask chooses from on the grid {grid}: take a ratio that '
      f'leaves between 1 and {sites - 1}, such as {(sites - 1) // 2 + 1}'
      f'/{sites}.'
    )
  return kept
