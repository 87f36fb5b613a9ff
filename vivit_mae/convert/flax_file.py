"""Files of JAX projects: Scenic's and Flax's msgpack, big_vision's npz.

Both hold a tree of arrays; its leaves are named by their keys, joined with
slashes. Of the state of an optimiser nothing is read.
"""

import math
import os
import pathlib
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import ml_dtypes
import msgpack
import numpy as np
from jaxtyping import Shaped

Arrays = dict[str, Shaped[np.ndarray, '...']]

# Where training programs keep the parameters. Scenic's old TrainState and its
# new one, which is Flax's; big_vision's before it had optax. What Scenic calls
# model_state are the averages of batch normalisation.
WRAPPERS = ('optimizer/target', 'opt/target', 'params')

_OPTIMISER = frozenset({'optimizer/state', 'opt/state', 'opt_state'})

# flax/serialization.py: the codes of its msgpack extensions, and the key that
# marks an array which came in parts because msgpack ends at 2 GB.
_NDARRAY = 1
_CHUNKED = '__msgpack_chunked_array__'

# Bytes before the first key of a map that does not say its size in its first.
_LONG_MAPS = {0xDE: 3, 0xDF: 5}

_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
_NUMERIC = 'biufc'
_DEEPEST = 64

# What a compressed npz may come to: random weights hardly shrink at all.
_MOST_INFLATED = 20
_SURELY_FITS = 2**30


def read_msgpack(path: str | os.PathLike[str]) -> tuple[str, Arrays]:
  """Reads the parameters of a msgpack file.

  Args:
    path: Written by `flax.serialization.to_bytes`, or a `checkpoint` of
      Scenic, whatever else its TrainState holds.

  Returns:
    The keys under which the parameters lay, joined by slashes, and the arrays
    by name below these. All that is no array is dropped.

  Raises:
    ValueError: The file is damaged.
  """
  path = pathlib.Path(path)
  size = path.stat().st_size
  try:
    with path.open('rb') as file, path.open('rb') as heads:
      unpacker = msgpack.Unpacker(
        file,
        ext_hook=_extension,
        strict_map_key=False,
        max_buffer_size=0,
        max_array_len=size,
        max_map_len=size,
      )
      tree = _read_tree(unpacker, heads, ())
      if unpacker.tell() != size:
        raise ValueError(f'it goes on after byte {unpacker.tell()}')
    arrays = dict(_leaves(tree, ()))
  except _DAMAGED as error:
    raise _damaged(path, error) from error
  wrapper, names = _unwrapped(arrays)
  return wrapper, {name: arrays[full] for name, full in names.items()}


def read_npz(path: str | os.PathLike[str]) -> tuple[str, Arrays]:
  """Reads the parameters of an npz file.

  Args:
    path: Written by `np.savez`, as big_vision and AugReg publish theirs.

  Returns:
    See `read_msgpack`. Two bytes that numpy has no type for are bfloat16.

  Raises:
    ValueError: The file is damaged.
  """
  path = pathlib.Path(path)
  try:
    with zipfile.ZipFile(path) as archive:
      entries = [
        entry for entry in archive.infolist() if entry.filename.endswith('.npy')
      ]
      size = sum(entry.file_size for entry in entries)
      if size > max(_SURELY_FITS, _MOST_INFLATED * path.stat().st_size):
        raise ValueError(f'it claims to hold {size} bytes')
      wrapper, names = _unwrapped(
        entry.filename.removesuffix('.npy') for entry in entries
      )
      arrays = {}
      for name, full in names.items():
        array = _read_npy(archive, f'{full}.npy')
        if array is not None:
          arrays[name] = array
  except _DAMAGED as error:
    raise _damaged(path, error) from error
  return wrapper, arrays


# What a file of another origin can make of reading it.
_DAMAGED = (
  ArithmeticError,
  EOFError,
  LookupError,
  MemoryError,
  NotImplementedError,
  OSError,  # An archive that points to before its beginning.
  RuntimeError,
  TypeError,
  ValueError,
  msgpack.UnpackException,
  zipfile.BadZipFile,
  zlib.error,
)


def is_msgpack(head: bytes) -> bool:
  """Whether a file that begins so may be msgpack: a map from a name."""
  if not _is_map(head):
    return False
  key = head[_LONG_MAPS.get(head[0], 1) :][:1]
  return b'\xa0' <= key <= b'\xbf' or key in (b'\xd9', b'\xda', b'\xdb')


