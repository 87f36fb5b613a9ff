"""Leaving when a signal asks for it, after a checkpoint."""

import signal
import threading
import types
from typing import Any

import jax

from vivit_mae.training.checkpoints import Checkpoints


class StopSignal:
  """Notes SIGTERM and SIGINT, so that the loop can save before it leaves.

  A signal during compilation is noted as well, and acted on when that is over:
  nothing has been trained that could be lost. A second signal acts at once. On
  several hosts JAX's own handler makes all of them stop at one step.
  """

  def __init__(self):
    self.received: signal.Signals | None = None
    self._previous: dict[signal.Signals, Any] = {}

  def __enter__(self) -> 'StopSignal':
    main = threading.current_thread() is threading.main_thread()
    if main and jax.process_count() == 1:
      for number in (signal.SIGTERM, signal.SIGINT):
        self._previous[number] = signal.signal(number, self._note)
    return self

  def __exit__(self, *error: object) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)

  def _note(self, number: int, frame: types.FrameType | None) -> None:
    del frame  # Python hands it over
    self.received = signal.Signals(number)
    for each, handler in self._previous.items():
      signal.signal(each, handler)

  def requested(self, checkpoints: Checkpoints, step: int) -> bool:
    """Whether to save now and leave."""
    if jax.process_count() > 1 and checkpoints.preempted(step):
      self.received = signal.SIGTERM
    return self.received is not None
