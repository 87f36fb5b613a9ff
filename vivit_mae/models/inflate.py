"""Starts a video model from the weights of an image model.

Arnab et al., "ViViT: A Video Vision Transformer", ICCV 2021, section 3.4, with
the rules of google-research/scenic, projects/vivit/model_utils.py.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from vivit_mae.masking import Grid
from vivit_mae.models import layers
from vivit_mae.models import positions as positions_lib

Arrays = Mapping[str, Any]


def _central_frame(frames: int) -> Float[np.ndarray, 't']:
  return np.eye(frames, dtype=np.float32)[frames // 2]


def _average(frames: int) -> Float[np.ndarray, 't']:
  return np.full(frames, 1 / frames, np.float32)


def _average_arp(frames: int) -> Float[np.ndarray, 't']:
  """Approximate rank pooling (Bilen et al. 2016, equation 3), averaged."""
  if frames == 1:
    return np.ones(1, np.float32)  # One frame has no order to rank.
  harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, frames + 1))])
  i = np.arange(1, frames + 1)
  ranks = 2 * (frames - i + 1)
  alpha = ranks - (frames + 1) * (harmonic[frames] - harmonic[i - 1])
  return (alpha / frames).astype(np.float32)


# Weights of a tubelet's frames, which multiply the image's kernel.
KERNELS: dict[str, Callable[[int], Float[np.ndarray, 't']]] = {
  'central_frame': _central_frame,
  'average': _average,
  'average_arp': _average_arp,
}
POSITIONS = ('tile', 'resize', 'resize_tile')
TEMPORALS = ('copy', 'zero', 'fresh')

_PER_AXIS = re.compile(r'(block_\d+)/(attention|norm1|scale1)/')
_QKV_BIAS = re.compile(r'.*/[qkv]_bias')


def inflate_kernel(
  kernel: Float[np.ndarray, 'h w c d'], frames: int, rule: str
) -> Float[np.ndarray, 't h w c d']:
  """Makes the kernel of a tubelet embedding from that of an image's.

  Args:
    kernel: the kernel of the image model.
    frames: frames of a tubelet.
    rule: 'central_frame' puts the kernel at frame `frames // 2` and zeros
      elsewhere, 'average' divides it among all frames (filter inflation),
      'average_arp' does so with the weights of approximate rank pooling. A
      tubelet of one frame gets the kernel as it is.

  Returns:
    The kernel of the video model.

  Raises:
    ValueError: an unknown rule.
  """
  layers.check_choice('kernel', rule, KERNELS)
  weights = KERNELS[rule](frames)
  return weights[:, None, None, None, None] * kernel


def inflate(
  image: Arrays,
  fresh: Arrays,
  *,
  grid: Grid,
  image_grid: tuple[int, int] | None = None,
  kernel: str = 'central_frame',
  positions: str = 'resize_tile',
  temporal: str = 'copy',
  interpolation: str = 'linear',
) -> dict[str, Float[np.ndarray, '...']]:
  """Makes parameters of a ViViT from those of an image transformer.

  Which of models 1 to 4 it is, and whether it has a class token, is read from
  the names of its parameters. What an image model has nothing for stays out of
  the result: the head, the temporal encoder of model 2, and what `temporal`
  leaves fresh. An image's class token and its position are kept, in model 2
  for the spatial encoder; where only one of the two models gives the class
  token a position, it becomes part of the token, or zero.

  Args:
    image: the parameters of the image model by the names that a video model
      has below 'encoder': 'embedding/kernel' `[h, w, c, d]`, 'embedding/bias',
      'cls_token', 'position_embedding' `[n, d]` with the class token's row
      first, 'block_00/norm1/scale', ..., 'norm/scale', 'norm/bias'. Others
      are not read.
    fresh: the parameters of the initialised video model: 'encoder/...'.
    grid: tokens of the video model along time, height and width.
    image_grid: tokens of the image model along height and width; None for a
      square.
    kernel: see `inflate_kernel`.
    positions: 'tile' repeats the image's table for each frame and needs frames
      of as many tokens, 'resize' resizes it for a model whose table covers one
      frame, 'resize_tile' does both.
    temporal: of model 3, 'copy' starts the attention over time and its norm as
      those over space; 'zero' does too, but with zeros in the last layer, so
      that the model starts as the image model on each frame; 'fresh' leaves
      them as they are.
    interpolation: how tables are resized, the method of `positions.resize`.

  Returns:
    The parameters that were made, float32, by their names in `fresh`.

  Raises:
    ValueError: an unknown choice, or a model that the image's does not fit.
  """
  layers.check_choice('positions', positions, POSITIONS)
  layers.check_choice('temporal', temporal, TEMPORALS)
  _check_names(image)
  spatial = any(name.startswith('encoder/spatial/') for name in fresh)
  stage = 'encoder/spatial/' if spatial else 'encoder/'
  made = {
    'encoder/embedding/kernel': inflate_kernel(
      np.asarray(image['embedding/kernel']),
      fresh['encoder/embedding/kernel'].shape[0],
      kernel,
    ),
    'encoder/embedding/bias': image['embedding/bias'],
    **_tokens(
      image,
      fresh,
      stage,
      (1, *grid[1:]) if spatial else grid,
      image_grid,
      positions,
      interpolation,
    ),
    **_blocks(image, fresh, stage, temporal),
  }
  for name in ('norm/scale', 'norm/bias'):
    if stage + name in fresh and name in image:
      made[stage + name] = image[name]
  return {name: _fitting(name, made[name], fresh[name]) for name in made}


def _check_names(image: Arrays) -> None:
  for name in ('embedding/kernel', 'embedding/bias'):
    if name not in image:
      raise ValueError(
        f'the image model has no {name!r}; it has {sorted(image)[:5]} and '
        f'{max(0, len(image) - 5)} more.'
      )


def _fitting(name: str, value: Any, fresh: Any) -> Float[np.ndarray, '...']:
  value = np.asarray(value, np.float32)
  if value.shape != fresh.shape:
    raise ValueError(
      f'{name} of the image model comes to shape {value.shape}, and the video '
      f'model has {tuple(fresh.shape)}.'
    )
  return value


def _tokens(
  image: Arrays,
  fresh: Arrays,
  stage: str,
  grid: Grid,
  image_grid: tuple[int, int] | None,
  rule: str,
  interpolation: str,
) -> dict[str, Any]:
  """The class token and the position table."""
  made = {}
  token = f'{stage}cls_token'
  if token in fresh and 'cls_token' in image:
    made[token] = np.reshape(image['cls_token'], fresh[token].shape)
  name = f'{stage}position_embedding'
  if name not in fresh or 'position_embedding' not in image:
    return made
  width = fresh[name].shape[-1]
  own = np.reshape(fresh[name], (-1, width))
  table = np.reshape(image['position_embedding'], (-1, width))
  extra = len(own) - math.prod(grid)
  if extra not in (0, 1):
    raise ValueError(
      f'grid {grid} has {math.prod(grid)} tokens, and {name} of the video '
      f'model has {len(own)} rows.'
    )
  image_grid = _image_grid(len(table), 'cls_token' in image, image_grid)
  split = len(table) - math.prod(image_grid)
  row, table = table[:split], table[split:]
  table = _places(table, image_grid, grid, rule, interpolation)
  if not extra:
    if token in made:
      made[token] = made[token] + row.sum(axis=0)
  elif token not in made:
    table = np.concatenate([own[:1], table])
  else:
    row = row if split else np.zeros((1, width), np.float32)
    table = np.concatenate([row, table])
  made[name] = np.reshape(table, fresh[name].shape)
  return made


def _image_grid(
  rows: int, has_token: bool, given: tuple[int, int] | None
) -> tuple[int, int]:
  """The tokens along height and width that a table of an image covers."""
  if given is not None:
    if rows - math.prod(given) not in (0, int(has_token)):
      raise ValueError(
        f'image_grid {given} has {math.prod(given)} tokens, and the position '
        f'table of the image model {rows} rows, '
        f'{"with" if has_token else "without"} a class token.'
      )
    return given
  for places in (rows - 1, rows) if has_token else (rows,):
    side = math.isqrt(places)
    if side**2 == places:
      return side, side
  raise ValueError(
    f'the position table of the image model has {rows} rows, which is no '
    'square: give image_grid, its tokens along height and width.'
  )


def _places(
  table: Float[np.ndarray, 'n d'],
  image_grid: tuple[int, int],
  grid: Grid,
  rule: str,
  interpolation: str,
) -> Float[np.ndarray, 'm d']:
  """The rows of the grid's places, frame by frame."""
  if rule == 'resize' and grid[0] > 1:
    raise ValueError(
      f"positions 'resize' makes a table of one frame, and grid {grid} has "
      f"{grid[0]}: take 'resize_tile'."
    )
  frame: Grid = (1, *image_grid)
  if rule != 'tile':
    wanted: Grid = (1, *grid[1:])
    table = positions_lib.resize(table, frame, wanted, method=interpolation)
    frame = wanted
  return positions_lib.tile(table, frame, grid)


