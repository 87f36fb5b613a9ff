import io

import numpy as np
import pytest
from PIL import Image

from vivit_mae.evaluation import pictures


def clips(num_frames=6, height=32, width=48):
  rng = np.random.default_rng(0)
  shape = (num_frames, height, width, 3)
  return {
    'original': rng.integers(0, 200, shape, np.uint8),
    'a label too long for the narrow picture below it' * 3: np.full(
      shape, 7, np.uint8
    ),
  }


def contains(picture, frame):
  """Whether the frame's pixels stand somewhere in the picture, unchanged."""
  height, width = frame.shape[:2]
  windows = np.lib.stride_tricks.sliding_window_view(picture, frame.shape)
  rows, columns = np.where((windows[:, :, 0, 0, 0] == frame[0, 0]).all(-1))
  return any(
    (picture[r : r + height, c : c + width] == frame).all()
    for r, c in zip(rows, columns, strict=True)
  )


def test_film_strip_shows_frames_evenly_and_enlarged():
  rows = clips()
  strip = pictures.film_strip(rows, columns=3)
  assert strip.dtype == np.uint8
  # 32 pixels become 96; a label above; a margin to the right and below.
  assert strip.shape == (2 * (96 + 4 + 18), 3 * (3 * 48 + 4), 3)
  video = rows['original']
  for number, shown in enumerate([True, False, True, False, False, True]):
    large = video[number].repeat(3, 0).repeat(3, 1)
    assert contains(strip, large) == shown


def test_film_strip_of_few_frames_shows_each_once():
  strip = pictures.film_strip(clips(num_frames=2), columns=8)
  assert strip.shape[1] == 2 * (3 * 48 + 4)


def test_panels_move_and_suit_h264():
  rows = clips(num_frames=4, height=97, width=95)
  moving = pictures.panels(rows)
  assert moving.shape[0] == 4
  assert moving.shape[1] % 2 == moving.shape[2] % 2 == 0
  assert moving.shape[1:3] == (97 + 4 + 18 + 1, 2 * (95 + 4))
  for frame, original in zip(moving, rows['original'], strict=True):
    np.testing.assert_array_equal(frame[18 : 18 + 97, :95], original)


@pytest.mark.parametrize('width', [8, 400])
def test_labels_are_drawn(width):
  white = np.full((1, 96, width, 3), 255, np.uint8)
  strip = pictures.film_strip({'label': white})
  assert (strip[:18] < 128).any()
  assert (strip[18:] == 255).all()


def test_stack_and_png():
  top, below = np.full((4, 6, 3), 1, np.uint8), np.full((2, 6, 3), 2, np.uint8)
  stacked = pictures.stack([top, below])
  np.testing.assert_array_equal(stacked[:4], top)
  np.testing.assert_array_equal(stacked[-2:], below)
  assert (stacked[4:-2] == 255).all()
  opened = Image.open(io.BytesIO(pictures.png(stacked)))
  assert opened.format == 'PNG'
  np.testing.assert_array_equal(np.asarray(opened), stacked)
