"""One video read with patience, and noted while it is read.

Here, and nowhere else, reading is tried again: videos lie on network mounts and
slow disks, are synchronised, replaced and removed while a run goes on.
"""

import os
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from vivit_mae.data import workers
from vivit_mae.data.datasets import Source
from vivit_mae.data.listing import Example
from vivit_mae.data.video import VideoError

# Seconds before each further try.
PAUSES = (0.1, 0.4, 1.6)

# What a process may spend on them: seconds, and a share of the time it has run.
# Beyond that videos are tried once: a thousand lost files must not cost a
# thousand times the pauses.
_ALLOWANCE, _SHARE = 60.0, 0.05

T = TypeVar('T')


class _Patience:
  """What one process has waited for videos to come back."""

  def __init__(self):
    self._began, self._waited = time.monotonic(), 0.0

  def pauses(self) -> tuple[float, ...]:
    """The pauses that may be made for one video."""
    run = time.monotonic() - self._began
    return PAUSES if self._waited <= _ALLOWANCE + _SHARE * run else ()

  def wait(self, pause: float) -> None:
    """Makes a pause, and remembers it."""
    self._waited += pause
    time.sleep(pause)


_patience = _Patience()


def read(
  source: Source,
  index: int,
  use: Callable[[Example], T],
  refused: Mapping[int, VideoError],
) -> tuple[Example, T]:
  """Takes a video from its source and makes something of it.

  Where the system reports an error, where a listed file is not there, and
  where a file has changed while it was read, everything is done again after
  the `PAUSES`. What is merely broken stays broken and is tried once.

  Args:
    source: The videos.
    index: Which of them.
    use: What is made of it, such as decoded clips. Called anew in each try.
    refused: Videos that are known to end the process, by index.

  Returns:
    The example and what was made of it.

  Raises:
    VideoError: The video can't be read.
  """
  if index in refused:
    raise VideoError(*refused[index].args)
  with workers.reading(index) as named:
    pauses = iter(_patience.pauses())
    while True:
      name, before = f'video {index} of {source.name}', None
      try:
        example = _take(source, index)
        name = example.id
        named(name)
        before = _state(example)
        return example, use(example)
      except (OSError, VideoError) as error:
        passing = _may_pass(error) or (
          before is not None and _state(example) != before
        )
        pause = next(pauses, None) if passing else None
        if pause is not None:
          _patience.wait(pause)
        elif isinstance(error, VideoError):
          raise
        else:
          raise VideoError('unreadable', name, str(error)) from error


def _take(source: Source, index: int) -> Example:
  """The example, or an OSError."""
  try:
    return source[index]
  except RuntimeError as error:  # what ArrayRecord says of a damaged file
    raise OSError(str(error)) from error


def _may_pass(error: OSError | VideoError) -> bool:
  """Whether the next try may fare better, by the error alone."""
  if isinstance(error, OSError) or error.kind == 'missing':
    return True
  # FFmpeg's words for what the system told it.
  return isinstance(error.__cause__ or error.__context__, OSError)


def _state(example: Example) -> tuple[int, int] | None:
  """Size and time of change of a video's file; None if it has none."""
  if not isinstance(example.video, str):
    return None
  try:
    status = os.stat(example.video)
  except OSError:
    return None
  return status.st_size, status.st_mtime_ns
