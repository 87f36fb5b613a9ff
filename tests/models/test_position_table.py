from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vivit_mae.models import position_table, positions

GRID = (2, 3, 4)


def table(kind, grid=GRID, **fields):
  return position_table.PositionTable(kind=kind, grid=grid, width=8, **fields)


def rows(module, places) -> tuple[Any, Any]:
  variables = module.init(jax.random.key(0), None, method='rows')
  return variables, module.apply(variables, places, method='rows')


@pytest.mark.parametrize('kind', ['sincos_1d', 'learned_1d', 'separable'])
@pytest.mark.parametrize('class_row', [False, True])
def test_rows_of_some_places_are_those_of_all(kind, class_row):
  module = table(kind, class_row=class_row)
  variables, everything = rows(module, None)
  assert everything.shape == (1, 24, 8)
  places = jnp.array([[0, 5, 23], [7, 11, 12]])
  some = module.apply(variables, places, method='rows')
  np.testing.assert_array_equal(some, everything[0][places])


def test_separable_rows_are_sums():
  module = table('separable', class_row=True)
  variables, everything = rows(module, None)
  params = variables['params']
  assert {name: x.shape for name, x in params.items()} == {
    'position_space': (12, 8), 'position_time': (2, 8), 'position_class': (8,),
  }  # fmt: skip
  for t in range(2):
    for place in range(12):
      np.testing.assert_allclose(
        everything[0, 12 * t + place],
        params['position_time'][t] + params['position_space'][place],
        rtol=1e-6,
      )
  alone = module.apply(variables, method='class_position')
  np.testing.assert_array_equal(alone, params['position_class'])


def test_a_joint_table_begins_with_the_class_token():
  module = table('learned_1d', class_row=True)
  variables, everything = rows(module, None)
  params = variables['params']['position_embedding']
  assert params.shape == (25, 8)
  np.testing.assert_array_equal(everything[0], params[1:])
  alone = module.apply(variables, method='class_position')
  np.testing.assert_array_equal(alone, params[0])


def test_no_positions_are_zero():
  variables, everything = rows(table('none', class_row=True), None)
  assert not variables
  assert not everything.any()
  module = table('none', class_row=True)
  assert module.apply({}, method='class_position') is None


def test_the_fixed_table_of_images_tells_columns_then_rows():
  got = positions.sincos_2d(3, 4, 8)
  assert got.shape == (12, 8)
  # He et al.: sines and cosines of the column, then of the row.
  for row in range(3):
    for column in range(4):
      want = [
        f(place / 10000 ** (k / 2))
        for place in (column, row)
        for f in (np.sin, np.cos)
        for k in range(2)
      ]
      np.testing.assert_allclose(got[4 * row + column], want, atol=1e-6)
  with pytest.raises(ValueError, match="one frame's tokens"):
    positions.fixed((2, 3, 4), 8, kind='sincos_2d')
  with pytest.raises(ValueError, match=r'4 \| width'):
    positions.sincos_2d(3, 4, 6)
