"""What happens to a clip on the device, inside the step: uint8 to input.

Clips travel as uint8 (a quarter of the bytes of float32); everything that only
rescales values happens here, where XLA fuses it into its consumer. So does what
pairs clips of a batch, or fills in noise: the random numbers come from the
rows' keys alone, so that the number of devices changes nothing.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, UInt8

# Boxes drawn for a clip to erase, of which the first that fits is taken. Two
# in a hundred do not fit a square frame; ten in a row: once in 10^17 clips.
_BOX_TRIES = 10

MIX_MODES = ('batch', 'row')


def rgb_of_planes(
  video: UInt8[Array, 'b t rows w'], to_rgb: Float[Array, 'b 3 4']
) -> UInt8[Array, 'b t h w 3']:
  """Makes RGB of planar 4:2:0 pixels (`data.pixels='yuv420'`).

  Each colour difference serves for two by two pixels, as in FFmpeg's own
  conversion, from which the result differs by rounding.

  Args:
    video: luma, and below it both colour differences at half the height and
      width, of an even height; rows = 1.5 h.
    to_rgb: for each clip the matrix of its colour space and range, and in the
      last column what is added.

  Returns:
    The pixels.
  """
  rows, width = video.shape[2:]
  height = rows * 2 // 3
  luma = video[:, :, :height]
  below = video[:, :, height:].reshape(
    *video.shape[:2], 2, height // 2, width // 2
  )
  chroma = jnp.repeat(jnp.repeat(below, 2, axis=3), 2, axis=4)
  yuv = [luma, chroma[:, :, 0], chroma[:, :, 1]]
  weights = to_rgb[:, :, :, None, None, None]
  rgb = [
    sum(weights[:, c, k] * plane for k, plane in enumerate(yuv))
    + weights[:, c, 3]
    for c in range(3)
  ]
  return jnp.clip(jnp.round(jnp.stack(rgb, -1)), 0, 255).astype(jnp.uint8)


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


def soft_targets(
  labels: Int[Array, 'b'] | Float[Array, 'b c'],
  num_classes: int,
  smoothing: int | float = 0.0,
) -> Float[Array, 'b c']:
  """Labels as a weight for each class, smoothed.

  A class that applies gets 1 - s + s / C and any other s / C, of C classes and
  a smoothing s, as in timm, which VideoMAE and MAE-ST use.

  Args:
    labels: the class of each clip, -1 = none; or 1 for each class that applies.
    num_classes: C.
    smoothing: s.

  Returns:
    The weights, float32. They sum to 1 where one class applies.

  Raises:
    ValueError: if the smoothing is no share, or if `labels` has one column for
      each of another number of classes.
  """
  if not 0 <= smoothing < 1:
    raise ValueError(
      f'smoothing is {smoothing}; it is a share, at least 0 and less than 1.'
    )
  if labels.ndim == 1:
    hot = jax.nn.one_hot(labels, num_classes, dtype=jnp.float32)
  elif labels.shape[1] == num_classes:
    hot = labels.astype(jnp.float32)
  else:
    raise ValueError(
      f'labels have {labels.shape[1]} columns; there are {num_classes} classes.'
    )
  return hot * (1 - smoothing) + smoothing / num_classes


class _Box(NamedTuple):
  """A rectangle of pixels: rows `top` to `bottom`, without the latter."""

  top: Int[Array, '']
  bottom: Int[Array, '']
  left: Int[Array, '']
  right: Int[Array, '']

  def contains(self, height: int, width: int) -> Bool[Array, 'h w']:
    """Which pixels of a frame lie inside."""
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)
    inside = (rows >= self.top) & (rows < self.bottom)
    return inside & (columns >= self.left) & (columns < self.right)


def _noise(key: Key[Array, ''], shape: tuple[int, ...]) -> Float[Array, '...']:
  return jax.random.normal(key, shape)


def _zeros(key: Key[Array, ''], shape: tuple[int, ...]) -> Float[Array, '...']:
  del key
  return jnp.zeros(shape)


# What an erased box is filled with: name -> (key, shape of a clip) -> pixels.
FILLS: dict[str, Callable[..., Float[Array, '...']]] = {
  'pixel': _noise,
  'constant': _zeros,
}


def erase(
  video: Float[Array, 'b t h w c'],
  row_keys: Key[Array, 'b'],
  *,
  probability: int | float = 0.25,
  area: tuple[int | float, int | float] = (0.02, 1 / 3),
  aspect: tuple[int | float, int | float] = (0.3, 3.3),
  mode: str = 'pixel',
  cube: bool = True,
) -> Float[Array, 'b t h w c']:
  """Random erasing: fills one box of some of the clips.

  Zhong et al., "Random Erasing Data Augmentation", as VideoMAE fine-tunes with
  it (`random_erasing.py`, cube): the box has an area that is uniform in `area`
  and a shape that is log-uniform in `aspect`, lies anywhere with equal chance,
  and is the same in all frames; its noise is new for each frame and pixel.

  Args:
    video: normalised pixels.
    row_keys: one key per clip; only it decides for the clip.
    probability: share of the clips that are changed.
    area: least and greatest part of a frame's area.
    aspect: least and greatest height over width of the box.
    mode: 'pixel' fills in normal noise of deviation 1, 'constant' zeros (which
      are the mean).
    cube: whether one box is drawn for all frames; else each frame has its own,
      and is changed or not by its own chance.

  Returns:
    The clips.

  Raises:
    ValueError: if `mode` is unknown, or a bound is impossible.
  """
  if mode not in FILLS:
    raise ValueError(
      f'erasing mode is {mode!r}; known are {", ".join(map(repr, FILLS))}.'
    )
  for name, (least, most), top in (
    ('area', area, 1.0),
    ('aspect', aspect, math.inf),
  ):
    if not 0 < least <= most <= top:
      raise ValueError(
        f'erasing {name} is {(least, most)}; it is a least and a greatest '
        f'value, above 0 and at most {top:g}.'
      )
  _check_share('erasing probability', probability)
  _, frames, height, width, _ = video.shape

  def draw(key):
    keys = jax.random.split(key, 5)
    drawn = (_BOX_TRIES,)
    target = height * width * _uniform(keys[0], drawn, *area)
    shape = jnp.exp(_uniform(keys[1], drawn, *map(math.log, aspect)))
    rows = jnp.round(jnp.sqrt(target * shape)).astype(jnp.int32)
    columns = jnp.round(jnp.sqrt(target / shape)).astype(jnp.int32)
    fits = (rows < height) & (columns < width)
    first = jnp.argmax(fits)
    rows, columns = rows[first], columns[first]
    top = jax.random.randint(keys[2], (), 0, height - rows + 1)
    left = jax.random.randint(keys[3], (), 0, width - columns + 1)
    chosen = jax.random.uniform(keys[4]) < probability
    box = _Box(top, top + rows, left, left + columns)
    return box.contains(height, width) & chosen & jnp.any(fits)

  def change(clip, key):
    box_key, fill_key = jax.random.split(key)
    if cube:
      inside = draw(box_key)[None]
    else:
      inside = jax.vmap(draw)(jax.random.split(box_key, frames))
    fill = FILLS[mode](fill_key, clip.shape).astype(clip.dtype)
    return jnp.where(inside[..., None], fill, clip)

  return jax.vmap(change)(video, row_keys)


def mix(
  video: Float[Array, 'b t h w c'],
  targets: Mapping[str, Float[Array, 'b _']],
  row_keys: Key[Array, 'b'],
  *,
  mixup: int | float = 0.8,
  cutmix: int | float = 1.0,
  switch: int | float = 0.5,
  probability: int | float = 1.0,
  mode: str = 'batch',
) -> tuple[Float[Array, 'b t h w c'], dict[str, Float[Array, 'b _']]]:
  """Mixup or cutmix: blends each clip with one of the others.

  The first clip's partner is the last one, the second's the last but one, and
  so on. Mixup (Zhang et al., 2018) takes the weighted mean of both; cutmix (Yun
  et al., 2019) puts a box of the partner into all frames. Targets are blended
  with the same weight; for cutmix it is the share of the area that is left.
  As in timm's `Mixup`, which VideoMAE and MAE-ST fine-tune with. The partners
  are found among the clips given: with accumulated gradients those of one
  microbatch.

  Args:
    video: normalised pixels.
    targets: weights of the classes for each head, as `soft_targets` gives.
    row_keys: one key per clip.
    mixup: both parameters of the beta distribution of mixup's weight; 0 = no
      mixup.
    cutmix: likewise for cutmix.
    switch: share of cutmix, where both are on.
    probability: share of the batches (in mode 'row', of the clips) that are
      blended at all.
    mode: 'batch' draws weight, kind and box once, from the first clip's key;
      'row' for each clip, from its own.

  Returns:
    The blended clips and targets.

  Raises:
    ValueError: if `mode` is unknown, or a number is impossible.
  """
  if mode not in MIX_MODES:
    raise ValueError(
      f'mixing mode is {mode!r}; known are {", ".join(map(repr, MIX_MODES))}.'
    )
  for name, value in (('mixup', mixup), ('cutmix', cutmix)):
    if value < 0:
      raise ValueError(f'{name} is {value}; it is at least 0, 0 = none.')
  _check_share('mixing switch', switch)
  _check_share('mixing probability', probability)
  if not (mixup or cutmix):
    return video, dict(targets)
  height, width = video.shape[2:4]
  share = float(bool(cutmix)) if not (mixup and cutmix) else switch

  def draw(key):
    keys = jax.random.split(key, 5)
    by_box = jax.random.uniform(keys[0]) < share
    blended = jax.random.uniform(keys[1]) < probability
    spread = jnp.where(by_box, float(cutmix), float(mixup))
    weight = jax.random.beta(keys[2], spread, spread)
    cut = jnp.sqrt(1 - weight)
    rows = (height * cut).astype(jnp.int32)
    columns = (width * cut).astype(jnp.int32)
    middle = jax.random.randint(keys[3], (), 0, height)
    centre = jax.random.randint(keys[4], (), 0, width)
    box = _Box(
      jnp.maximum(middle - rows // 2, 0),
      jnp.minimum(middle + rows // 2, height),
      jnp.maximum(centre - columns // 2, 0),
      jnp.minimum(centre + columns // 2, width),
    )
    outside = 1.0 - box.contains(height, width)
    weights = jnp.where(by_box, outside, weight)
    weights = jnp.where(blended, weights, 1.0)
    return weights, jnp.mean(weights)

  keys = row_keys[:1] if mode == 'batch' else row_keys
  weights, means = jax.vmap(draw)(keys)
  weights = weights[:, None, :, :, None].astype(video.dtype)
  video = video * weights + video[::-1] * (1 - weights)
  means = means[:, None]
  return video, {
    name: target * means + target[::-1] * (1 - means)
    for name, target in targets.items()
  }


def _uniform(
  key: Key[Array, ''],
  shape: tuple[int, ...],
  least: int | float,
  most: int | float,
) -> Float[Array, '...']:
  return jax.random.uniform(key, shape, minval=least, maxval=most)


def _check_share(name: str, value: int | float) -> None:
  if not 0 <= value <= 1:
    raise ValueError(f'{name} is {value}; it is a share, from 0 to 1.')
