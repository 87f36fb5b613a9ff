"""The built-in dataset: sprites whose motion, and nothing else, has a class.

A textured sprite moves over a smooth background: in one of eight directions,
or turning, or growing or shrinking. Place, angle and size of the sprite each
live on a circle: who leaves the frame comes back on the other side, what has
grown to the full size starts anew from the smallest. Started anywhere with
equal chance, each is then equally likely to be anywhere in every frame,
whatever the motion: one frame says nothing about the class.

The clips are real H.264 files, and go through the same writer, storage and
decoder as anyone's videos. Video i of a seed is always the same.
"""

import colorsys
import itertools
import os

import cv2
import numpy as np
from etils import epath
from jaxtyping import Float, UInt8

from vivit_mae.data import encode, listing, writer

_DIRECTIONS = (
  *('right', 'up_right', 'up', 'up_left'),
  *('left', 'down_left', 'down', 'down_right'),
)
CLASSES = (
  *_DIRECTIONS,
  *('turn_clockwise', 'turn_anticlockwise', 'zoom_in', 'zoom_out'),
)

NUM_VIDEOS = 1200
SIZE = 96
NUM_FRAMES = 40
FPS = 15
# One video in so many is for validation.
_VALIDATION_SHARE = 6
# Changes with the pictures, so that old caches are not taken for new ones.
_VERSION = 1

# In frame sides: the radius of the sprite's circle at its smallest and largest.
_RADII = (0.14, 0.34)
_SPRITE = 96  # pixels of the canvas that the sprite is painted on
_TILES = tuple(itertools.product((-1, 0, 1), repeat=2))


def video_frames(
  label: int,
  rng: np.random.Generator,
  size: int = SIZE,
  num_frames: int = NUM_FRAMES,
) -> UInt8[np.ndarray, 't h w 3']:
  """Paints the frames of one video.

  Args:
    label: The motion, an index of `CLASSES`.
    rng: Source of everything else: looks, start, speed.
    size: Height and width, in pixels.
    num_frames: Length of the video.

  Returns:
    RGB frames.
  """
  background, hue = _background(rng, size)
  sprite = _sprite(rng, hue)
  place = rng.random(2)  # x, y in frame sides
  angle, growth = rng.random(2)  # in turns; in parts of the way to full size
  speed = rng.uniform(0.7, 1.3)
  jitter = rng.uniform(-0.02, 0.02)  # turns
  steps = np.arange(num_frames) / NUM_FRAMES * speed
  places = np.repeat(place[None], num_frames, 0)
  angles = np.full(num_frames, angle)
  growths = np.full(num_frames, growth)
  kind = CLASSES[label]
  if label < len(_DIRECTIONS):
    heading = 2 * np.pi * (label / len(_DIRECTIONS) + jitter)
    # Rows count downwards.
    course = np.array([np.cos(heading), -np.sin(heading)])
    places = places + 0.9 * steps[:, None] * course
  elif kind.startswith('turn'):
    angles = angles + (steps if kind == 'turn_clockwise' else -steps)
  else:
    growths = growths + 0.9 * (steps if kind == 'zoom_in' else -steps)
  radii = _RADII[0] * (_RADII[1] / _RADII[0]) ** (growths % 1)
  return np.stack(
    [
      _compose(background, sprite, *state)
      for state in zip(places % 1, angles, radii, strict=True)
    ]
  )


def _compose(
  background: Float[np.ndarray, 'h w 3'],
  sprite: Float[np.ndarray, 's s 4'],
  place: Float[np.ndarray, '2'],
  angle: float,
  radius: float,
) -> UInt8[np.ndarray, 'h w 3']:
  """Puts the sprite on the background, through all edges of the frame."""
  size = background.shape[0]
  zoom = 2 * radius * size / _SPRITE
  turn = 2 * np.pi * angle
  cos, sin = zoom * np.cos(turn), zoom * np.sin(turn)
  middle = (_SPRITE - 1) / 2
  layer = np.zeros((size, size, 4), np.float32)
  for down, across in _TILES:
    x, y = place[0] + across, place[1] + down
    if not (-radius < x < 1 + radius and -radius < y < 1 + radius):
      continue
    x, y = x * size - 0.5, y * size - 0.5
    matrix = np.array(
      [
        [cos, -sin, x - middle * (cos - sin)],
        [sin, cos, y - middle * (sin + cos)],
      ]
    )
    layer += cv2.warpAffine(sprite, matrix, (size, size))
  blended = background * (1 - layer[..., 3:]) + layer[..., :3]
  return np.clip(blended + 0.5, 0, 255).astype(np.uint8)


