"""RandAugment draws what it says, and changes frames as Pillow does."""

import collections

import cv2
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from vivit_mae.data import augment, synthetic
from vivit_mae.data.augment import RandAugment

_VIDEOMAE = 'rand-m7-n4-mstd0.5-inc1'


@pytest.fixture(scope='module')
def clip():
  """Four frames that are neither square nor grey, with all values."""
  rng = np.random.default_rng(0)
  frames = synthetic.video_frames(3, rng, size=96, num_frames=4)[:, :72]
  coarse = rng.integers(0, 60, (4, 24, 32, 3), np.uint8)
  frames = frames // 2 + coarse.repeat(3, 1).repeat(3, 2)
  frames[0, :16, :16] = np.arange(256).reshape(16, 16, 1)
  frames[1] = frames[1] // 2 + 30  # has room for more contrast
  return frames


@pytest.mark.parametrize(
  ('text', 'policy'),
  [
    (_VIDEOMAE, RandAugment(4, 7.0, 0.5)),
    ('rand-m7-mstd0.5-inc1', RandAugment(2, 7.0, 0.5)),
    ('rand-inc1', RandAugment(2, 10.0, 0.0)),
    ('rand-inc1-n3-m2.5', RandAugment(3, 2.5, 0.0)),
  ],
)
def test_parse(text, policy):
  assert RandAugment.parse(text) == policy


@pytest.mark.parametrize(
  ('text', 'what'),
  [
    ('augmix-m5-inc1', "'augmix'"),
    ('rand-m7-n4', 'lacks -inc1'),
    ('rand-m7-inc0', 'lacks -inc1'),
    ('rand-m7-w0-inc1', "'w0'"),
    ('rand-m7-m8-inc1', "'m8'"),
    ('rand-m11-inc1', 'a magnitude above 10'),
    ('rand-n1.5-inc1', 'asks for 1.5 operations'),
    ('', "''"),
  ],
)
def test_parse_names_what_it_does_not_know(text, what):
  with pytest.raises(ValueError, match=rf'{what}.*rand-m7-n4-mstd0.5-inc1'):
    RandAugment.parse(text)


def test_parse_knows_the_interpolations():
  policy = RandAugment.parse(_VIDEOMAE, 'bilinear')
  assert policy.interpolation == 'bilinear'
  with pytest.raises(ValueError, match="known are 'bicubic', 'bilinear'"):
    RandAugment.parse(_VIDEOMAE, 'cubic')


def _levels(magnitude, std=0.0, count=3000):
  policy = RandAugment(4, magnitude, std)
  rng = np.random.default_rng(1)
  levels = collections.defaultdict(list)
  for _ in range(count):
    for name, level in policy.draw(rng):
      levels[name].append(level)
  return levels


def test_all_operations_are_drawn_alike():
  levels = _levels(7.0)
  assert set(levels) == set(augment.OPERATIONS)
  assert len(levels) == 15
  counts = np.array([len(values) for values in levels.values()])
  # 3000 clips, 4 draws, half of them carried out.
  assert abs(counts.sum() - 6000) < 200
  assert np.all(np.abs(counts - 400) < 80)


@pytest.mark.parametrize(
  ('name', 'at_seven', 'at_ten'),
  [
    ('AutoContrast', {0}, {0}),
    ('Equalize', {0}, {0}),
    ('Invert', {0}, {0}),
    ('Rotate', {-21, 21}, {-30, 30}),
    ('PosterizeIncreasing', {2}, {0}),
    ('SolarizeIncreasing', {77}, {0}),
    ('SolarizeAdd', {77}, {110}),
    ('ColorIncreasing', {0.37, 1.63}, {0.1, 1.9}),
    ('ContrastIncreasing', {0.37, 1.63}, {0.1, 1.9}),
    ('BrightnessIncreasing', {0.37, 1.63}, {0.1, 1.9}),
    ('SharpnessIncreasing', {0.37, 1.63}, {0.1, 1.9}),
    ('ShearX', {-0.21, 0.21}, {-0.3, 0.3}),
    ('ShearY', {-0.21, 0.21}, {-0.3, 0.3}),
    ('TranslateXRel', {-0.315, 0.315}, {-0.45, 0.45}),
    ('TranslateYRel', {-0.315, 0.315}, {-0.45, 0.45}),
  ],
)
def test_levels(name, at_seven, at_ten):
  for magnitude, expected in ((7.0, at_seven), (10.0, at_ten)):
    levels = np.unique(_levels(magnitude, count=400)[name])
    np.testing.assert_allclose(levels, sorted(expected), rtol=1e-12)


def test_magnitudes_are_normal_and_end_at_ten():
  degrees = np.abs(_levels(7.0, 0.5)['Rotate']) / 3
  assert abs(degrees.mean() - 7) < 0.1
  assert abs(degrees.std() - 0.5) < 0.08
  degrees = np.abs(_levels(9.5, 2.0)['Rotate']) / 3
  assert degrees.max() == 10
  assert 0.3 < np.mean(degrees == 10) < 0.5


def _enhance(kind):
  return lambda image, level: kind(image).enhance(level)


