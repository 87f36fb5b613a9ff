"""RandAugment for clips: the same random operations for all frames.

Cubuk et al., "RandAugment" (2020), in the variant that VideoMAE, VideoMAE V2
and MAE-ST fine-tune with: timm's 'inc1' set of fifteen operations, of which the
stronger ones grow with the magnitude. One draw decides for the whole clip; each
frame is then changed as Pillow would change it. Operations on single values are
table look-ups and the geometry is OpenCV's, which makes a clip several times
cheaper than frame-by-frame Pillow; geometry, colour and sharpness differ from
Pillow's by rounding, and by OpenCV's bicubic kernel.
"""

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Shaped, UInt8

_MAX_MAGNITUDE = 10.0
_FILL = (128, 128, 128)  # what moves into the picture from outside
_PROBABILITY = 0.5  # with which a drawn operation is carried out

INTERPOLATIONS = {'bicubic': cv2.INTER_CUBIC, 'bilinear': cv2.INTER_LINEAR}

Clip = UInt8[np.ndarray, 't h w 3']


@dataclasses.dataclass(frozen=True)
class RandAugment:
  """How much is changed.

  Attributes:
    num_ops: Operations drawn for a clip, with replacement; each is carried out
      half of the time.
    magnitude: The strength, from 0 to 10.
    magnitude_std: Standard deviation of the strength of each operation.
    interpolation: For the geometry, a key of `INTERPOLATIONS`.
  """

  num_ops: int = 2
  magnitude: int | float = 10.0
  magnitude_std: int | float = 0.0
  interpolation: str = 'bicubic'

  @classmethod
  def parse(cls, text: str, interpolation: str = 'bicubic') -> 'RandAugment':
    """Reads timm's notation, such as 'rand-m7-n4-mstd0.5-inc1'.

    Args:
      text: 'rand', then in any order `m` magnitude, `n` operations, `mstd`
        deviation, and `inc1`, the set of operations; joined by '-'. What is
        missing is as in timm: -m10-n2-mstd0.
      interpolation: See the class.

    Returns:
      The policy.

    Raises:
      ValueError: If something in it is unknown or impossible.
    """
    known = {'m': 'magnitude', 'n': 'num_ops', 'mstd': 'magnitude_std'}
    start, *parts = text.split('-')
    if start != 'rand':
      raise _refused(text, f'starts with {start!r}')
    values: dict[str, float] = {}
    for part in parts:
      match = re.fullmatch(r'(mstd|inc|m|n)(\d+(?:\.\d+)?)', part)
      if not match or match[1] in values:
        raise _refused(text, f'has an odd part {part!r}')
      values[match[1]] = float(match[2])
    if values.pop('inc', None) != 1:
      raise _refused(text, 'lacks -inc1: no other set is known')
    count = values.get('n', 2)
    if count != int(count):
      raise _refused(text, f'asks for {count} operations')
    if values.get('m', 0) > _MAX_MAGNITUDE:
      raise _refused(text, 'has a magnitude above 10')
    if interpolation not in INTERPOLATIONS:
      raise ValueError(
        f'data.rand_augment_interpolation is {interpolation!r}; known are '
        f'{", ".join(map(repr, INTERPOLATIONS))}.'
      )
    fields: dict[str, Any] = {
      known[name]: value for name, value in values.items()
    }
    return cls(**fields | {'num_ops': int(count)}, interpolation=interpolation)

  def draw(self, rng: np.random.Generator) -> list[tuple[str, float | int]]:
    """Draws what happens to one clip.

    Args:
      rng: Source of the draws.

    Returns:
      (operation, level) of those that are carried out, in order.
    """
    steps = []
    for name in rng.choice(list(OPERATIONS), self.num_ops).tolist():
      carried_out = rng.random() < _PROBABILITY
      magnitude = rng.normal(self.magnitude, self.magnitude_std)
      magnitude = min(max(magnitude, 0.0), _MAX_MAGNITUDE)
      sign = -1.0 if rng.random() < 0.5 else 1.0
      if carried_out:
        steps.append((name, OPERATIONS[name].level(magnitude, sign)))
    return steps


def _refused(text: str, why: str) -> ValueError:
  return ValueError(
    f'data.rand_augment is {text!r}, which {why}. Write it like '
    "'rand-m7-n4-mstd0.5-inc1' (VideoMAE) or 'rand-m7-mstd0.5-inc1' (MAE-ST)."
  )


def rand_augment(
  clip: Clip, policy: RandAugment, rng: np.random.Generator
) -> Clip:
  """Changes a clip by operations drawn for it.

  Args:
    clip: RGB frames. They are left as they are.
    policy: What is drawn.
    rng: Source of the draws.

  Returns:
    The changed frames, of the same size.
  """
  for name, level in policy.draw(rng):
    clip = apply(clip, name, level, policy.interpolation)
  return clip


