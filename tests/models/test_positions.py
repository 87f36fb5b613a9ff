import numpy as np
import pytest

from vivit_mae.models import positions


@pytest.mark.parametrize(
  ('length', 'width', 'total'),
  [
    (1568, 768, 245744.989567),
    (1568, 384, 122425.857873),
    (1568, 192, 60779.022005),
    (2048, 1408, 543941.739872),
  ],
)
def test_golden_sums(length, width, total):
  # reference: videomae.md 2.1
  table = positions.sincos_1d(length, width)
  assert table.dtype == np.float32
  assert table.shape == (length, width)
  np.testing.assert_allclose(table.astype(np.float64).sum(), total, atol=1e-5)


def test_golden_entries():
  table = positions.sincos_1d(1568, 768)
  np.testing.assert_allclose(
    table[1, :4], [0.84147096, 0.5403023, 0.8284308, 0.5600915], atol=1e-7
  )
  np.testing.assert_allclose(
    table[1567, -2:], [0.15981568, 0.98714685], atol=1e-7
  )


def test_more_tokens_only_append_rows():
  np.testing.assert_array_equal(
    positions.sincos_1d(20, 12)[:10], positions.sincos_1d(10, 12)
  )


def test_the_shared_table_cannot_be_written():
  with pytest.raises(ValueError, match='read-only'):
    positions.sincos_1d(4, 6)[0, 0] = 1.0


def test_linear_resizing_keeps_both_ends():
  # reference: scenic.md 1.3, scipy's zoom of order 1
  table = np.arange(2.0)[:, None]
  resized = positions.resize(table, (1, 1, 2), (1, 1, 3))
  np.testing.assert_allclose(resized[:, 0], [0, 0.5, 1])
  table = np.arange(4.0)[:, None]
  resized = positions.resize(table, (4, 1, 1), (6, 1, 1))
  np.testing.assert_allclose(resized[:, 0], [0, 0.6, 1.2, 1.8, 2.4, 3])
  one = positions.resize(table, (4, 1, 1), (1, 1, 1))
  np.testing.assert_allclose(one, [[1.5]])
  many = positions.resize(one, (1, 1, 1), (3, 1, 1))
  np.testing.assert_allclose(many, [[1.5]] * 3)


def test_bicubic_resizing_is_that_of_torch():
  # torch.nn.functional.interpolate([0, 1, 4, 9], mode='bicubic'), to 6 and 2
  table = np.array([0.0, 1.0, 4.0, 9.0])[:, None]
  for size, expected in (
    (6, [-0.0868, 0.2188, 1.4306, 3.1528, 6.7812, 9.4340]),
    (2, [0.2188, 6.7812]),
  ):
    resized = positions.resize(table, (1, 1, 4), (1, 1, size), method='bicubic')
    np.testing.assert_allclose(resized[:, 0], expected, atol=1e-4)


@pytest.mark.parametrize('method', ['linear', 'bicubic'])
def test_resizing_is_separable_and_leaves_class_rows(method):
  axes = [np.array([1.0, 3.0]), np.array([2.0, 5.0, 4.0]), np.array([7.0, 1.0])]
  table = np.einsum('t,h,w->thw', *axes).reshape(-1, 1)
  table = np.concatenate([[[9.0]], table]).astype(np.float32)
  resized = positions.resize(table, (2, 3, 2), (4, 2, 3), method=method)
  assert resized.dtype == np.float32
  assert resized[0] == 9
  parts = [
    positions.resize(
      axis[:, None], (len(axis), 1, 1), (size, 1, 1), method=method
    )[:, 0]
    for axis, size in zip(axes, (4, 2, 3), strict=True)
  ]
  expected = np.einsum('t,h,w->thw', *parts).ravel()
  np.testing.assert_allclose(resized[1:, 0], expected, rtol=1e-5)
  np.testing.assert_array_equal(
    positions.resize(table, (2, 3, 2), (2, 3, 2), method=method), table
  )


def test_tiling_repeats_frames():
  table = np.arange(5.0)[:, None]
  tiled = positions.tile(table, (1, 2, 2), (3, 2, 2))
  np.testing.assert_array_equal(tiled[:, 0], [0, *([1, 2, 3, 4] * 3)])


def test_a_fixed_table_of_another_grid():
  same = positions.fixed((2, 3, 4), 8)
  np.testing.assert_array_equal(same, positions.sincos_1d(24, 8))
  other = positions.fixed((4, 3, 4), 8, (2, 3, 4))
  assert other.shape == (48, 8)
  np.testing.assert_allclose(other[:12], same[:12], atol=1e-7)
  np.testing.assert_allclose(other[-12:], same[-12:], atol=1e-7)
  with_class = positions.fixed((2, 3, 4), 8, None, 1)
  np.testing.assert_array_equal(with_class, positions.sincos_1d(25, 8))


def test_impossible_resizing_is_refused():
  table = np.zeros((6, 2))
  with pytest.raises(ValueError, match=r'6 rows is too short .*\(2, 2, 2\)'):
    positions.resize(table, (2, 2, 2), (4, 2, 2))
  with pytest.raises(ValueError, match=r"'nearest' is unknown.*'bicubic'"):
    positions.resize(table, (1, 2, 3), (1, 2, 3), method='nearest')
  for wanted in ((3, 1, 3), (2, 2, 3)):
    with pytest.raises(ValueError, match='Resize it first'):
      positions.tile(table, (2, 1, 3), wanted)
