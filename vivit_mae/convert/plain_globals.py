"""What pickles of plain containers and of numpy call, in ways that do no harm.

Numbers of numpy, the arguments of a command and the like are read past.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Shaped

from vivit_mae.convert import restricted_pickle
from vivit_mae.convert.restricted_pickle import Global

_MOST_AXES = 32
_MOST_BYTES_EMPTY = 2**31
_NUMERIC = 'biufc'


def is_count(value: Any) -> bool:
  """Whether it is a number of things, and one that computes at once."""
  return type(value) is int and 0 <= value < 2**62


def array_shape(
  shape: Any, dtype: np.dtype, most_bytes: int
) -> tuple[int, ...]:
  """A shape as a file gives it, if it is one.

  Args:
    shape: Whatever stands in its place.
    dtype: Of the array.
    most_bytes: That the file holds for it.

  Raises:
    ValueError: It is no shape, or of more bytes.
  """
  is_shape = isinstance(shape, tuple) and len(shape) <= _MOST_AXES
  if not is_shape or not all(map(is_count, shape)):
    raise ValueError(f'{restricted_pickle.called(shape)} that is no shape')
  # Numpy minds the other axes of an empty array too.
  size = math.prod(n or 1 for n in shape) * dtype.itemsize
  if size > (_MOST_BYTES_EMPTY if 0 in shape else most_bytes):
    raise ValueError(
      f'an array of {size} bytes, of which the file holds {most_bytes}'
    )
  return shape


def _dict(pairs: Any = None) -> dict[Any, Any]:
  """An ordered dict; Python 2 gave its items as the argument."""
  made: dict[Any, Any] = {}
  restricted_pickle.fill(made, _list(pairs))
  return made


def _list(items: Any = None) -> list[Any]:
  """What a set or an ordered dict is made of, if anything."""
  return [] if items is None else list(restricted_pickle.as_a(items, list))


def _bytes(text: str, encoding: str) -> bytes:
  """How protocol 2 writes bytes: the text of their latin-1 characters."""
  if encoding != 'latin1':
    raise ValueError(f'bytes that were encoded as {encoding!r:.20}')
  return restricted_pickle.as_a(text, str).encode('latin1')


class _Dtype(restricted_pickle.Stateful):
  """A numpy dtype: `dtype('f4', False, True)`, then its state."""

  def __init__(self, code: Any, *_: Any):
    dtype = np.dtype(restricted_pickle.as_a(code, str))
    if dtype.kind not in _NUMERIC:
      # Strings, dates and structures are in no state dict: read past.
      dtype = None
    self.dtype = dtype

  def set_state(self, _: int, order: str, *__: Any):
    """Takes the byte order of it."""
    if self.dtype is not None and order == '>':
      self.dtype = self.dtype.newbyteorder('>')


class NumpyArray(restricted_pickle.Stateful):
  """A numpy array: `_reconstruct(ndarray, (0,), b'b')`, then its state."""

  def __init__(self, *_: Any):
    self._array = np.zeros(0)

  def set_state(self, _: int, shape: Any, dtype: Any, fortran: Any, data: Any):
    """Fills it, as the pickle of an array of that shape and type goes on."""
    dtype = restricted_pickle.as_a(dtype, _Dtype).dtype
    if dtype is None:
      return
    if isinstance(data, str):  # Python 2 had no other bytes.
      data = data.encode('latin1')
    data = restricted_pickle.as_a(data, bytes)
    shape = array_shape(shape, dtype, len(data))
    order = 'F' if fortran else 'C'
    self._array = np.frombuffer(data, dtype).reshape(shape, order=order)

  def array(self) -> Shaped[np.ndarray, '...']:
    """The array, as it stood in the pickle."""
    return self._array


_INERT = (
  'argparse.Namespace',
  'collections.Counter',
  'copyreg._reconstructor',  # Objects in protocols 0 and 1.
  'numpy.ndarray',
  'numpy.core.multiarray.scalar',
  'numpy._core.multiarray.scalar',
  'pathlib.PosixPath',
  'pathlib.WindowsPath',
  'pathlib._local.PosixPath',  # Python 3.13
  'pathlib._local.WindowsPath',
  *(
    f'builtins.{name}'
    for name in (
      'bool',
      'bytearray',
      'bytes',
      'complex',
      'dict',
      'float',
      'int',
      'list',
      'object',
      'str',
      'tuple',
    )
  ),
)
_BUILDS: dict[str, Callable[..., Any]] = {
  'builtins.frozenset': _list,
  'builtins.set': _list,
  '_codecs.encode': _bytes,
  'collections.OrderedDict': _dict,
  'collections.defaultdict': lambda *_: {},
  'numpy.core.multiarray._reconstruct': NumpyArray,
  'numpy._core.multiarray._reconstruct': NumpyArray,
  'numpy.dtype': _Dtype,
}
# Modules that pickles of protocols 0 to 2 call as Python 2 did.
_PYTHON_2 = {'builtins': '__builtin__', 'copyreg': 'copy_reg'}


def _globals() -> dict[str, Global]:
  made = {name: Global(name, build) for name, build in _BUILDS.items()}
  made |= restricted_pickle.inert(_INERT)
  for name in list(made):
    module, _, rest = name.partition('.')
    if module in _PYTHON_2:
      made[f'{_PYTHON_2[module]}.{rest}'] = made[name]
  return made


GLOBALS = _globals()