def _is_map(head: bytes) -> bool:
  return b'\x80' <= head[:1] <= b'\x8f' or head[:1] in (b'\xde', b'\xdf')


def _damaged(path: pathlib.Path, error: Exception) -> ValueError:
  reason = str(error) or type(error).__name__
  return ValueError(
    f'{path} is damaged or cut short ({reason}); get the file again.'
  )


def _unwrapped(names: Iterable[str]) -> tuple[str, dict[str, str]]:
  """The wrapper, and the full names by those below it."""
  full = {name: name for name in names}
  wrappers = []
  while wrapper := next(
    (w for w in WRAPPERS if any(n.startswith(f'{w}/') for n in full)), None
  ):
    wrappers.append(wrapper)
    prefix = f'{wrapper}/'
    full = {
      name.removeprefix(prefix): value
      for name, value in full.items()
      if name.startswith(prefix)
    }
  return '/'.join(wrappers), full


def _read_tree(
  unpacker: msgpack.Unpacker, heads: Any, keys: tuple[str, ...]
) -> Any:
  """The next object; a map is read key by key, so that some can be skipped."""
  if len(keys) > _DEEPEST:
    raise ValueError(f'it is nested more than {_DEEPEST} levels deep')
  heads.seek(unpacker.tell())
  if not _is_map(heads.read(1)):
    return unpacker.unpack()
  tree = {}
  for _ in range(unpacker.read_map_header()):
    key = unpacker.unpack()
    if not isinstance(key, str | int):
      raise ValueError(f'a {type(key).__name__} where a name should be')
    below = (*keys, str(key))
    if '/'.join(below) in _OPTIMISER:
      unpacker.skip()
    else:
      tree[below[-1]] = _read_tree(unpacker, heads, below)
  return tree


def _extension(code: int, data: bytes) -> Any:
  """An array: its shape, the name of its type, its bytes in C order."""
  if code != _NDARRAY:
    return None  # A number by itself.
  shape, name, values = msgpack.unpackb(data, raw=True)
  dtype = _BFLOAT16 if name == b'bfloat16' else np.dtype(name.decode())
  if dtype.kind not in _NUMERIC and dtype != _BFLOAT16:
    return None
  return _shaped(np.frombuffer(values, dtype), shape)


def _shaped(
  values: Shaped[np.ndarray, 'n'], shape: Iterable[Any]
) -> Shaped[np.ndarray, '...']:
  shape = tuple(shape)
  if any(type(n) is not int or n < 0 for n in shape):
    raise ValueError('a shape that is none')
  if math.prod(shape) != values.size:
    raise ValueError(
      f'an array of shape {shape} that comes with {values.size} numbers'
    )
  return values.reshape(shape)


def _leaves(
  tree: Any, keys: tuple[str, ...]
) -> Iterator[tuple[str, Shaped[np.ndarray, '...']]]:
  """The arrays of a tree by name."""
  if len(keys) > _DEEPEST:
    raise ValueError(f'it is nested more than {_DEEPEST} levels deep')
  if isinstance(tree, np.ndarray):
    yield '/'.join(keys), tree
  elif isinstance(tree, dict) and _CHUNKED in tree:
    chunks = [tree['chunks'][str(i)] for i in range(len(tree['chunks']))]
    shape = [tree['shape'][str(i)] for i in range(len(tree['shape']))]
    yield '/'.join(keys), _shaped(np.concatenate(chunks), shape)
  elif isinstance(tree, dict | list):
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, branch in pairs:
      yield from _leaves(branch, (*keys, str(key)))


def _read_npy(
  archive: zipfile.ZipFile, name: str
) -> Shaped[np.ndarray, '...'] | None:
  """An array of an npz file; None = it holds no numbers."""
  header = np.lib.format
  with archive.open(name) as file:
    version = header.read_magic(file)
    read = {
      (1, 0): header.read_array_header_1_0,
      (2, 0): header.read_array_header_2_0,
    }[version]
    shape, _, dtype = read(file)
    held = archive.getinfo(name).file_size - file.tell()
  is_bfloat16 = dtype == np.dtype('V2')
  if dtype.kind not in _NUMERIC and not is_bfloat16:
    return None
  # Numpy makes room for what the header says before it looks.
  size = math.prod(shape) * dtype.itemsize
  if size != held:
    raise ValueError(f'{name} claims {size} bytes and holds {held}')
  with archive.open(name) as file:
    array = header.read_array(file, allow_pickle=False)
  return array.view(_BFLOAT16) if is_bfloat16 else array
