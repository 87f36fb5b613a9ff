"""Counts the videos that can't be read, and stops when there are too many."""

import logging

from vivit_mae.data import listing
from vivit_mae.data.loading import Attempts

_logger = logging.getLogger(__name__)

# Fewer distinct videos than this say little about the share of bad ones.
_MIN_TRIED = 50


class BadVideosError(ValueError):
  """More videos can't be read than `data.max_bad_fraction` allows."""


class BadVideos:
  """Counts unreadable videos and stops when there are too many."""

  def __init__(self, num_videos: int, max_fraction: int | float, where: str):
    self._num_videos = num_videos
    self._max_fraction = max_fraction
    self._where = where
    self._tried: set[int] = set()
    self._bad: dict[int, tuple[str, str]] = {}

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
      if index not in self._bad:
        self._bad[index] = (name, reason)
        _logger.warning(
          'Video left out (%d so far): %s', len(self._bad), reason
        )
    enough = len(self._tried) >= min(_MIN_TRIED, self._num_videos)
    share = len(self._bad) / max(1, len(self._tried))
    if attempts.failed or (enough and share > self._max_fraction):
      raise BadVideosError(
        f'{len(self._bad)} of {len(self._tried)} videos tried from '
        f'{self._where} can not be read; data.max_bad_fraction allows '
        f'{self._max_fraction:g}:\n  '
        + listing.shown((reason for _, reason in self.found), '\n  ')
      )