def _smooth(
  rng: np.random.Generator, coarse: int, size: int
) -> Float[np.ndarray, 'h w']:
  """Smooth noise between 0 and 1, of `coarse` bumps along each side."""
  noise = rng.random((coarse, coarse), np.float32)
  grid = (np.arange(size, dtype=np.float32) + 0.5) / size * (coarse - 1)
  x, y = np.meshgrid(grid, grid)
  smooth = cv2.remap(
    noise, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
  )
  return np.clip(smooth, 0, 1)


def _colour(hue: float, saturation: float, value: float) -> np.ndarray:
  return 255 * np.asarray(colorsys.hsv_to_rgb(hue % 1, saturation, value))


def _background(
  rng: np.random.Generator, size: int
) -> tuple[Float[np.ndarray, 'h w 3'], float]:
  """A smooth picture of two muted colours, and their hue."""
  hue = rng.random()
  first = _colour(hue, rng.uniform(0.2, 0.5), rng.uniform(0.25, 0.45))
  second = _colour(
    hue + rng.uniform(-0.12, 0.12), rng.uniform(0.2, 0.5), rng.uniform(0.5, 0.7)
  )
  mix = _smooth(rng, int(rng.integers(4, 7)), size)[..., None]
  return (first * (1 - mix) + second * mix).astype(np.float32), hue


def _sprite(
  rng: np.random.Generator, background_hue: float
) -> Float[np.ndarray, 's s 4']:
  """A shape of two bright colours, times its opacity, which comes last."""
  ys, xs = np.mgrid[-1 : 1 : _SPRITE * 1j, -1 : 1 : _SPRITE * 1j]
  shape = _SHAPES[rng.integers(len(_SHAPES))](xs, ys, rng)
  # Outside is below 0; the edge is about two pixels soft.
  opacity = np.clip(shape * _SPRITE / 6 + 0.5, 0, 1)
  hue = background_hue + 0.5 + rng.uniform(-0.2, 0.2)
  first = _colour(hue, rng.uniform(0.6, 0.9), rng.uniform(0.85, 1))
  second = _colour(
    hue + rng.choice([-1, 1]) * rng.uniform(0.12, 0.25),
    0.9,
    rng.uniform(0.3, 0.5),
  )
  # A slope across the shape tells its angle, stripes or spots its texture.
  slope = (xs + 1) / 2
  if rng.random() < 0.5:
    detail = 0.5 + 0.5 * np.sin(rng.uniform(5, 8) * ys + 6.3 * rng.random())
  else:
    detail = _smooth(rng, 5, _SPRITE)
  mix = np.clip(1.6 * (0.6 * slope + 0.4 * detail) - 0.3, 0, 1)[..., None]
  colour = first * (1 - mix) + second * mix
  return np.concatenate(
    [colour * opacity[..., None], opacity[..., None]], -1
  ).astype(np.float32)


def _ellipse(xs, ys, rng):
  return 0.95 - np.hypot(xs, ys / rng.uniform(0.55, 0.95))


def _rectangle(xs, ys, rng):
  return np.minimum(0.72 - np.abs(xs), rng.uniform(0.4, 0.65) - np.abs(ys))


def _polygon(xs, ys, rng):
  corners = int(rng.integers(3, 6))
  turn = 2 * np.pi / corners
  around = np.mod(np.arctan2(ys, xs), turn) - turn / 2
  return 0.95 * np.cos(turn / 2) - np.hypot(xs, ys) * np.cos(around)