def _blocks(
  image: Arrays, fresh: Arrays, stage: str, temporal: str
) -> dict[str, Any]:
  """The parameters of all blocks."""
  made = {}
  missing = {
    name
    for name in fresh
    if name.startswith(f'{stage}block_') and not _QKV_BIAS.fullmatch(name)
  }
  for name, value in image.items():
    if not name.startswith('block_'):
      continue
    for target in _targets(name, fresh, stage):
      over_time = '_time/' in target
      missing.discard(target)
      if over_time and temporal == 'fresh':
        continue
      # A bias of the keys does not change the softmax.
      if target not in fresh and target.endswith('/k_bias'):
        continue
      if target not in fresh:
        raise ValueError(
          f'{name} of the image model has no place in the video model, which '
          f'has no {target}.'
        )
      last = over_time and temporal == 'zero' and '/proj/' in target
      made[target] = np.zeros_like(value) if last else value
  if missing:
    raise ValueError(
      f'the image model has nothing for {sorted(missing)[:5]} of the video '
      f'model, and {max(0, len(missing) - 5)} more.'
    )
  return made


def _targets(name: str, fresh: Arrays, stage: str) -> list[str]:
  """The names in the video model that an image's parameter is for."""
  match = _PER_AXIS.match(name)
  if match is None or f'{stage}{match[1]}/norm_time/scale' not in fresh:
    return [stage + name]
  rest = name[match.end() :]
  module = match[2].removesuffix('1')
  return [
    f'{stage}{match[1]}/{module}_{axis}/{rest}' for axis in ('space', 'time')
  ]
