"""Pickles that can build arrays and plain containers, and do nothing else.

A pickle is a program that may call anything. This interpreter knows the few
opcodes that checkpoints are made of, and a global can only be one of a table
that the caller gives: its calls are calls of functions of ours, never of what
the file names. `pickle.Unpickler` with its `find_class` alone is not enough:
ten bytes make its memo take 64 GB, and BUILD sets attributes of anything.
"""

import abc
import dataclasses
import io
import pickletools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

# That of a giant with its optimiser, whose arrays lie outside, has 200 kB.
MOST_BYTES = 2**24

# Others, tuples above all, can be nested so that hashing them never ends.
_KEYS = (str, int, float, bool, bytes, type(None))


class RefusedError(ValueError):
  """What a pickle asks for is not given: the end of a sentence on the file."""


@dataclasses.dataclass(frozen=True, slots=True)
class Global:
  """Stands for a global of a pickle.

  Attributes:
    name: Module and name, `torch._utils._rebuild_tensor_v2`.
    build: What is called with the arguments in its place; None = it can't be.
    value: What the global means where it isn't called, a type for example.
  """

  name: str
  build: Callable[..., Any] | None
  value: Any = None


@dataclasses.dataclass(frozen=True, slots=True)
class Inert:
  """An object that is read past: its arguments and its state are dropped."""

  name: str


class Stateful(abc.ABC):
  """An object that a pickle gives its state after it was made."""

  @abc.abstractmethod
  def set_state(self, *state: Any):
    """Takes the state, which may be anything."""


def inert(names: Iterable[str]) -> dict[str, Global]:
  """The globals whose objects are read past."""

  def drop(name: str) -> Global:
    return Global(name, lambda *_: Inert(name))

  return {name: drop(name) for name in names}


def loads(
  data: memoryview,
  allowed: Mapping[str, Global],
  persistent: Callable[[Any], Any],
) -> tuple[Any, int]:
  """Reads one pickle.

  Args:
    data: Begins with the pickle. Only `MOST_BYTES` of it are looked at.
    allowed: Globals by name, `torch.Size`.
    persistent: Takes a persistent id to its object.

  Returns:
    What was pickled, and the pickle's length in bytes. Sets come as lists.
    Items of a dict whose keys are no plain scalars are dropped.

  Raises:
    RefusedError: It asks for another global or opcode, or is too long.
    Exception: It is damaged; which exception depends on how.
  """
  machine = _Machine(allowed, persistent)
  stream = io.BytesIO(data[:MOST_BYTES])
  try:
    for opcode, argument, _ in pickletools.genops(stream):
      if opcode.name == 'STOP':
        return machine.pop(), stream.tell()
      machine.step(opcode.name, argument)
  except RefusedError:
    raise
  except ValueError as error:
    if stream.tell() == MOST_BYTES:
      raise RefusedError(
        f'holds a pickle of more than {MOST_BYTES} bytes; save its arrays as '
        'torch tensors, which lie outside the pickle'
      ) from error
    raise
  raise ValueError('the pickle does not stop')


