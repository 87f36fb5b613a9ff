"""Crops follow the published rules; resizing equals PIL's and OpenCV's."""

import cv2
import numpy as np
import pytest
from PIL import Image

from vivit_mae.data import transforms


def _boxes(draw, count=4000):
  rng = np.random.default_rng(0)
  return {draw(rng) for _ in range(count)}


def test_multi_scale_crop_draws_all_its_crops_and_no_others():
  # The sides of 256 rows: 256, 224, 192, 168.
  height, width = 256, 340
  boxes = _boxes(
    lambda rng: transforms.multi_scale_crop(height, width, (224, 224), rng),
    count=8000,
  )
  sides = [256, 224, 192, 168]
  expected = set()
  for i, h in enumerate(sides):
    for j, w in enumerate(sides):
      if abs(i - j) > 1:
        continue
      down, across = (height - h) // 4, (width - w) // 4
      for x, y in (
        *((0, 0), (4, 0), (0, 4), (4, 4), (2, 2), (0, 2), (4, 2)),
        *((2, 4), (2, 0), (1, 1), (3, 1), (1, 3), (3, 3)),
      ):
        expected.add(transforms.Box(y * down, x * across, h, w))
  assert boxes == expected


def test_multi_scale_crop_snaps_to_the_target():
  # .875 of 258 is 225, one off 224; .75 of it is 193.
  boxes = _boxes(
    lambda rng: transforms.multi_scale_crop(258, 400, (224, 224), rng)
  )
  assert {box.height for box in boxes} == {258, 224, 193, 170}


def test_multi_scale_crop_never_leaves_small_frames():
  for height, width in ((1, 1), (30, 40), (222, 222), (223, 500)):
    for box in _boxes(
      lambda rng, h=height, w=width: transforms.multi_scale_crop(
        h, w, (224, 224), rng
      ),
      count=500,
    ):
      assert 0 <= box.top <= box.top + box.height <= height
      assert 0 <= box.left <= box.left + box.width <= width


def test_random_resized_crop_obeys_area_and_shape():
  rng = np.random.default_rng(0)
  shapes = []
  for _ in range(2000):
    box = transforms.random_resized_crop(240, 320, rng, (0.5, 1), (0.75, 4 / 3))
    assert 0 <= box.top <= box.top + box.height <= 240
    assert 0 <= box.left <= box.left + box.width <= 320
    area = box.height * box.width / (240 * 320)
    assert 0.49 < area <= 1
    shapes.append(box.width / box.height)
  assert min(shapes) > 0.74
  assert max(shapes) < 1.35


def test_random_resized_crop_falls_back_to_the_centre():
  rng = np.random.default_rng(0)
  box = transforms.random_resized_crop(100, 1000, rng, (0.9, 1), (0.75, 4 / 3))
  assert box == transforms.Box(0, 433, 100, 133)
  box = transforms.random_resized_crop(1000, 100, rng, (0.9, 1), (0.75, 4 / 3))
  assert box == transforms.Box(433, 0, 133, 100)


@pytest.mark.parametrize(
  ('frame', 'size', 'short_side', 'expected'),
  [
    ((256, 340), (224, 224), None, (0, 42, 256, 256)),
    ((256, 340), (224, 224), 256, (16, 58, 224, 224)),
    ((480, 360), (112, 112), 128, (82, 22, 315, 315)),
    ((100, 100), (32, 64), None, (25, 0, 50, 100)),
    ((5, 5), (224, 224), None, (0, 0, 5, 5)),
  ],
)
def test_center_crop(frame, size, short_side, expected):
  assert (
    transforms.center_crop(frame[0], frame[1], size, short_side) == expected
  )


def test_center_crop_refuses_a_short_side_without_room():
  with pytest.raises(ValueError, match=r'short_side=100 .* use 224 or more'):
    transforms.center_crop(256, 340, (224, 224), 100)


def test_flips_are_drawn_as_often_as_asked():
  rng = np.random.default_rng(0)
  flips = [transforms.draw_flip(rng, 0.25) for _ in range(4000)]
  assert abs(np.mean(flips) - 0.25) < 0.03
  assert not any(transforms.draw_flip(rng, 0) for _ in range(50))
  assert all(transforms.draw_flip(rng, 1) for _ in range(50))


def _frame(height=90, width=120):
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize('size', [(32, 48), (90, 120), (200, 131)])
@pytest.mark.parametrize('box', [None, transforms.Box(7, 11, 60, 70)])
def test_resizing_equals_pil_and_opencv(size, box):
  frame = _frame()
  cut = frame if box is None else frame[7:67, 11:81]
  pil = Image.fromarray(cut).resize(size[::-1], Image.Resampling.BILINEAR)
  shrinks = size[0] < cut.shape[0] or size[1] < cut.shape[1]
  np.testing.assert_allclose(
    transforms.crop_and_resize(frame, box, size).astype(int),
    np.asarray(pil).astype(int),
    atol=0 if shrinks else 1,  # PIL rounds between the two directions
  )
  # To less than half is a matter of averaging in any case.
  halved = min(cut.shape[0] / size[0], cut.shape[1] / size[1]) >= 1 and (
    2 * size[0] < cut.shape[0] or 2 * size[1] < cut.shape[1]
  )
  rule = cv2.INTER_AREA if halved else cv2.INTER_LINEAR
  np.testing.assert_array_equal(
    transforms.crop_and_resize(frame, box, size, antialias=False),
    cv2.resize(np.ascontiguousarray(cut), size[::-1], interpolation=rule),
  )


