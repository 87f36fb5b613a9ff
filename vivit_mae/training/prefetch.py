"""Batches on the devices before the step that takes them is due."""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Batches(Protocol):
  """A stream of batches that says where it stands."""

  def __next__(self) -> Any: ...

  def get_state(self) -> dict[str, Any]:
    """Where the stream stands, as JSON."""
    ...

  def set_state(self, state: dict[str, Any], /) -> None:
    """Goes on from there."""
    ...

  def close(self) -> None:
    """Ends what it has started."""
    ...


class Prefetch(Iterator[Any]):
  """Takes batches from a stream and puts them onto the devices, some ahead.

  A thread reads and puts while the devices compute, so that neither waits for
  the other. The state is that of the batches that were handed out, not of those
  that were fetched: what lies ready when a run stops is fetched again.
  """

  def __init__(self, batches: Batches, put: Callable[[Any], Any], ahead: int):
    """Prepares; the first `next` starts.

    Args:
      batches: The stream. Nobody else may take from it.
      put: Makes of a batch what is handed out.
      ahead: Batches that may lie ready; 0 fetches each when it is asked for,
        without a thread.
    """
    self._batches = batches
    self._put = put
    self._ahead = ahead
    self._state = batches.get_state()
    self._thread: threading.Thread | None = None

  def __next__(self) -> Any:
    if not self._ahead:
      batch = self._put(next(self._batches))
      self._state = self._batches.get_state()
      return batch
    if self._thread is None:
      self._start()
    batch, state, error = self._ready.get()
    if error is not None:
      self._stop()
      raise error
    self._room.release()
    self._state = state
    return batch

  def get_state(self) -> dict[str, Any]:
    """The stream's state after the batch that was handed out last."""
    return self._state

  def set_state(self, state: dict[str, Any]) -> None:
    """Goes on where a stream stood; what lies ready is thrown away."""
    self._stop()
    self._batches.set_state(state)
    self._state = self._batches.get_state()

  def close(self) -> None:
    """Ends the thread and the stream. The next batch would start them again."""
    self._stop()
    self._batches.close()

  def _start(self) -> None:
    self._stopping = False
    self._room = threading.Semaphore(self._ahead)
    # (batch, state after it, None), or an error in the end.
    self._ready: queue.SimpleQueue[tuple[Any, Any, BaseException | None]]
    self._ready = queue.SimpleQueue()
    # Without `daemon`, a program that forgets `close` would never end.
    self._thread = threading.Thread(
      target=self._fetch, name='prefetch', daemon=True
    )
    self._thread.start()

  def _stop(self) -> None:
    if self._thread is None:
      return
    self._stopping = True
    self._room.release()
    self._thread.join()
    self._thread = None
    # What was fetched too many is fetched again.
    self._batches.set_state(self._state)

  def _fetch(self) -> None:
    try:
      while self._room.acquire() and not self._stopping:
        batch = self._put(next(self._batches))
        self._ready.put((batch, self._batches.get_state(), None))
    except BaseException as error:
      self._ready.put((None, None, error))
