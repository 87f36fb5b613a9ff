"""Tables that tell the tokens where they stand, and changing their grid."""

import functools
import math

import numpy as np
from jaxtyping import Float, Shaped

from vivit_mae.masking import Grid

# Fixed sines and cosines over the flattened index (VideoMAE) or over both axes
# of an image (MAE); learned rows for all tokens (ViViT), or for places and for
# frames apart, which are added (MAE-ST); or no positions.
POSITIONS = ('sincos_1d', 'sincos_2d', 'learned_1d', 'separable', 'none')

# The parameters whose rows are those of a grid, see `position_table`.
TABLES = ('position_embedding', 'position_space', 'position_time')


@functools.lru_cache(maxsize=8)
def sincos_1d(length: int, width: int) -> Float[np.ndarray, 'n d']:
  """The fixed table of VideoMAE, over the flattened token index.

  Column j of row p holds the sine (j even) or cosine (j odd) of
  `p / 10000^(2 * (j // 2) / width)`. The angles need float64: in float32 they
  are wrong by 2e-4 at the far end of the table.

  Args:
    length: number of tokens.
    width: embedding dimension.

  Returns:
    The table, float32, not to be written to.
  """
  columns = np.arange(width)
  frequencies = 10000.0 ** (-2.0 * (columns // 2) / width)
  angles = np.arange(length)[:, None] * frequencies
  table = np.where(columns % 2 == 0, np.sin(angles), np.cos(angles))
  table = table.astype(np.float32)
  table.flags.writeable = False
  return table


@functools.lru_cache(maxsize=8)
def sincos_2d(height: int, width: int, dim: int) -> Float[np.ndarray, 'n d']:
  """The fixed table of images (MAE, He et al., CVPR 2022, appendix A.1).

  The first half of the columns tells the place along the width, the second
  that along the height: each all sines, then all cosines, of
  `p / 10000^(4 * k / dim)`, k below `dim / 4` (facebookresearch/mae,
  util/pos_embed.py).

  Args:
    height: tokens along the height.
    width: tokens along the width.
    dim: embedding dimension, a multiple of 4.

  Returns:
    The table, float32, in raster order.

  Raises:
    ValueError: the dimension is no multiple of 4.
  """
  if dim % 4:
    raise ValueError(f"positions 'sincos_2d' need 4 | width, not {dim}.")
  frequencies = 10000.0 ** (-4.0 * np.arange(dim // 4) / dim)

  def along(places: Float[np.ndarray, ' n']) -> Float[np.ndarray, 'n h']:
    angles = places[:, None] * frequencies
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)

  rows, columns = np.divmod(np.arange(height * width, dtype=float), width)
  table = np.concatenate([along(columns), along(rows)], axis=1)
  return table.astype(np.float32)


@functools.lru_cache(maxsize=8)
def fixed(
  grid: Grid,
  width: int,
  made_for: Grid | None = None,
  class_rows: int = 0,
  kind: str = 'sincos_1d',
) -> Float[np.ndarray, 'n d']:
  """The fixed table for a grid, or that of another grid resized to it.

  That of VideoMAE runs over the flattened grid, so another height or width
  gives every place another row: a model that has learned with one grid sees
  its own, stretched, where it is resized.

  Args:
    grid: tokens along time, height and width.
    width: embedding dimension.
    made_for: the grid that the table is computed for; None for `grid`.
    class_rows: rows before the grid's, for class tokens; zeros in 'sincos_2d'.
    kind: 'sincos_1d', or 'sincos_2d' for grids of one frame.

  Returns:
    The table, float32, not to be written to.

  Raises:
    ValueError: 'sincos_2d' and a grid of several frames.
  """
  source = made_for or grid
  if kind == 'sincos_1d':
    table = sincos_1d(class_rows + math.prod(source), width)
  else:
    check_fixed_2d(source)
    table = np.pad(sincos_2d(*source[1:], width), ((class_rows, 0), (0, 0)))
    table.flags.writeable = False
  if tuple(source) == tuple(grid):
    return table
  table = resize(table, source, grid)
  table.flags.writeable = False
  return table


def check_fixed_2d(grid: Grid) -> None:
  """Refuses a grid of several frames for 'sincos_2d', which tells no time."""
  if grid[0] != 1:
    raise ValueError(
      f"positions 'sincos_2d' tell one frame's tokens apart, not {grid[0]} "
      "frames' of them: take 'sincos_1d', or one tubelet along time."
    )


def resize(
  table: Shaped[np.ndarray, 'n d'],
  from_grid: Grid,
  to_grid: Grid,
  *,
  method: str = 'linear',
) -> Shaped[np.ndarray, 'm d']:
  """Resizes a position table along time, height and width.

  Args:
    table: one row for each token in raster order; rows before those of the
      grid (of class tokens) stay as they are.
    from_grid: tokens of the table along time, height and width.
    to_grid: tokens wanted.
    method: 'linear' maps the first and the last token to the first and the
      last (Scenic's zoom); 'bicubic' maps borders to borders, cubic
      convolution with a = -.75 (torch's `interpolate`, as VideoMAE's action
      detection uses it).

  Returns:
    The table for the other grid, of the same dtype.

  Raises:
    ValueError: an unknown method, or a table with fewer rows than its grid.
  """
  if method not in _WEIGHTS:
    raise ValueError(
      f'method {method!r} is unknown: take one of {tuple(_WEIGHTS)}.'
    )
  head, body = _split(table, from_grid)
  body = body.astype(np.float64)
  for axis, (old, new) in enumerate(zip(from_grid, to_grid, strict=True)):
    if old != new:
      weights = _WEIGHTS[method](old, new)
      body = np.moveaxis(np.tensordot(weights, body, (1, axis)), 0, axis)
  body = body.reshape(-1, table.shape[1]).astype(table.dtype)
  return np.concatenate([head, body])


def tile(
  table: Shaped[np.ndarray, 'n d'], from_grid: Grid, to_grid: Grid
) -> Shaped[np.ndarray, 'm d']:
  """Repeats a position table over time.

  Args:
    table: one row for each token in raster order; rows before those of the
      grid (of class tokens) stay as they are, once.
    from_grid: tokens of the table along time, height and width.
    to_grid: tokens wanted: as many along height and width, and a multiple
      along time.

  Returns:
    The table for the longer clip.

  Raises:
    ValueError: the grids do not fit, or the table has fewer rows than its
      grid.
  """
  head, body = _split(table, from_grid)
  if tuple(from_grid[1:]) != tuple(to_grid[1:]) or to_grid[0] % from_grid[0]:
    raise ValueError(
      f'a position table of the grid {tuple(from_grid)} does not tile '
      f'{tuple(to_grid)}: height and width must agree and the frames be a '
      'multiple. Resize it first.'
    )
  body = np.concatenate([body] * (to_grid[0] // from_grid[0]))
  return np.concatenate([head, body.reshape(-1, table.shape[1])])


def _split(
  table: Shaped[np.ndarray, 'n d'], grid: Grid
) -> tuple[Shaped[np.ndarray, 'c d'], Shaped[np.ndarray, 't h w d']]:
  """The rows before the grid's, and those of the grid."""
  table = np.asarray(table)
  extra = len(table) - math.prod(grid)
  if extra < 0:
    raise ValueError(
      f'a position table of {len(table)} rows is too short for the grid '
      f'{tuple(grid)}, which has {math.prod(grid)} tokens.'
    )
  return table[:extra], table[extra:].reshape(*grid, -1)


def _linear(old: int, new: int) -> Float[np.ndarray, 'new old']:
  """Weights that map both ends to both ends; one row is the middle."""
  if new == 1:
    centres = np.array([(old - 1) / 2])
  else:
    centres = np.linspace(0, old - 1, new)
  return np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(old)))


def _bicubic(old: int, new: int) -> Float[np.ndarray, 'new old']:
  """Cubic convolution at the centres of the new cells, borders repeated."""
  centres = (np.arange(new) + 0.5) * old / new - 0.5
  weights = np.zeros((new, old))
  for offset in range(-1, 3):
    at = np.floor(centres) + offset
    x = np.abs(centres - at)
    a = -0.75
    near = ((a + 2) * x - (a + 3)) * x**2 + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    columns = np.clip(at, 0, old - 1).astype(int)
    np.add.at(weights, (np.arange(new), columns), np.where(x <= 1, near, far))
  return weights


_WEIGHTS = {'linear': _linear, 'bicubic': _bicubic}
