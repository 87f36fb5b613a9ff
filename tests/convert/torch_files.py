"""Writes files as `torch.save` does, without torch.

From the formats of torch/serialization.py: a zip archive with `data.pkl` and
storages beside it, or pickles and then the storages. numpy arrays stand for
tensors; `Call`, `Global` and `Opcodes` write what a state dict should not hold.
"""

import dataclasses
import pathlib
import struct
import zipfile
from typing import Any

import ml_dtypes
import numpy as np

_STORAGES = {
  np.dtype(ml_dtypes.bfloat16): 'BFloat16Storage',
  np.dtype(np.float16): 'HalfStorage',
  np.dtype(np.float32): 'FloatStorage',
  np.dtype(np.float64): 'DoubleStorage',
  np.dtype(np.int64): 'LongStorage',
  np.dtype(np.uint8): 'ByteStorage',
  np.dtype(np.bool_): 'BoolStorage',
}
_MAGIC = 0x1950A86A20F9469CFC6C


@dataclasses.dataclass(frozen=True)
class Global:
  """A class or function: 'posix system'."""

  name: str


@dataclasses.dataclass(frozen=True)
class Call:
  """A call of a global, and the state that its result is given."""

  name: str
  arguments: tuple[Any, ...] = ()
  state: Any = None


@dataclasses.dataclass(frozen=True)
class Opcodes:
  """Raw opcodes that leave an object on the stack."""

  code: bytes


@dataclasses.dataclass(frozen=True, eq=False)
class View:
  """A tensor that says of itself what it likes; counts are of elements."""

  storage: np.ndarray
  offset: Any
  shape: Any
  strides: Any
  claimed: int | None = None


class _Pickler:
  """Protocol 2, of few types, and the storages that were met on the way."""

  def __init__(self, is_zip: bool):
    self._is_zip = is_zip
    self._keys: dict[int, str] = {}
    self.storages: dict[str, np.ndarray] = {}

  def dumps(self, value: Any) -> bytes:
    return b'\x80\x02' + self._code(value) + b'.'

  def _code(self, value: Any) -> bytes:
    match value:
      case None:
        return b'N'
      case bool():
        return b'\x88' if value else b'\x89'
      case int():
        size = value.bit_length() // 8 + 1
        data = value.to_bytes(size, 'little', signed=True)
        return b'\x8a' + bytes([size]) + data
      case float():
        return b'G' + struct.pack('>d', value)
      case str():
        data = value.encode()
        return b'X' + struct.pack('<I', len(data)) + data
      case list():
        return b'](' + b''.join(map(self._code, value)) + b'e'
      case tuple():
        return b'(' + b''.join(map(self._code, value)) + b't'
      case dict():
        items = (self._code(k) + self._code(v) for k, v in value.items())
        return b'}(' + b''.join(items) + b'u'
      case Global():
        module, name = value.name.rsplit(' ', 1)
        return f'c{module}\n{name}\n'.encode()
      case Call():
        code = self._code(Global(value.name)) + self._code(value.arguments)
        state = value.state and self._code(value.state) + b'b'
        return code + b'R' + (state or b'')
      case Opcodes():
        return value.code
      case View():
        return self._tensor(value)
      case np.ndarray():
        base = value
        while isinstance(base.base, np.ndarray):
          base = base.base
        offset = value.ctypes.data - base.ctypes.data
        strides = tuple(s // value.itemsize for s in value.strides)
        view = View(base, offset // value.itemsize, value.shape, strides)
        return self._tensor(view)
    raise TypeError(type(value))

  def _tensor(self, view: View) -> bytes:
    storage = np.ravel(view.storage)
    key = self._keys.setdefault(id(view.storage), str(len(self._keys)))
    self.storages[key] = storage
    count = storage.size if view.claimed is None else view.claimed
    kind = Global(f'torch {_STORAGES[storage.dtype]}')
    identity = ('storage', kind, key, 'cpu', count)
    identity += () if self._is_zip else (None,)
    return self._code(
      Call(
        'torch._utils _rebuild_tensor_v2',
        (
          Opcodes(self._code(identity) + b'Q'),
          view.offset,
          view.shape,
          view.strides,
          False,
          Call('collections OrderedDict'),
        ),
      )
    )


def write_zip(
  path: pathlib.Path,
  value: Any,
  compression: int = zipfile.ZIP_STORED,
  byteorder: str = 'little',
) -> pathlib.Path:
  """The format since torch 1.6."""
  pickler = _Pickler(is_zip=True)
  pickled = pickler.dumps(value)
  return write_archive(path, pickled, pickler.storages, compression, byteorder)


def write_archive(
  path: pathlib.Path,
  pickled: bytes,
  storages: dict[str, np.ndarray] | None = None,
  compression: int = zipfile.ZIP_STORED,
  byteorder: str = 'little',
) -> pathlib.Path:
  """The same around a pickle that is made already."""
  with zipfile.ZipFile(path, 'w', compression) as archive:
    archive.writestr('archive/data.pkl', pickled)
    archive.writestr('archive/byteorder', byteorder)
    for key, storage in (storages or {}).items():
      archive.writestr(f'archive/data/{key}', storage.tobytes())
    archive.writestr('archive/version', '3\n')
  return path


def write_legacy(
  path: pathlib.Path, value: Any, little_endian: bool = True
) -> pathlib.Path:
  """The format before torch 1.6."""
  pickler = _Pickler(is_zip=False)
  sizes = {'short': 2, 'int': 4, 'long': 4}
  system = {
    'protocol_version': 1001,
    'little_endian': little_endian,
    'type_sizes': sizes,
  }
  parts = [pickler.dumps(x) for x in (_MAGIC, 1001, system, value)]
  parts.append(pickler.dumps(list(pickler.storages)))
  for storage in pickler.storages.values():
    parts += [struct.pack('<q', storage.size), storage.tobytes()]
  path.write_bytes(b''.join(parts))
  return path