@pytest.mark.parametrize('antialias', [True, False])
def test_fine_patterns_of_large_frames_become_grey(antialias):
  frame = np.zeros((720, 1280, 3), np.uint8)
  frame[::2] = 255  # every other row is white
  box = transforms.Box(8, 100, 704, 704)
  small = transforms.crop_and_resize(
    frame, box, (200, 200), antialias=antialias
  )
  assert small.min() > 90
  assert small.max() < 165


def test_resizing_without_antialias_is_plain_interpolation():
  """Half-pixel centres, as torch's align_corners=False, to rounding."""
  frame = _frame(9, 12)
  height, width = 5, 7
  ys = np.clip((np.arange(height) + 0.5) * 9 / height - 0.5, 0, 8)
  xs = np.clip((np.arange(width) + 0.5) * 12 / width - 0.5, 0, 11)
  top, left = np.floor(ys).astype(int), np.floor(xs).astype(int)
  down, right = np.minimum(top + 1, 8), np.minimum(left + 1, 11)
  v, u = (ys - top)[:, None, None], (xs - left)[None, :, None]
  pixels = frame.astype(float)
  expected = (
    pixels[top][:, left] * (1 - v) * (1 - u)
    + pixels[top][:, right] * (1 - v) * u
    + pixels[down][:, left] * v * (1 - u)
    + pixels[down][:, right] * v * u
  )
  resized = transforms.crop_and_resize(
    frame, None, (height, width), antialias=False
  )
  assert np.abs(resized - expected).max() <= 1


def test_flipping_mirrors_left_to_right():
  frame = _frame()
  plain = transforms.crop_and_resize(frame, None, (32, 48))
  flipped = transforms.crop_and_resize(frame, None, (32, 48), flip=True)
  np.testing.assert_array_equal(flipped[:, ::-1], plain)


@pytest.mark.parametrize(
  'box', [(-1, 0, 5, 5), (0, 0, 91, 5), (0, 118, 5, 3), (0, 0, 0, 5)]
)
def test_boxes_outside_the_frame_are_refused(box):
  with pytest.raises(ValueError, match='does not lie in a frame of 90 rows'):
    transforms.crop_and_resize(_frame(), transforms.Box(*box), (8, 8))


def test_spread_crops_lie_along_the_longer_side():
  wide = [
    transforms.spread_crop(256, 340, (224, 224), view, 3) for view in range(3)
  ]
  assert wide == [(0, 0, 256, 256), (0, 42, 256, 256), (0, 84, 256, 256)]
  tall = [
    transforms.spread_crop(341, 256, (224, 224), view, 3) for view in range(3)
  ]
  assert tall == [(0, 0, 256, 256), (42, 0, 256, 256), (85, 0, 256, 256)]
  for height, width in ((256, 340), (90, 40), (50, 50)):
    (one,) = {transforms.spread_crop(height, width, (20, 30), 0, 1)}
    assert one == transforms.center_crop(height, width, (20, 30))


def test_spread_crops_of_a_short_side():
  """Resized to 256 rows, a crop of 224 leaves 16 above and below."""
  boxes = [
    transforms.spread_crop(512, 680, (224, 224), view, 2, short_side=256)
    for view in range(2)
  ]
  assert boxes == [(32, 0, 448, 448), (32, 232, 448, 448)]


def test_jittered_crops_scale_both_sides_freely():
  rng = np.random.default_rng(0)
  boxes = np.array(
    [
      transforms.jittered_crop(512, 680, (224, 224), rng, 256)
      for _ in range(4000)
    ]
  )
  tops, lefts, heights, widths = boxes.T
  for sides in (heights, widths):
    factors = 448 / sides
    assert 0.895 < factors.min() < 0.92
    assert 1.31 < factors.max() < 1.335
    assert abs(factors.mean() - 1.115) < 0.01
  assert abs(np.corrcoef(heights, widths)[0, 1]) < 0.05
  assert tops.min() == lefts.min() == 0
  assert (tops + heights).max() == 512
  assert (lefts + widths).max() == 680


def test_jittered_crops_never_leave_the_frame():
  for height, width in ((1, 1), (30, 90), (224, 224)):
    for box in _boxes(
      lambda rng, h=height, w=width: transforms.jittered_crop(
        h, w, (224, 224), rng, jitter=(0.5, 2.0)
      ),
      count=500,
    ):
      assert 0 <= box.top <= box.top + box.height <= height
      assert 0 <= box.left <= box.left + box.width <= width
