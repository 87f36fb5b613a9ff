"""Counts the videos that can't be read, and stops when there are too many."""

import csv
import io
import logging

from etils import epath

from vivit_mae.data import listing
from vivit_mae.data.loading import Attempts

_log = logging.getLogger(__name__)

# Fewer distinct videos than this say little about the share of bad ones.
_MIN_TRIED = 50
# So many are logged one by one, later ones whenever there are half as many
# more.
_NAMED = 10


class BadVideosError(ValueError):
  """More videos can't be read than `data.max_bad_fraction` allows."""


class BadVideos:
  """Counts unreadable videos and stops when there are too many."""

  def __init__(
    self,
    num_videos: int,
    max_fraction: int | float,
    where: str,
    report: epath.Path | None = None,
  ):
    """Starts at nothing.

    Args:
      num_videos: How many there are.
      max_fraction: The greatest share of unreadable ones to bear with.
      where: What to call the data in messages.
      report: A csv file for the whole list, written as it grows; None = none.
    """
    self._num_videos = num_videos
    self._max_fraction = max_fraction
    self._where = where
    self._report = report
    self._tried: set[int] = set()
    self._bad: dict[int, tuple[str, str]] = {}
    self._said = 0

  @property
  def found(self) -> list[tuple[str, str]]:
    """(id, reason) of each bad video, in the order they were found."""
    return list(self._bad.values())

  def add(self, attempts: Attempts) -> None:
    """Takes in what one batch has met.

    Args:
      attempts: The videos that were opened, and those that failed.

    Raises:
      BadVideosError: If the share of bad videos is too large, with their
        names and reasons.
    """
    self._tried.update(attempts.tried)
    for index, name, reason in attempts.bad:
      if index in self._bad:
        continue
      self._bad[index] = (name, reason)
      if len(self._bad) <= _NAMED:
        _log.warning('Video left out (%d so far): %s', len(self._bad), reason)
    enough = len(self._tried) >= min(_MIN_TRIED, self._num_videos)
    share = len(self._bad) / max(1, len(self._tried))
    if attempts.failed or (enough and share > self._max_fraction):
      self._write()
      raise BadVideosError(
        f'{len(self._bad)} of {len(self._tried)} videos tried from '
        f'{self._where} can not be read; data.max_bad_fraction allows '
        f'{self._max_fraction:g}{self._see()}:\n  '
        + listing.shown((reason for _, reason in self.found), '\n  ')
      )
    if len(self._bad) > max(_NAMED, 1.5 * self._said):
      self.summarise()

  def summarise(self) -> None:
    """Logs how many there are, if there are more than when it last did."""
    if len(self._bad) == self._said:
      return
    self._said = len(self._bad)
    self._write()
    _log.warning(
      '%d of the %d videos tried so far can not be read and are left out%s',
      len(self._bad),
      len(self._tried),
      self._see(),
    )

  def _see(self) -> str:
    return f' (all of them: {self._report})' if self._report else ''

  def _write(self) -> None:
    if self._report is None:
      return
    text = io.StringIO()
    rows = csv.writer(text, lineterminator='\n')
    rows.writerow(['id', 'reason'])
    rows.writerows(self.found)
    try:
      self._report.parent.mkdir(parents=True, exist_ok=True)
      self._report.write_text(text.getvalue())
    except OSError as error:
      _log.warning('The list of bad videos is not written: %s', error)