def apply(
  clip: Clip, name: str, level: float | int, interpolation: str = 'bicubic'
) -> Clip:
  """Carries out one operation.

  Args:
    clip: RGB frames.
    name: A key of `OPERATIONS`.
    level: How strongly, in the operation's own unit.
    interpolation: A key of `INTERPOLATIONS`.

  Returns:
    The changed frames.
  """
  clip = np.ascontiguousarray(clip)
  return OPERATIONS[name].change(clip, level, INTERPOLATIONS[interpolation])


class Operation(NamedTuple):
  """One way to change a clip.

  Attributes:
    level: (magnitude in [0, 10], sign) -> strength in the operation's unit.
    change: (clip, level, OpenCV interpolation) -> clip.
  """

  level: Callable[[float, float], float | int]
  change: Callable[[Clip, float | int, int], Clip]


# A table of values, the same for all frames and channels.


def _table(values: Shaped[np.ndarray, '*s']) -> UInt8[np.ndarray, '*s']:
  return np.clip(values, 0, 255).astype(np.uint8)


def _look_up(clip: Clip, table: UInt8[np.ndarray, '256']) -> Clip:
  # OpenCV takes one tall picture faster than many small ones.
  return cv2.LUT(_tall(clip), table).reshape(clip.shape)


def _tall(clip: Clip) -> UInt8[np.ndarray, 'th w 3']:
  return clip.reshape(-1, *clip.shape[2:])


_VALUES = np.arange(256)


def _invert(clip, level, interpolation):
  del level, interpolation
  return 255 - clip


def _posterize(clip, bits, interpolation):
  del interpolation
  mask = 256 - 2 ** (8 - int(bits))
  return _look_up(clip, _table(_VALUES & mask))


def _solarize(clip, threshold, interpolation):
  del interpolation
  kept = np.less(_VALUES, threshold)
  inverted = np.where(kept, _VALUES, 255 - _VALUES)
  return _look_up(clip, _table(inverted))


def _solarize_add(clip, added, interpolation):
  del interpolation
  return _look_up(
    clip, _table(np.where(_VALUES < 128, _VALUES + added, _VALUES))
  )


def _blend_table(base: float | int, factor: float) -> UInt8[np.ndarray, '256']:
  """What blending with an even grey does to a value; factor 1 = nothing."""
  values = _VALUES.astype(np.float32)
  return _table(base + np.float32(factor) * (values - np.float32(base)))


def _brightness(clip, factor, interpolation):
  del interpolation
  return _look_up(clip, _blend_table(0, factor))


def _contrast(clip, factor, interpolation):
  del interpolation
  changed = np.empty_like(clip)
  for frame, out in zip(clip, changed, strict=True):
    mean = int(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).mean() + 0.5)
    cv2.LUT(frame, _blend_table(mean, factor), dst=out)
  return changed


# A table for each frame and channel, made from its own values.


def _auto_contrast(clip, level, interpolation):
  del level, interpolation
  lows = clip.min(1).min(1).astype(np.float64)  # [t, 3]; rows first: it is fast
  highs = clip.max(1).max(1).astype(np.float64)
  room = highs - lows
  scale = np.where(room > 0, 255 / np.maximum(room, 1), 1)
  offset = np.where(room > 0, -lows * scale, 0)
  tables = _VALUES[:, None] * scale[:, None] + offset[:, None]
  return _look_up_each(clip, _table(tables))


def _equalize(clip, level, interpolation):
  del level, interpolation
  tables = np.empty((len(clip), 256, 3), np.uint8)
  for frame, table in zip(clip, tables, strict=True):
    for channel in range(3):
      table[:, channel] = _equalizing(frame, channel)
  return _look_up_each(clip, tables)


