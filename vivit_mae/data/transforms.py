"""Where to crop, whether to flip, and how to resize: functions of numpy arrays.

Every crop rule gives a `Box` in pixels of the source, so that a decoder can cut
it out before it scales anything, and so that one box serves all frames of a
clip. Random rules draw from the `numpy.random.Generator` they are given, and
from nothing else.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

# TSN's scales and distortion, which VideoMAE's pretraining keeps.
MULTI_SCALES = (1.0, 0.875, 0.75, 0.66)

# (across, down) in quarters of the free room: corners and centre, then the
# middles of the edges, then the quarter points.
_OFFSETS = (
  *((0, 0), (4, 0), (0, 4), (4, 4), (2, 2)),
  *((0, 2), (4, 2), (2, 4), (2, 0)),
  *((1, 1), (3, 1), (1, 3), (3, 3)),
)
_SNAP = 3  # a crop side this near to the target becomes the target: no scaling


class Box(NamedTuple):
  """A rectangle of pixels: rows `top : top + height`, likewise columns."""

  top: int
  left: int
  height: int
  width: int


def multi_scale_crop(
  height: int,
  width: int,
  size: tuple[int, int],
  rng: np.random.Generator,
  scales: Sequence[float | int] = MULTI_SCALES,
  max_distort: int = 1,
) -> Box:
  """Draws VideoMAE's pretraining crop: fixed scales at thirteen fixed places.

  Both sides are a scale times the shorter side of the frame; their scales lie
  at most `max_distort` steps apart. A side within 3 pixels of the target size
  becomes the target size. Follows `GroupMultiScaleCrop` of TSN and VideoMAE,
  except that a snapped side never leaves the frame (theirs pads with black).

  Args:
    height: Rows of the frame.
    width: Columns of the frame.
    size: Target (height, width) in pixels.
    rng: Source of the draw.
    scales: Sides to choose from, in parts of the shorter side, largest first.
    max_distort: How far apart in `scales` height and width may be.

  Returns:
    The box to cut out, in pixels of the frame.
  """
  base = min(height, width)
  heights = [_snap(int(base * s), size[0], height) for s in scales]
  widths = [_snap(int(base * s), size[1], width) for s in scales]
  pairs = [
    (h, w)
    for i, h in enumerate(heights)
    for j, w in enumerate(widths)
    if abs(i - j) <= max_distort
  ]
  crop_height, crop_width = pairs[rng.integers(len(pairs))]
  across, down = _OFFSETS[rng.integers(len(_OFFSETS))]
  return Box(
    top=down * ((height - crop_height) // 4),
    left=across * ((width - crop_width) // 4),
    height=crop_height,
    width=crop_width,
  )


def _snap(side: int, target: int, limit: int) -> int:
  """A crop side, set to the target when near it; between 1 and `limit`."""
  return max(1, min(target if abs(side - target) < _SNAP else side, limit))


def random_resized_crop(
  height: int,
  width: int,
  rng: np.random.Generator,
  scale: tuple[float | int, float | int] = (0.5, 1.0),
  ratio: tuple[float | int, float | int] = (3 / 4, 4 / 3),
) -> Box:
  """Draws a box of random area and shape, as MAE-ST and fine-tuning use.

  The area is uniform in `scale`, the shape (width over height) log-uniform in
  `ratio`; ten draws are tried, then the largest central box of an allowed
  shape is taken.

  Args:
    height: Rows of the frame.
    width: Columns of the frame.
    rng: Source of the draw.
    scale: Least and greatest part of the frame's area.
    ratio: Least and greatest width over height.

  Returns:
    The box to cut out, in pixels of the frame.
  """
  area = height * width
  for _ in range(10):
    target = area * rng.uniform(*scale)
    shape = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
    crop_width = round(math.sqrt(target * shape))
    crop_height = round(math.sqrt(target / shape))
    if 0 < crop_width <= width and 0 < crop_height <= height:
      top = int(rng.integers(height - crop_height + 1))
      left = int(rng.integers(width - crop_width + 1))
      return Box(top, left, crop_height, crop_width)
  shape = min(max(width / height, ratio[0]), ratio[1])
  crop_width = max(1, min(width, round(height * shape)))
  crop_height = max(1, min(height, round(width / shape)))
  return _central(height, width, crop_height, crop_width)


def center_crop(
  height: int,
  width: int,
  size: tuple[int, int],
  short_side: int | None = None,
) -> Box:
  """The box that "resize the short side, then cut out the centre" looks at.

  Args:
    height: Rows of the frame.
    width: Columns of the frame.
    size: Target (height, width) in pixels.
    short_side: Length the shorter side is resized to before the cut; None
      chooses the length at which the target just fits.

  Returns:
    The central box, in pixels of the frame, of the target's shape.

  Raises:
    ValueError: `short_side` is too small for the target.
  """
  zoom = max(size[0] / height, size[1] / width)
  if short_side is not None:
    least = math.ceil(zoom * min(height, width) - 1e-9)
    if short_side < least:
      raise ValueError(
        f'short_side={short_side} leaves no room for a {size[0]}x{size[1]} '
        f'crop of a {height}x{width} frame; use {least} or more'
      )
    zoom = short_side / min(height, width)
  crop_height = max(1, min(height, round(size[0] / zoom)))
  crop_width = max(1, min(width, round(size[1] / zoom)))
  return _central(height, width, crop_height, crop_width)


def spread_crop(
  height: int,
  width: int,
  size: tuple[int, int],
  view: int,
  count: int,
  short_side: int | None = None,
) -> Box:
  """One of some crops that lie evenly along the longer side of the frame.

  The first lies at the top or left end, the last at the other; one alone, and
  the other direction, are central (VideoMAE's and ViViT's three test crops).

  Args:
    height: Rows of the frame.
    width: Columns of the frame.
    size: Target (height, width) in pixels.
    view: Which crop, from 0.
    count: How many there are.
    short_side: See `center_crop`.

  Returns:
    The box, in pixels of the frame, of the target's shape.

  Raises:
    ValueError: `short_side` is too small for the target.
  """
  box = center_crop(height, width, size, short_side)
  if count == 1:
    return box
  down, across = height - box.height, width - box.width
  if down > across:
    return box._replace(top=int(view * (down / (count - 1))))
  return box._replace(left=int(view * (across / (count - 1))))


def jittered_crop(
  height: int,
  width: int,
  size: tuple[int, int],
  rng: np.random.Generator,
  short_side: int | None = None,
  jitter: tuple[float | int, float | int] = (0.9, 1.33),
) -> Box:
  """Draws ViViT's crop: fixed size, anywhere in a frame of random scale.

  The shorter side is resized to `short_side`, then height and width each by a
  factor of their own, uniform in `jitter`; the crop's place is uniform. A frame
  that became too small is taken whole (Scenic's `do_jitter_scale`).

  Args:
    height: Rows of the frame.
    width: Columns of the frame.
    size: Target (height, width) in pixels.
    rng: Source of the draw.
    short_side: Length of the shorter side before the jitter; None chooses the
      length at which the target just fits.
    jitter: Least and greatest factor.

  Returns:
    The box to cut out, in pixels of the frame.

  Raises:
    ValueError: `short_side` is too small for the target.
  """
  box = center_crop(height, width, size, short_side)
  factors = rng.uniform(*jitter, 2)
  crop_height = max(1, min(height, round(box.height / factors[0])))
  crop_width = max(1, min(width, round(box.width / factors[1])))
  top = int(rng.integers(height - crop_height + 1))
  left = int(rng.integers(width - crop_width + 1))
  return Box(top, left, crop_height, crop_width)


def _central(height: int, width: int, crop_height: int, crop_width: int) -> Box:
  top, left = (height - crop_height) // 2, (width - crop_width) // 2
  return Box(top, left, crop_height, crop_width)


def draw_flip(rng: np.random.Generator, probability: float | int = 0.5) -> bool:
  """Draws whether to mirror a clip left to right."""
  return bool(rng.random() < probability)


def check_box(box: Box, height: int, width: int) -> None:
  """Raises ValueError where a box does not lie in a frame."""
  inside = 0 <= box.top <= box.top + box.height <= height
  inside = inside and 0 <= box.left <= box.left + box.width <= width
  if not inside or box.height < 1 or box.width < 1:
    raise ValueError(
      f'{box} does not lie in a frame of {height} rows and {width} columns'
    )


def crop_and_resize(
  frame: UInt8[np.ndarray, 'h w 3'],
  box: Box | None,
  size: tuple[int, int],
  *,
  flip: bool = False,
  antialias: bool = True,
  out: UInt8[np.ndarray, 'h2 w2 3'] | None = None,
) -> UInt8[np.ndarray, 'h2 w2 3']:
  """Cuts a box out of a frame, resizes it, and mirrors it if asked.

  Args:
    frame: RGB pixels.
    box: What to cut out; None takes all.
    size: (height, width) of the result.
    flip: Mirror left to right, after resizing.
    antialias: True averages over the pixels that fall on one when shrinking
      (PIL's bilinear: VideoMAE's pretraining); False interpolates between the
      four nearest (OpenCV's INTER_LINEAR, torch's bilinear with
      align_corners=False: MAE-ST and fine-tuning). What shrinks to less than
      half is averaged all the same, by area: the frames of those recipes are
      stored small.
    out: Where the result may be written, contiguous.

  Returns:
    RGB pixels of the asked size, which may share memory with `frame`; `out`, if
    they were written there.

  Raises:
    ValueError: the box does not lie in the frame.
  """
  if box is not None:
    check_box(box, *frame.shape[:2])
    top, left, height, width = box
    frame = frame[top : top + height, left : left + width]
  if frame.shape[:2] != tuple(size):
    out = None if flip else out
    frame = resize(frame, size, antialias=antialias, out=out)
  return frame[:, ::-1] if flip else frame


def resize(
  pixels: UInt8[np.ndarray, 'h w *c'],
  size: tuple[int, int],
  *,
  antialias: bool = True,
  out: UInt8[np.ndarray, 'h2 w2 *c'] | None = None,
) -> UInt8[np.ndarray, 'h2 w2 *c']:
  """Resizes a picture, or one plane of it.

  Args:
    pixels: Any of one or three channels.
    size: (height, width) of the result.
    antialias: See `crop_and_resize`; for what grows both are the same.
    out: Where the result may be written, contiguous.

  Returns:
    The resized pixels; `out`, if they were written there.
  """
  across = (size[1], size[0])  # PIL and OpenCV say the width first
  shrinks = size[0] < pixels.shape[0] or size[1] < pixels.shape[1]
  if antialias and shrinks:
    picture = Image.fromarray(pixels)
    return np.asarray(picture.resize(across, Image.Resampling.BILINEAR))
  ratios = [now / new for now, new in zip(pixels.shape, size, strict=False)]
  by_area = min(ratios) >= 1 and max(ratios) > 2
  rule = cv2.INTER_AREA if by_area else cv2.INTER_LINEAR
  return cv2.resize(pixels, across, dst=out, interpolation=rule)
