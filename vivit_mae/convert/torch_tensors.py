"""Tensors as the pickles of torch build them: storages, and views of these.

From torch/_utils.py, the functions called `_rebuild_tensor`.
"""

import dataclasses
import math
from typing import Any

import ml_dtypes
import numpy as np
from jaxtyping import Shaped, UInt8

from vivit_mae.convert import plain_globals, restricted_pickle
from vivit_mae.convert.restricted_pickle import Global

# Types by themselves; also those of tensors whose storage is plain bytes.
_DTYPES = {
  'bfloat16': np.dtype(ml_dtypes.bfloat16),
  'bool': np.dtype('?'),
  'complex64': np.dtype('<c8'),
  'complex128': np.dtype('<c16'),
  'float16': np.dtype('<f2'),
  'float32': np.dtype('<f4'),
  'float64': np.dtype('<f8'),
  'int8': np.dtype('i1'),
  'int16': np.dtype('<i2'),
  'int32': np.dtype('<i4'),
  'int64': np.dtype('<i8'),
  'uint8': np.dtype('u1'),
  'uint16': np.dtype('<u2'),
  'uint32': np.dtype('<u4'),
  'uint64': np.dtype('<u8'),
}
_STORAGES = {
  'torch.BFloat16Storage': 'bfloat16',
  'torch.BoolStorage': 'bool',
  'torch.ByteStorage': 'uint8',
  'torch.CharStorage': 'int8',
  'torch.ComplexDoubleStorage': 'complex128',
  'torch.ComplexFloatStorage': 'complex64',
  'torch.DoubleStorage': 'float64',
  'torch.FloatStorage': 'float32',
  'torch.HalfStorage': 'float16',
  'torch.IntStorage': 'int32',
  'torch.LongStorage': 'int64',
  'torch.ShortStorage': 'int16',
  'torch.storage.UntypedStorage': 'uint8',
}
_INERT = (
  'torch.device',
  # DeepSpeed keeps its scaler as an object.
  'deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler',
  'deepspeed.runtime.fp16.loss_scaler.LossScaler',
)


@dataclasses.dataclass(frozen=True)
class StorageType:
  """What a global such as torch.FloatStorage stands for."""

  dtype: np.dtype


@dataclasses.dataclass(eq=False)
class Storage:
  """Numbers in a row, which several tensors may view.

  Attributes:
    dtype: Of the numbers.
    count: Of the numbers.
    data: The bytes; None until their place in the file is known.
  """

  dtype: np.dtype
  count: int
  data: UInt8[np.ndarray, 'n'] | None = None

  @property
  def size(self) -> int:
    """Bytes."""
    return self.count * self.dtype.itemsize

  def fill(self, data: UInt8[np.ndarray, 'n']):
    """Says where its bytes are, perhaps with others after them.

    Raises:
      ValueError: They are too few.
    """
    if self.size > len(data):
      raise ValueError(
        f'a storage of {self.size} bytes, of which the file holds {len(data)}'
      )
    self.data = data


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
  """A tensor: offset and strides count elements."""

  storage: Storage
  dtype: np.dtype
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]

  def array(self) -> Shaped[np.ndarray, '...']:
    """A view of the file's bytes."""
    if 0 in self.shape:
      return np.zeros(self.shape, self.dtype)
    size = self.dtype.itemsize
    return np.ndarray(
      self.shape,
      self.dtype,
      buffer=self.storage.data,
      offset=self.offset * size,
      strides=tuple(stride * size for stride in self.strides),
    )


def _rebuild(
  storage: Any,
  offset: Any,
  shape: Any,
  strides: Any,
  dtype: Any = None,
) -> Tensor:
  """A tensor that lies in its storage."""
  if not isinstance(storage, Storage):
    raise ValueError('a tensor without a storage')
  dtype = storage.dtype if dtype is None else dtype
  shape = plain_globals.array_shape(shape, dtype, storage.size)
  numbers = (offset, *strides)
  if not all(map(plain_globals.is_count, numbers)):
    raise ValueError('a tensor whose offset or strides are none')
  steps = ((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
  end = (offset + sum(steps) + 1) * dtype.itemsize
  if math.prod(shape) and end > storage.size:
    raise ValueError(
      f'a tensor that ends at byte {end} of a storage of {storage.size}'
    )
  return Tensor(storage, dtype, offset, shape, tuple(strides))


def _rebuild_v1(storage: Any, offset: Any, shape: Any, strides: Any) -> Tensor:
  return _rebuild(storage, offset, shape, strides)


def _rebuild_v2(
  storage: Any,
  offset: Any,
  shape: Any,
  strides: Any,
  gradients: Any,
  hooks: Any,
  metadata: Any = None,
) -> Tensor:
  del gradients, hooks
  if metadata:
    raise ValueError('a tensor that is to be conjugated or negated')
  return _rebuild(storage, offset, shape, strides)


def _rebuild_v3(
  storage: Any,
  offset: Any,
  shape: Any,
  strides: Any,
  gradients: Any,
  hooks: Any,
  dtype: Any,
  metadata: Any = None,
) -> Tensor:
  """As version 2, of a type that has no storages of its own."""
  del gradients, hooks
  if metadata:
    raise ValueError('a tensor that is to be conjugated or negated')
  own = restricted_pickle.as_a(dtype, Global).value
  own = restricted_pickle.as_a(own, np.dtype)
  return _rebuild(storage, offset, shape, strides, own)


def _globals() -> dict[str, Global]:
  builds = {
    'torch._utils._rebuild_tensor': _rebuild_v1,
    'torch._utils._rebuild_tensor_v2': _rebuild_v2,
    'torch._utils._rebuild_tensor_v3': _rebuild_v3,
    'torch._utils._rebuild_parameter': lambda tensor, *_: tensor,
    'torch._utils._rebuild_parameter_with_state': lambda tensor, *_: tensor,
    'torch.Size': lambda sizes=(): tuple(sizes),
  }
  made = {name: Global(name, build) for name, build in builds.items()}
  types: dict[str, Any] = {f'torch.{name}': _DTYPES[name] for name in _DTYPES}
  for name, dtype in _STORAGES.items():
    types[name] = StorageType(_DTYPES[dtype])
  made |= {name: Global(name, None, value) for name, value in types.items()}
  return plain_globals.GLOBALS | made | restricted_pickle.inert(_INERT)


GLOBALS = _globals()