def _flower(xs, ys, rng):
  petals = int(rng.integers(3, 6))
  edge = 0.7 + 0.22 * np.cos(petals * np.arctan2(ys, xs))
  return edge - np.hypot(xs, ys)


_SHAPES = (_ellipse, _rectangle, _polygon, _flower)


class Videos:
  """The videos of one split, each painted and encoded when it is asked for."""

  def __init__(
    self,
    split: str,
    num_videos: int = NUM_VIDEOS,
    seed: int = 0,
    *,
    size: int = SIZE,
    num_frames: int = NUM_FRAMES,
    fps: float | int = FPS,
  ):
    validation = num_videos // _VALIDATION_SHARE
    rows = {
      'train': range(num_videos - validation),
      'validation': range(num_videos - validation, num_videos),
    }
    if split not in rows:
      raise ValueError(f'split={split!r}: choose from {sorted(rows)}')
    self._split, self._rows, self._seed = split, rows[split], seed
    self._size, self._num_frames, self._fps = size, num_frames, fps
    # Each class as often as the others, in an order without a pattern.
    labels = np.arange(len(self._rows)) % len(CLASSES)
    self._labels = np.random.default_rng(
      [seed, len(self._rows), self._rows.start]
    ).permutation(labels)

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index: int, /) -> listing.Example:
    row = self._rows[index]
    label = int(self._labels[index])
    rng = np.random.default_rng([self._seed, row])
    frames = video_frames(label, rng, self._size, self._num_frames)
    return listing.Example(
      video=encode.write_video(None, frames, self._fps),
      label=label,
      id=f'{self._split}_{row:05d}_{CLASSES[label]}',
    )


def prepare(
  cache_dir: epath.PathLike | None = None,
  num_videos: int = NUM_VIDEOS,
  seed: int = 0,
  *,
  size: int = SIZE,
  num_frames: int = NUM_FRAMES,
  fps: float | int = FPS,
  progress: bool = True,
) -> epath.Path:
  """Writes the dataset, unless it is already there.

  A run that is stopped leaves whole shards, which the next run keeps.

  Args:
    cache_dir: Where datasets are kept. By default $VIVIT_MAE_CACHE, else
      `vivit_mae` in $XDG_CACHE_HOME, else in ~/.cache.
    num_videos: Videos in both splits; a sixth is 'validation'.
    seed: Chooses the videos.
    size: Height and width, in pixels; even.
    num_frames: Length of a video.
    fps: Frames per second.
    progress: Whether to show a progress bar.

  Returns:
    The directory that `tfds.builder_from_directory` opens.

  Raises:
    ValueError: an argument is impossible; says which.
  """
  if num_videos < _VALIDATION_SHARE:
    raise ValueError(f'num_videos={num_videos}: {_VALIDATION_SHARE} or more')
  if num_frames < 1:
    raise ValueError(f'num_frames={num_frames}: must be 1 or more')
  if size < 16 or size % 2:
    raise ValueError(f'size={size}: must be even, and 16 or more')
  looks = {'size': size, 'num_frames': num_frames, 'fps': fps}
  name = (
    f'synthetic_v{_VERSION}_{num_videos}x{num_frames}x{size}x{size}_'
    f'{fps:g}fps_seed{seed}'
  )
  path = epath.Path(cache_dir or _default_cache()) / name
  if not (path / 'dataset_info.json').exists():
    writer.write_dataset(
      path,
      {
        split: Videos(split, num_videos, seed, **looks)
        for split in ('train', 'validation')
      },
      name='synthetic',
      class_names=CLASSES,
      shards={'train': 4, 'validation': 1},
      fingerprint=name,
      num_threads=os.cpu_count() or 1,
      progress=progress,
    )
  return path


def _default_cache() -> epath.Path:
  chosen = os.environ.get('VIVIT_MAE_CACHE')
  if chosen:
    return epath.Path(chosen).expanduser()
  base = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
  return epath.Path(base).expanduser() / 'vivit_mae'
