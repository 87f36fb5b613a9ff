"""The oracle's tables, masks and targets, against golden numbers."""

import math

import numpy as np
import pytest

from tests.convert import original_tables, original_targets


@pytest.fixture
def rng():
  return np.random.default_rng(0)


@pytest.mark.parametrize(
  ('length', 'width', 'total'),
  [
    (1568, 768, 245744.989567),
    (1568, 384, 122425.857873),
    (1568, 192, 60779.022005),
    (2048, 1408, 543941.739872),
  ],
)
def test_sincos_1d_sums(length, width, total):
  table = original_tables.sincos_1d(length, width)
  assert table.sum() == pytest.approx(total, abs=1e-3)


def test_sincos_1d_values():
  table = original_tables.sincos_1d(1568, 768)
  head = [0.84147096, 0.5403023, 0.8284308, 0.5600915]
  np.testing.assert_allclose(table[1, :4], head, atol=1e-7)
  np.testing.assert_allclose(
    table[1567, -2:], [0.15981568, 0.98714685], atol=1e-7
  )


def test_sincos_2d_puts_the_column_first():
  table = original_tables.sincos_2d((2, 3), 8)
  assert table.shape == (7, 8)
  np.testing.assert_array_equal(table[0], np.zeros(8))
  slow = 10000**-0.5
  place = table[1 + 1 * 3 + 2]  # h 1, w 2
  column = [math.sin(2), math.sin(2 * slow), math.cos(2), math.cos(2 * slow)]
  row = [math.sin(1), math.sin(slow), math.cos(1), math.cos(slow)]
  np.testing.assert_allclose(place, column + row, atol=1e-12)


def test_videomae_targets():
  targets = original_targets.videomae_targets(_golden_video(), 16)
  assert targets.shape == (1, 32, 1536)
  first = [-0.0040, -1.3136, -0.9640, 0.5072, -1.0369, -1.2711]
  _assert_golden(targets, first, [-1.4111, -0.5329, 1.0201], 44208.7734)


def test_videomae_raw_targets_are_pixels(rng):
  unit = rng.random((1, 3, 2, 4, 4))
  shift = original_targets.IMAGENET_MEAN[:, None, None, None]
  scale = original_targets.IMAGENET_STD[:, None, None, None]
  targets = original_targets.videomae_targets((unit - shift) / scale, 4, False)
  np.testing.assert_allclose(
    targets[0, 0], unit[0].transpose(1, 2, 3, 0).reshape(-1)
  )


def test_mae_st_targets():
  targets = original_targets.mae_st_targets(_golden_video(), 16)
  assert targets.shape == (1, 32, 768)
  first = [0.0027, -1.3113, -0.9647, 0.5137, -1.0343, -1.2718]
  _assert_golden(targets, first, [-1.4131, -0.5296, 1.0228], 22111.9311)
  strided = original_targets.mae_st_targets(_golden_video(), 16, how='stride')
  np.testing.assert_array_equal(targets[:, :28], strided[:, :28])
  assert np.abs(targets[:, 28:] - strided[:, 28:]).min() > 0
  assert original_targets.mae_st_targets(
    _golden_video(), 16, predicted=16
  ).shape == (1, 32, 1536)


def test_image_targets_are_those_of_a_clip_of_one_frame(rng):
  images = rng.standard_normal((2, 3, 8, 12))
  targets = original_targets.image_mae_targets(images, 4)
  np.testing.assert_array_equal(
    targets, original_targets.mae_st_targets(images[:, :, None], 4, 1)
  )
  patch = images[1, :, 4:, 8:].transpose(1, 2, 0).reshape(-1)
  patch = (patch - patch.mean()) / np.sqrt(patch.var(ddof=1) + 1e-6)
  np.testing.assert_allclose(targets[1, 5], patch)


def test_target_frames():
  frames = original_targets.target_frames
  assert frames(16, 8, 'linspace').tolist() == [0, 2, 4, 6, 8, 10, 12, 15]
  assert frames(16, 8, 'stride').tolist() == [0, 2, 4, 6, 8, 10, 12, 14]
  assert frames(16, 16, 'linspace').tolist() == list(range(16))
  # As torch.linspace rounds: 7 * (16 / 14) comes out below 8.
  assert frames(17, 15, 'linspace').tolist()[6:9] == [6, 7, 9]
  with pytest.raises(ValueError, match='random'):
    frames(16, 8, 'random')


def test_v2_counts_what_the_encoder_did_not_see(rng):
  targets = rng.standard_normal((1, 4, 5))
  mask = np.array([[True, False, True, False]])
  decode_mask = np.array([[False, False, True, True]])
  wrong = targets[:, :2] + [[[1.0], [100.0]]]
  loss = original_targets.videomae_v2_loss(wrong, targets, mask, decode_mask)
  assert loss == pytest.approx(1.0)
  every = targets + np.array([1.0, 100.0, 3.0, 100.0])[:, None]
  loss = original_targets.masked_loss(every, targets, mask)
  assert loss == pytest.approx(5.0)


@pytest.mark.parametrize(
  ('grid', 'counts'),
  [((8, 14, 14), (160, 784, 944, 704)), ((8, 16, 16), (208, 1024, 1232, 920))],
)
@pytest.mark.parametrize('which', range(4))
def test_counts_of_masks(grid, counts, which, rng):
  mask = original_tables.tube_mask(grid, 0.9, rng)
  decode_mask = original_tables.running_cell_mask(grid, which)
  visible, decoded = np.sum(~mask), np.sum(~decode_mask)
  counted = np.sum(mask & ~decode_mask)
  assert (visible, decoded, visible + decoded, counted) == counts
  frames = mask.reshape(8, -1)
  assert (frames == frames[0]).all()


def test_count_of_kept_tokens_rounds_down(rng):
  kept = original_tables.random_kept(1568, 0.9, rng)
  assert len(np.unique(kept)) == len(kept) == 156
  mask = original_tables.mask_without(kept[None], 1568)
  assert mask.sum() == 1412
  assert not mask[0, kept].any()


def test_running_cells():
  cells = [[1, 0, 0, 1], [0, 0, 1, 1], [0, 1, 1, 0], [1, 1, 0, 0]]
  for which in range(4):
    mask = original_tables.running_cell_mask((8, 4, 6), which)
    mask = mask.reshape(8, 2, 2, 3, 2).transpose(0, 1, 3, 2, 4)
    for frame, places in enumerate(mask.reshape(8, 6, 4)):
      expected = [cells[(which + frame) % 4]] * 6
      np.testing.assert_array_equal(places, expected)


@pytest.mark.parametrize(
  ('grid', 'which', 'ratio'),
  [((8, 3, 4), 0, 0.5), ((8, 4, 4), 4, 0.5), ((8, 4, 4), 0, 0.2)],
)
def test_running_cells_that_do_not_fit(grid, which, ratio):
  with pytest.raises(ValueError, match='running-cell'):
    original_tables.running_cell_mask(grid, which, ratio)


def _golden_video():
  return np.sin(0.37 * np.arange(3 * 16 * 32 * 32)).reshape(1, 3, 16, 32, 32)


def _assert_golden(targets, first, last, total):
  flat = targets.reshape(-1)
  np.testing.assert_allclose(flat[:6], first, atol=6e-5)
  np.testing.assert_allclose(flat[-3:], last, atol=6e-5)
  assert np.abs(flat).sum() == pytest.approx(total, rel=1e-6)