def _equalizing(
  frame: UInt8[np.ndarray, 'h w 3'], channel: int
) -> UInt8[np.ndarray, '256']:
  """The table that spreads a channel's values evenly, by Pillow's rule."""
  counts = cv2.calcHist([frame], [channel], None, [256], [0, 256])
  counts = counts.ravel().astype(np.int64)
  found = counts[counts > 0]
  step = (found.sum() - found[-1]) // 255
  if not step:
    return _table(_VALUES)
  below = np.cumsum(counts) - counts
  return _table((below + step // 2) // step)


def _look_up_each(clip: Clip, tables: UInt8[np.ndarray, 't 256 3']) -> Clip:
  changed = np.empty_like(clip)
  for frame, table, out in zip(clip, tables, changed, strict=True):
    cv2.LUT(frame, table[None], dst=out)
  return changed


# Neighbouring values.


def _colour(clip, factor, interpolation):
  del interpolation
  tall = _tall(clip)
  grey = cv2.cvtColor(tall, cv2.COLOR_RGB2GRAY)
  grey = cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
  return _blend(grey, tall, factor).reshape(clip.shape)


_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13


def _sharpness(clip, factor, interpolation):
  del interpolation
  smooth = clip.copy()  # Pillow leaves the outermost pixels as they are
  for frame, out in zip(clip, smooth, strict=True):
    out[1:-1, 1:-1] = cv2.filter2D(frame, -1, _SMOOTH)[1:-1, 1:-1]
  return _blend(_tall(smooth), _tall(clip), factor).reshape(clip.shape)


def _blend(
  base: UInt8[np.ndarray, 'h w 3'],
  picture: UInt8[np.ndarray, 'h w 3'],
  factor: float,
) -> UInt8[np.ndarray, 'h w 3']:
  return cv2.addWeighted(picture, factor, base, 1 - factor, 0)


# Geometry. Like Pillow's, the matrices say where a pixel comes from.


def _warp(
  clip: Clip, matrix: Float[np.ndarray, '2 3'], interpolation: int
) -> Clip:
  """Moves pixels; `matrix` maps the corner-based (x, y) of the new to the old.

  OpenCV counts from the centre of the first pixel, half a pixel further in.
  """
  shift = 0.5 * matrix[:, :2].sum(1) - 0.5
  matrix = np.column_stack([matrix[:, :2], matrix[:, 2] + shift])
  height, width = clip.shape[1:3]
  changed = np.empty_like(clip)
  for frame, out in zip(clip, changed, strict=True):
    cv2.warpAffine(
      frame,
      matrix,
      (width, height),
      dst=out,
      flags=interpolation | cv2.WARP_INVERSE_MAP,
      borderMode=cv2.BORDER_CONSTANT,
      borderValue=_FILL,
    )
  return changed


def _affine(a, b, c, d, e, f):
  return np.array([[a, b, c], [d, e, f]], np.float64)


def _rotate(clip, degrees, interpolation):
  cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
  y, x = clip.shape[1] / 2, clip.shape[2] / 2
  matrix = _affine(
    *(cos, -sin, x - cos * x + sin * y), *(sin, cos, y - sin * x - cos * y)
  )
  return _warp(clip, matrix, interpolation)


def _shear_x(clip, share, interpolation):
  return _warp(clip, _affine(1, share, 0, 0, 1, 0), interpolation)


def _shear_y(clip, share, interpolation):
  return _warp(clip, _affine(1, 0, 0, share, 1, 0), interpolation)


def _translate_x(clip, share, interpolation):
  pixels = share * clip.shape[2]
  return _warp(clip, _affine(1, 0, pixels, 0, 1, 0), interpolation)


def _translate_y(clip, share, interpolation):
  pixels = share * clip.shape[1]
  return _warp(clip, _affine(1, 0, 0, 0, 1, pixels), interpolation)


def _signed(most: float | int) -> Callable[[float, float], float]:
  return lambda magnitude, sign: sign * most * magnitude / _MAX_MAGNITUDE


def _factor(magnitude: float, sign: float) -> float:
  return 1 + sign * 0.9 * magnitude / _MAX_MAGNITUDE


def _rising(most: int) -> Callable[[float, float], int]:
  return lambda magnitude, sign: int(magnitude / _MAX_MAGNITUDE * most)


def _falling(most: int) -> Callable[[float, float], int]:
  rising = _rising(most)
  return lambda magnitude, sign: most - rising(magnitude, sign)


# The 'inc1' set, by timm's names: degrees, bits kept, threshold, amount added,
# factor, share of the other side, share of the side.
OPERATIONS: dict[str, Operation] = {
  'AutoContrast': Operation(_signed(0), _auto_contrast),
  'Equalize': Operation(_signed(0), _equalize),
  'Invert': Operation(_signed(0), _invert),
  'Rotate': Operation(_signed(30), _rotate),
  'PosterizeIncreasing': Operation(_falling(4), _posterize),
  'SolarizeIncreasing': Operation(_falling(256), _solarize),
  'SolarizeAdd': Operation(_rising(110), _solarize_add),
  'ColorIncreasing': Operation(_factor, _colour),
  'ContrastIncreasing': Operation(_factor, _contrast),
  'BrightnessIncreasing': Operation(_factor, _brightness),
  'SharpnessIncreasing': Operation(_factor, _sharpness),
  'ShearX': Operation(_signed(0.3), _shear_x),
  'ShearY': Operation(_signed(0.3), _shear_y),
  'TranslateXRel': Operation(_signed(0.45), _translate_x),
  'TranslateYRel': Operation(_signed(0.45), _translate_y),
}
