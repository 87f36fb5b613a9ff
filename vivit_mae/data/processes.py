"""How processes of ours live beside the one that starts them.

Imports next to nothing, as each of them does so again.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing import resource_tracker


def end_with(parent: int) -> None:
  """Ends this process when another one has ended, within a second.

  A process that is killed can't stop those it has started, so they look for
  themselves; one that hangs would not notice a closed pipe.

  Args:
    parent: The number of the process that started this one.
  """

  def watch():
    while os.getppid() == parent:
      time.sleep(1)
    os._exit(1)

  threading.Thread(target=watch, name='parent-watch', daemon=True).start()


@contextlib.contextmanager
def without_ctrl_c() -> Iterator[None]:
  """Holds Ctrl-C back, here and in the processes that are started meanwhile.

  What it means is for the parent to decide. A process may ignore it from its
  first line on, but until it gets there would end with a traceback.
  """
  if not hasattr(signal, 'pthread_sigmask'):
    yield  # Windows
    return
  # The tracker of shared memory, which the first of them starts otherwise,
  # lets Ctrl-C through again once it runs.
  resource_tracker.ensure_running()
  before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