class _Machine:
  """The stack, the marks and the memo of the pickle machine."""

  def __init__(
    self,
    allowed: Mapping[str, Global],
    persistent: Callable[[Any], Any],
  ):
    self._allowed = allowed
    self._persistent = persistent
    self._stack: list[Any] = []
    self._below: list[list[Any]] = []
    self._memo: dict[int, Any] = {}

  def pop(self) -> Any:
    """What was last made."""
    return self._stack.pop()

  def step(self, opcode: str, argument: Any):
    """Does what one opcode says."""
    if opcode in _ARGUMENTS:
      self._stack.append(argument)
    elif opcode in _VALUES:
      self._stack.append(_VALUES[opcode]())
    elif opcode in _TUPLES:
      items = [self._stack.pop() for _ in range(_TUPLES[opcode])]
      self._stack.append(tuple(reversed(items)))
    elif opcode in _STEPS:
      _STEPS[opcode](self, argument)
    elif opcode not in ('PROTO', 'FRAME'):
      if opcode == 'INST':  # It calls a global, which has a name to tell.
        self._global(*argument.split(' ', 1))
      raise RefusedError(
        f'holds the pickle opcode {opcode}, which arrays do not need, and was '
        'not run; have the state_dict alone saved, best as safetensors'
      )

  def _mark(self, _: Any):
    self._below.append(self._stack)
    self._stack = []

  def _since_mark(self) -> list[Any]:
    items, self._stack = self._stack, self._below.pop()
    return items

  def _put(self, index: int):
    self._memo[index] = self._stack[-1]

  def _memoise(self, _: Any):
    self._put(len(self._memo))

  def _get(self, index: int):
    self._stack.append(self._memo[index])

  def _tuple(self, _: Any):
    items = self._since_mark()  # This changes the stack that is added to.
    self._stack.append(tuple(items))

  def _list(self, _: Any):
    items = self._since_mark()
    self._stack.append(items)

  def _dict(self, _: Any):
    items = self._since_mark()
    self._stack.append({})
    fill(self._stack[-1], _pairs(items))

  def _append(self, _: Any):
    item = self._stack.pop()
    as_a(self._stack[-1], list).append(item)

  def _extend(self, _: Any):
    items = self._since_mark()
    as_a(self._stack[-1], list).extend(items)

  def _set_item(self, _: Any):
    value, key = self._stack.pop(), self._stack.pop()
    fill(as_a(self._stack[-1], dict), [(key, value)])

  def _set_items(self, _: Any):
    items = self._since_mark()
    fill(as_a(self._stack[-1], dict), _pairs(items))

  def _named_global(self, argument: str):
    self._stack.append(self._global(*argument.split(' ', 1)))

  def _stacked_global(self, _: Any):
    name, module = self._stack.pop(), self._stack.pop()
    self._stack.append(self._global(as_a(module, str), as_a(name, str)))

  def _global(self, module: str, name: str) -> Global:
    full = f'{module}.{name}'
    if full not in self._allowed:
      raise RefusedError(
        f'asks for {full!r:.100}, which is neither an array nor a plain '
        'container, and was not run; have the state_dict alone saved, best as '
        'safetensors'
      )
    return self._allowed[full]

  def _call(self, _: Any):
    arguments, function = self._stack.pop(), self._stack.pop()
    build = as_a(function, Global).build
    if build is None:
      raise ValueError(f'{function.name} is called')
    self._stack.append(build(*as_a(arguments, tuple)))

  def _set_state(self, _: Any):
    state = self._stack.pop()
    target = self._stack[-1]
    if isinstance(target, Stateful):
      target.set_state(*as_a(state, tuple))
    elif not isinstance(target, dict | Inert):
      raise RefusedError(
        f'sets the state of {called(target)}, which has none, and was not '
        'run; have the state_dict alone saved, best as safetensors'
      )

  def _persistent_id(self, _: Any):
    self._stack.append(self._persistent(self._stack.pop()))


# Torch writes protocol 2; the text of protocol 0 is here so that what it asks
# for is called by its name too.
_ARGUMENTS = frozenset(
  (
    'INT',
    'BININT',
    'BININT1',
    'BININT2',
    'LONG',
    'LONG1',
    'LONG4',
    'FLOAT',
    'BINFLOAT',
    'UNICODE',
    'BINUNICODE',
    'SHORT_BINUNICODE',
    'BINUNICODE8',
    'STRING',
    'BINSTRING',
    'SHORT_BINSTRING',
    'BINBYTES',
    'SHORT_BINBYTES',
    'BINBYTES8',
    'BYTEARRAY8',
  )
)
_VALUES: dict[str, Callable[[], Any]] = {
  'NONE': lambda: None,
  'NEWTRUE': lambda: True,
  'NEWFALSE': lambda: False,
  'EMPTY_DICT': dict,
  'EMPTY_LIST': list,
  'EMPTY_SET': list,
}
_TUPLES = {'EMPTY_TUPLE': 0, 'TUPLE1': 1, 'TUPLE2': 2, 'TUPLE3': 3}
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
  'MARK': _Machine._mark,
  'PUT': _Machine._put,
  'BINPUT': _Machine._put,
  'LONG_BINPUT': _Machine._put,
  'MEMOIZE': _Machine._memoise,
  'GET': _Machine._get,
  'BINGET': _Machine._get,
  'LONG_BINGET': _Machine._get,
  'TUPLE': _Machine._tuple,
  'LIST': _Machine._list,
  'FROZENSET': _Machine._list,
  'DICT': _Machine._dict,
  'APPEND': _Machine._append,
  'APPENDS': _Machine._extend,
  'ADDITEMS': _Machine._extend,
  'SETITEM': _Machine._set_item,
  'SETITEMS': _Machine._set_items,
  'GLOBAL': _Machine._named_global,
  'STACK_GLOBAL': _Machine._stacked_global,
  'REDUCE': _Machine._call,
  'NEWOBJ': _Machine._call,
  'BUILD': _Machine._set_state,
  'BINPERSID': _Machine._persistent_id,
}


def as_a(value: Any, kind: Any) -> Any:
  """The value, if it is of that kind: no other thing is called or filled."""
  if not isinstance(value, kind):
    raise ValueError(f'{called(value)} in place of a {kind.__name__}')
  return value


def called(value: Any) -> str:
  """What to call a value, without its content."""
  named = isinstance(value, Global | Inert)
  return value.name if named else f'a {type(value).__name__}'


def _pairs(items: list[Any]) -> Iterable[tuple[Any, Any]]:
  """Keys and values that followed each other."""
  return zip(items[::2], items[1::2], strict=True)


def fill(target: dict[Any, Any], pairs: Iterable[Any]):
  """Sets the items of a dict whose keys may be keys."""
  target.update((key, value) for key, value in pairs if isinstance(key, _KEYS))
