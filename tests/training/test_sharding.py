import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from vivit_mae.training import sharding


def test_mesh_fills_the_devices():
  assert dict(sharding.make_mesh().shape) == {'data': 8, 'fsdp': 1}
  assert dict(sharding.make_mesh(-1, 4).shape) == {'data': 2, 'fsdp': 4}
  assert dict(sharding.make_mesh(2, -1).shape) == {'data': 2, 'fsdp': 4}


@pytest.mark.parametrize(
  ('data', 'fsdp'), [(3, 1), (-1, 3), (-1, -1), (0, -1), (2, 2)]
)
def test_an_impossible_mesh_is_an_error(data, fsdp):
  with pytest.raises(ValueError, match=r'config\.mesh: .* 8 devices'):
    sharding.make_mesh(data, fsdp)


def test_rule_splits_the_largest_divisible_axis():
  tree = {
    'split': jnp.zeros((4, 12, 10)),
    'odd': jnp.zeros((5, 7, 9)),
    'small': jnp.zeros((4,)),
    'scalar': jnp.zeros((), jnp.int32),
  }
  placed = sharding.shardings(tree, sharding.make_mesh(-1, 4), 64)
  assert placed['split'].spec == PartitionSpec(None, 'fsdp')
  for name in ('odd', 'small', 'scalar'):
    assert placed[name].spec == PartitionSpec()
  placed = sharding.shardings(tree, sharding.make_mesh(), 0)
  assert all(s.spec == PartitionSpec() for s in placed.values())


def test_rows_must_divide():
  mesh = sharding.make_mesh()
  sharding.check_rows(16, 2, mesh)
  with pytest.raises(ValueError, match=r'batch of 12 clips .* multiple of 8'):
    sharding.check_rows(12, 1, mesh)


def test_a_batch_is_split_over_all_devices():
  mesh = sharding.make_mesh(2, 4)
  rows = np.arange(16).reshape(16, 1)
  batch = sharding.put_batch({'x': rows}, sharding.batch_sharding(mesh))
  np.testing.assert_array_equal(batch['x'], rows)
  assert {s.data.shape for s in batch['x'].addressable_shards} == {(2, 1)}
  assert len(batch['x'].sharding.device_set) == jax.device_count()
