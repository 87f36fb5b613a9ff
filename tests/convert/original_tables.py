"""Fixed position tables and masks of the published models, in plain numpy.

Reference: videomae.md 2.1 to 2.3 and, for images, util/pos_embed.py of
facebookresearch/mae. Nothing is shared with the library.
"""

import numpy as np
from jaxtyping import Bool, Float64, Int


def sincos_1d(length: int, width: int) -> Float64[np.ndarray, 'n d']:
  """VideoMAE's table over the flattened index of the token.

  Even columns are sines, odd ones cosines of `place / 10000^(2 (j // 2) / d)`.
  The originals round it to float32.
  """
  columns = np.arange(width)
  angles = np.arange(length)[:, None] / 10000 ** (2 * (columns // 2) / width)
  return np.where(columns % 2 == 0, np.sin(angles), np.cos(angles))


def sincos_2d(
  grid: tuple[int, int], width: int
) -> Float64[np.ndarray, '1+n d']:
  """The table of the image MAE for a grid of (rows, columns).

  The first row, of zeros, is the class token's. The first half of a row tells
  the place along w, the second along h: each half is all its sines, then all
  its cosines, at the frequencies `10000^(-k / (d / 4))`.
  """
  rows, columns = grid
  frequencies = 10000.0 ** (-np.arange(width // 4) / (width / 4))
  table = np.zeros((1 + rows * columns, width))
  for h in range(rows):
    for w in range(columns):
      angles = [w * frequencies, h * frequencies]
      halves = [f(half) for half in angles for f in (np.sin, np.cos)]
      table[1 + h * columns + w] = np.concatenate(halves)
  return table


def tube_mask(
  grid: tuple[int, int, int], ratio: float, rng: np.random.Generator
) -> Bool[np.ndarray, 'n']:
  """One tube mask (true: masked) for a grid of (frames, rows, columns).

  The same `int(ratio * places)` places are masked in every frame.
  """
  frames, places = grid[0], grid[1] * grid[2]
  frame = np.arange(places) < int(ratio * places)
  return np.tile(rng.permutation(frame), frames)


def random_kept(
  tokens: int, ratio: float, rng: np.random.Generator
) -> Int[np.ndarray, 'v']:
  """Visible tokens of MAE-ST and the image MAE, in the encoder's random order.

  `int(tokens * (1 - ratio))` of them, which is not `tokens` less the rounded
  number of masked ones.
  """
  return rng.permutation(tokens)[: int(tokens * (1 - ratio))]


def mask_without(
  kept: Int[np.ndarray, 'b v'], tokens: int
) -> Bool[np.ndarray, 'b n']:
  """The mask (true: masked) of which these tokens are the visible ones."""
  mask = np.ones((len(kept), tokens), bool)
  np.put_along_axis(mask, kept, False, axis=1)
  return mask


def running_cell_mask(
  grid: tuple[int, int, int], which: int, ratio: float = 0.5
) -> Bool[np.ndarray, 'n']:
  """One of VideoMAE V2's four decoder masks (true: not decoded).

  Args:
    grid: (frames, rows, columns) of tokens.
    which: 0 to 3.
    ratio: of tokens not decoded, 0.25 or more and below 1.

  Raises:
    ValueError: Odd rows or columns, or another ratio or map.
  """
  frames, rows, columns = grid
  ones = int(4 * ratio)
  if not 0 < ones < 4 or rows % 2 or columns % 2 or which not in range(4):
    raise ValueError(f'no running-cell mask {which} of {ratio} for {grid}')
  queue = np.arange(4) < ones
  maps = []
  for frame in range(frames):
    start = which + frame + 1  # moved on before the first frame
    cell = queue[(np.arange(4) + start) % 4].reshape(2, 2)
    maps.append(np.tile(cell, (rows // 2, columns // 2)))
  return np.stack(maps).reshape(-1)
