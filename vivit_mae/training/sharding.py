"""The mesh, which array lies where, and batches onto devices."""

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vivit_mae import preprocess

# A batch is split over all devices; `fsdp` differs from `data` in that its
# devices hold one copy of the parameters between them.
BATCH = PartitionSpec(('data', 'fsdp'))


def make_mesh(data: int = -1, fsdp: int = 1) -> Mesh:
  """A mesh of all devices with the axes `data` and `fsdp`.

  Args:
    data: Devices along the axis, -1 for all that `fsdp` leaves.
    fsdp: Devices that share the parameters, -1 for all that `data` leaves.

  Raises:
    ValueError: The product is not the number of devices.
  """
  devices = jax.device_count()
  shape = [data, fsdp]
  if shape.count(-1) == 1:
    known = -math.prod(shape)
    if known > 0:
      shape[shape.index(-1)] = devices // known
  if min(shape) < 1 or math.prod(shape) != devices:
    raise ValueError(
      f'config.mesh: data={data} x fsdp={fsdp} does not make the {devices} '
      'devices there are; set one of the two to -1'
    )
  return jax.make_mesh(
    tuple(shape), ('data', 'fsdp'), axis_types=(AxisType.Auto,) * 2
  )


def replicated(mesh: Mesh) -> NamedSharding:
  """The whole array on every device."""
  return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """The rows of a batch split over all devices."""
  return NamedSharding(mesh, BATCH)


def shardings(tree: Any, mesh: Mesh, min_bytes: int) -> Any:
  """The sharding of every leaf of a tree of arrays or their shapes.

  A leaf is split over `fsdp` along its largest axis that divides evenly, or
  replicated if it is smaller than `min_bytes` or has no such axis.
  """
  size = mesh.shape['fsdp']

  def rule(leaf: Any) -> NamedSharding:
    large = math.prod(leaf.shape) * leaf.dtype.itemsize >= min_bytes
    axes = [i for i, n in enumerate(leaf.shape) if n % size == 0]
    if size == 1 or not large or not axes:
      return replicated(mesh)
    axis = max(axes, key=lambda i: leaf.shape[i])
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, 'fsdp'))

  return jax.tree.map(rule, tree)


def check_rows(rows: int, accum_steps: int, mesh: Mesh) -> None:
  """Checks that the rows of an update divide over devices and microbatches.

  Raises:
    ValueError: They don't; says what would.
  """
  devices = mesh.size
  if rows % (devices * accum_steps):
    raise ValueError(
      f'a batch of {rows} clips (batch_size x data.repeats) does not divide '
      f'over {devices} devices x {accum_steps} accumulation steps; make '
      f'config.batch_size a multiple of {devices * accum_steps}, or use fewer '
      'devices'
    )


def put_batch(
  batch: Mapping[str, Any], sharding: NamedSharding
) -> dict[str, Any]:
  """Puts this process's rows onto its devices as one global batch.

  Planar pixels, which come with `to_rgb`, become RGB there.
  """
  placed = jax.tree.map(
    lambda rows: jax.make_array_from_process_local_data(sharding, rows),
    dict(batch),
  )
  if 'to_rgb' in placed:
    placed['video'] = _rgb_of_planes(sharding)(
      placed['video'], placed.pop('to_rgb')
    )
  return placed


@functools.cache
def _rgb_of_planes(sharding: NamedSharding) -> Any:
  return jax.jit(preprocess.rgb_of_planes, out_shardings=sharding)