def _affine(*of):
  """Pillow's affine transform; `of` gives its numbers from level and size."""
  (numbers,) = of

  def change(image, level):
    return image.transform(
      image.size,
      Image.Transform.AFFINE,
      numbers(level, *image.size),
      resample=Image.Resampling.BICUBIC,
      fillcolor=(128, 128, 128),
    )

  return change


def _solarize_add(image, level):
  table = [min(255, i + int(level)) if i < 128 else i for i in range(256)]
  return image.point(table * 3)


# name -> (level, the same by Pillow, greatest and mean difference)
_PILLOW = {
  'AutoContrast': (0, lambda i, _: ImageOps.autocontrast(i), 0, 0),
  'Equalize': (0, lambda i, _: ImageOps.equalize(i), 0, 0),
  'Invert': (0, lambda i, _: ImageOps.invert(i), 0, 0),
  'Rotate': (
    21.0,
    lambda image, level: image.rotate(
      level,
      resample=Image.Resampling.BICUBIC,
      fillcolor=(128, 128, 128),
    ),
    90,
    1.5,
  ),
  'PosterizeIncreasing': (2, ImageOps.posterize, 0, 0),
  'SolarizeIncreasing': (77, ImageOps.solarize, 0, 0),
  'SolarizeAdd': (77, _solarize_add, 0, 0),
  'ColorIncreasing': (1.63, _enhance(ImageEnhance.Color), 2, 1),
  'ContrastIncreasing': (1.63, _enhance(ImageEnhance.Contrast), 0, 0),
  'BrightnessIncreasing': (1.63, _enhance(ImageEnhance.Brightness), 0, 0),
  'SharpnessIncreasing': (1.63, _enhance(ImageEnhance.Sharpness), 2, 1),
  'ShearX': (0.21, _affine(lambda v, w, h: (1, v, 0, 0, 1, 0)), 90, 1.5),
  'ShearY': (0.21, _affine(lambda v, w, h: (1, 0, 0, v, 1, 0)), 90, 1.5),
  'TranslateXRel': (
    0.315,
    _affine(lambda v, w, h: (1, 0, v * w, 0, 1, 0)),
    90,
    1.5,
  ),
  'TranslateYRel': (
    0.315,
    _affine(lambda v, w, h: (1, 0, 0, 0, 1, v * h)),
    90,
    1.5,
  ),
}


def _opposite(name, level):
  if name.startswith(('Rotate', 'Shear', 'Translate')):
    return -level
  return 2 - level if isinstance(level, float) else level


@pytest.mark.parametrize('turned', [False, True])
@pytest.mark.parametrize('name', augment.OPERATIONS)
def test_operations_are_those_of_pillow(clip, name, turned):
  level, by_pillow, greatest, mean = _PILLOW[name]
  level = _opposite(name, level) if turned else level
  before = clip.copy()
  ours = augment.apply(clip, name, level)
  np.testing.assert_array_equal(clip, before)
  assert ours.shape == clip.shape
  assert ours.dtype == np.uint8
  theirs = np.stack(
    [np.asarray(by_pillow(Image.fromarray(frame), level)) for frame in clip]
  )
  difference = np.abs(ours.astype(int) - theirs)
  assert difference.max() <= greatest
  assert difference.mean() <= mean
  assert np.abs(theirs.astype(int) - clip).mean() > 2 * mean


def test_even_pictures_stay_whole():
  black = np.zeros((2, 8, 8, 3), np.uint8)
  for name in ('AutoContrast', 'Equalize'):
    np.testing.assert_array_equal(augment.apply(black, name, 0), black)


def test_outside_is_grey(clip):
  moved = augment.apply(clip, 'TranslateXRel', 0.5)
  assert (moved[:, :, -40:] == 128).all()
  np.testing.assert_array_equal(moved[:, :, :40], clip[:, :, 48:88])


def test_all_frames_are_changed_alike(clip):
  still = np.repeat(clip[:1], 3, axis=0)
  rng = np.random.default_rng(0)
  policy = RandAugment.parse(_VIDEOMAE)
  changed = [augment.rand_augment(still, policy, rng) for _ in range(40)]
  for frames in changed:
    np.testing.assert_array_equal(frames, frames[:1].repeat(3, 0))
  assert len({frames.tobytes() for frames in changed}) > 30


def test_draws_come_from_the_generator_alone(clip):
  policy = RandAugment.parse(_VIDEOMAE)
  one, same, other = (
    augment.rand_augment(clip, policy, np.random.default_rng(seed))
    for seed in (5, 5, 6)
  )
  np.testing.assert_array_equal(one, same)
  assert (one != other).any()


def test_views_of_other_arrays_are_understood(clip):
  mirrored = clip[:, :, ::-1]
  for name in augment.OPERATIONS:
    np.testing.assert_array_equal(
      augment.apply(mirrored, name, 1.0),
      augment.apply(mirrored.copy(), name, 1.0),
    )


def test_threads_are_not_ours():
  """Workers set the number of OpenCV's threads; nothing here changes it."""
  before = cv2.getNumThreads()
  augment.apply(np.zeros((1, 8, 8, 3), np.uint8), 'Rotate', 3.0)
  assert cv2.getNumThreads() == before
