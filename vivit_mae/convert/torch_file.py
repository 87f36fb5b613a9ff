"""Files of `torch.save`, read without torch.

Both formats: the zip archive since torch 1.6, whose `data.pkl` names storages
that lie beside it, and the older sequence of pickles that the storages follow
(torch/serialization.py, `_save` and `_legacy_save`). The pickles pass through
`restricted_pickle`; the tensors are views of the mapped file, so that of a file
with its optimiser only the pages of the model are ever read.
"""

import os
import pathlib
import struct
import zipfile
from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt8

from vivit_mae.convert import plain_globals, restricted_pickle, torch_tensors
from vivit_mae.convert.restricted_pickle import Global
from vivit_mae.convert.torch_tensors import Storage, Tensor

Arrays = dict[str, Shaped[np.ndarray, '...']]

# Where training programs keep the model, in the order in which they are tried.
# DeepSpeed: module; PySlowFast: model_state; averages only for want of others.
WRAPPERS = ('model', 'module', 'model_state', 'state_dict', 'model_ema')

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_LOCAL_HEADER = struct.Struct('<4s5H3L2H')
_DEEPEST_WRAPPER = 2
_SHOWN = 8


def read(path: str | os.PathLike[str]) -> tuple[str, Arrays]:
  """Reads the model's state dict of a file of `torch.save`.

  Args:
    path: A `.pth`, `.pt`, `.pyth` or `.bin` file of either format, or
      DeepSpeed's `mp_rank_00_model_states.pt`.

  Returns:
    The keys under which the state dict lay, joined by slashes, and its tensors
    by name: read-only views of the file, of the file's types. All that is no
    tensor is dropped.

  Raises:
    ValueError: The file asks for more than arrays and plain containers, is
      damaged, or holds no state dict.
  """
  path = pathlib.Path(path)
  try:
    data = np.memmap(path, np.uint8, 'r')
    is_zip = bytes(data[:4]) == b'PK\3\4'
    tree = _read_zip(path, data) if is_zip else _read_legacy(data)
  except restricted_pickle.RefusedError as error:
    raise ValueError(f'{path} {error}.') from error
  except _DAMAGED as error:
    reason = str(error) or type(error).__name__
    raise ValueError(
      f'{path} is damaged or cut short ({reason}); get the file again.'
    ) from error
  found = _state_dict(tree, _DEEPEST_WRAPPER)
  if found is None:
    raise ValueError(
      f'{path} holds no tensors by name where one looks for them, which is its '
      f'top level and {", ".join(WRAPPERS)}; it holds {_content(tree)}.'
    )
  wrapper, tensors = found
  arrays = {name: tensor.array() for name, tensor in tensors.items()}
  return '/'.join(wrapper), arrays


# What a file that was not written by torch can make of reading it.
_DAMAGED = (
  ArithmeticError,
  AttributeError,
  LookupError,
  MemoryError,
  NotImplementedError,
  RuntimeError,
  TypeError,
  ValueError,
  struct.error,
  zipfile.BadZipFile,
)


def _read_zip(path: pathlib.Path, data: UInt8[np.ndarray, 'n']) -> Any:
  """What was saved, with tensors in its leaves."""
  with zipfile.ZipFile(path) as archive:
    entries = {entry.filename: entry for entry in archive.infolist()}
  pickled = next((n for n in entries if n.endswith('/data.pkl')), None)
  if pickled is None:
    raise restricted_pickle.RefusedError(
      'is a zip archive without the data.pkl that torch.save writes'
    )
  root = pickled.removesuffix('data.pkl')
  if f'{root}constants.pkl' in entries:
    raise restricted_pickle.RefusedError(
      'is a TorchScript program; save its state_dict with torch.save instead'
    )
  order = entries.get(f'{root}byteorder')
  if order and bytes(_entry(data, order)) != b'little':
    raise restricted_pickle.RefusedError(_BIG_ENDIAN)

  def storage(dtype: np.dtype, key: str, count: int) -> Storage:
    entry = entries.get(f'{root}data/{key}')
    if entry is None:
      raise ValueError(f'storage {key:.40} is missing')
    made = Storage(dtype, count)
    made.fill(_entry(data, entry))
    return made

  tree, _ = _loads(_entry(data, entries[pickled]), storage)
  return tree


