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
