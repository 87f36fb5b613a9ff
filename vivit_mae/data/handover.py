"""Large arrays handed from workers to the process that started them.

Grain hands over each array in shared memory that is new, and to get the pages
of it costs several times what it costs to copy into them. Here a worker has a
few slots, which are used again when the other side has copied what is in them.
"""

import dataclasses
import os
import secrets
import shutil
from multiprocessing import shared_memory
from typing import Any

import numpy as np

from vivit_mae.data import workers

# Smaller arrays are not worth it.
_MIN_BYTES = 2**16
# Bytes before the array in a slot, the first of which tells whether it is in
# use.
_HEADER = 64
# Where Linux keeps shared memory, and what is left free there.
_FOLDER, _SPARE = '/dev/shm', 2**20


@dataclasses.dataclass(frozen=True)
class Lent:
  """An array that lies in a slot.

  Attributes:
    name: Of the slot's memory.
    shape: Of the array.
    dtype: Of the array.
  """

  name: str
  shape: tuple[int, ...]
  dtype: np.dtype


class Handover:
  """The slots of all workers. Picklable, with none of its memory."""

  def __init__(self, num_workers: int, num_slots: int):
    """Names the slots; the memory of each is made when it is first used.

    Args:
      num_workers: How many workers there are.
      num_slots: How many arrays of each can be on their way. Others go the way
        that they would have gone without this.
    """
    self._prefix = f'vivit_{secrets.token_hex(4)}'
    self._num_workers = num_workers
    self._num_slots = num_slots
    self._memories: dict[str, shared_memory.SharedMemory] = {}

  def __getstate__(self) -> dict[str, Any]:
    return dict(vars(self), _memories={})

  def lend(self, worker: int, array: Any) -> Any:
    """Copies an array into a free slot.

    Args:
      worker: The number of the worker that this process is.
      array: What to hand over.

    Returns:
      What `take` makes the array of; the array itself where it is small, no
      array, or no slot is free.

    Raises:
      WorkersError: there is no room for it.
    """
    if not isinstance(array, np.ndarray) or array.nbytes < _MIN_BYTES:
      return array
    for slot in range(self._num_slots):
      name = self._name(worker, slot)
      memory = self._memories.get(name)
      if memory is None:
        memory = self._make(name, _HEADER + array.nbytes)
        self._memories[name] = memory
      lent = Lent(name, array.shape, array.dtype)
      buffer = _buffer(memory)
      if not buffer[0] and memory.size >= _HEADER + array.nbytes:
        np.copyto(_view(memory, lent), array)
        buffer[0] = 1
        return lent
    return array

  def take(self, lent: Lent) -> np.ndarray:
    """Copies an array out of its slot, which is free then."""
    memory = self._memories.get(lent.name)
    if memory is None:
      memory = shared_memory.SharedMemory(lent.name)
      self._memories[lent.name] = memory
    array = np.array(_view(memory, lent))
    _buffer(memory)[0] = 0
    return array

  def close(self) -> None:
    """Frees the memory, when no worker lives that could use it."""
    for worker in range(self._num_workers):
      for slot in range(self._num_slots):
        name = self._name(worker, slot)
        memory = self._memories.pop(name, None)
        if memory is None:
          try:
            memory = shared_memory.SharedMemory(name)
          except FileNotFoundError:
            break  # nor were those behind it made
        memory.close()
        memory.unlink()

  def _name(self, worker: int, slot: int) -> str:
    return f'{self._prefix}_{worker}_{slot}'

  def _make(self, name: str, size: int) -> shared_memory.SharedMemory:
    """Memory of a size."""
    # More is given all the same, and ends the process that writes to it.
    free = size + _SPARE
    if os.path.isdir(_FOLDER):
      free = shutil.disk_usage(_FOLDER).free
    if free < size + _SPARE:
      raise workers.WorkersError(
        f'A data worker has no room to hand over a batch: it takes '
        f'{size / 1e6:.0f} MB of shared memory, and {free / 1e6:.0f} MB are '
        f'left in {_FOLDER}. Each of the {self._num_workers} workers needs up '
        f'to {self._num_slots + 1} times that. A container is given more with '
        '`docker run --shm-size=8g`; smaller batches, a smaller '
        'data.read_buffer and fewer data.num_workers take less, '
        'data.num_workers=0 none.'
      )
    return shared_memory.SharedMemory(name, create=True, size=size)


def _view(memory: shared_memory.SharedMemory, lent: Lent) -> np.ndarray:
  return np.ndarray(lent.shape, lent.dtype, _buffer(memory), _HEADER)


def _buffer(memory: shared_memory.SharedMemory) -> memoryview:
  assert memory.buf is not None
  return memory.buf