def _entry(
  data: UInt8[np.ndarray, 'n'], entry: zipfile.ZipInfo
) -> UInt8[np.ndarray, 'm']:
  """The bytes of an entry; torch compresses none, so a bomb has no room."""
  if entry.compress_type != zipfile.ZIP_STORED:
    raise restricted_pickle.RefusedError(
      f'holds {entry.filename!r:.100} compressed, which torch never writes; '
      'unpack the archive and pack it anew without compression'
    )
  start = entry.header_offset
  header = _LOCAL_HEADER.unpack(bytes(data[start : start + _LOCAL_HEADER.size]))
  start += _LOCAL_HEADER.size + header[-2] + header[-1]
  return _slice(data, start, entry.file_size)


_BIG_ENDIAN = (
  'was written on a big-endian machine; save it again on a little-endian one, '
  'as nearly all are'
)


def _read_legacy(data: UInt8[np.ndarray, 'n']) -> Any:
  """What was saved, with tensors in its leaves."""
  position = 0
  storages: dict[str, Storage] = {}

  def storage(dtype: np.dtype, key: str, count: int) -> Storage:
    made = storages.setdefault(key, Storage(dtype, count))
    if made.dtype != dtype or made.count != count:
      raise ValueError(f'storage {key:.40} is described in two ways')
    return made

  def following() -> Any:
    nonlocal position
    value, length = _loads(data[position:], storage)
    position += length
    return value

  if following() != _MAGIC:
    raise restricted_pickle.RefusedError(
      'is a plain Python pickle; a file of torch.save, safetensors, msgpack or '
      'npz would do'
    )
  if following() != _PROTOCOL:
    raise ValueError('its format is of another version')
  if not following()['little_endian']:
    raise restricted_pickle.RefusedError(_BIG_ENDIAN)
  tree = following()
  for key in following():
    (count,) = struct.unpack('<q', bytes(_slice(data, position, 8)))
    made = storages.pop(key)
    if made.count != count:
      raise ValueError(f'storage {key:.40} holds {count} numbers')
    made.fill(_slice(data, position + 8, made.size))
    position += 8 + made.size
  if storages:
    raise ValueError(f'{len(storages)} storages are missing')
  return tree


def _loads(data: UInt8[np.ndarray, 'n'], storage: Any) -> tuple[Any, int]:
  """One pickle of torch's, whose storages are made by a function."""

  def persistent(identity: Any) -> Storage:
    kind, of, key, _, count, *view = identity
    is_storage = isinstance(of, Global) and isinstance(
      of.value, torch_tensors.StorageType
    )
    if kind != 'storage' or not is_storage or any(view):
      raise ValueError('a persistent id that is none of a storage')
    if not plain_globals.is_count(count) or not isinstance(key, str):
      raise ValueError('a storage without a key or a size')
    return storage(of.value.dtype, key, count)

  return restricted_pickle.loads(data.data, torch_tensors.GLOBALS, persistent)


def _slice(
  data: UInt8[np.ndarray, 'n'], start: int, size: int
) -> UInt8[np.ndarray, 'm']:
  if start < 0 or start + size > len(data):
    raise ValueError(f'it ends before byte {start + size}')
  return data[start : start + size]


def _state_dict(
  tree: Any, depth: int
) -> tuple[tuple[str, ...], dict[str, Any]] | None:
  """The first wrapper that holds arrays by name, and those; else None."""
  if not isinstance(tree, dict):
    return None
  for name in WRAPPERS if depth else ():
    found = _state_dict(tree.get(name), depth - 1)
    if found is not None:
      wrapper, tensors = found
      return (name, *wrapper), tensors
  kinds = Tensor | plain_globals.NumpyArray
  tensors = {
    name: leaf
    for name, leaf in tree.items()
    if isinstance(name, str) and isinstance(leaf, kinds)
  }
  return ((), tensors) if tensors else None


def _content(tree: Any) -> str:
  if not isinstance(tree, dict):
    return f'a {type(tree).__name__.strip("_").lower()}'
  if not tree:
    return 'nothing'
  names = ', '.join(f'{name!r:.40}' for name in list(tree)[:_SHOWN])
  return f'{names}{" and more" if len(tree) > _SHOWN else ""}'
