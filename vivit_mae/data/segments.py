"""Parts of long videos: how lists write them."""

import re

from vivit_mae.data.listing import Segment

_TIME = re.compile(r'(\d+:){0,2}(\d+\.?\d*|\.\d+)')


def seconds(text: str, where: str) -> float:
  """Reads a point in time.

  Args:
    text: Seconds ('83.5'), or minutes or hours before them ('1:23.5',
      '0:01:23.50').
    where: The file and line, for messages.

  Returns:
    Seconds.

  Raises:
    ValueError: If it is no time.
  """
  text = text.strip()
  parts = (
    [float(part) for part in text.split(':')] if _TIME.fullmatch(text) else []
  )
  if not parts or max(parts[1:], default=0) >= 60:
    raise ValueError(
      f'{where}: {text!r} is no time; give seconds (83.5) or h:mm:ss.ss '
      '(0:01:23.50).'
    )
  return sum(part * 60**i for i, part in enumerate(reversed(parts)))


def parse(start: str, end: str, where: str) -> Segment | None:
  """Reads a segment.

  Args:
    start: When it begins, see `seconds`.
    end: When it ends.
    where: The file and line, for messages.

  Returns:
    Its start and end in seconds; None, the whole video, if both are empty.

  Raises:
    ValueError: If one is empty or no time, or if it ends before it starts.
  """
  if not start.strip() and not end.strip():
    return None
  if not start.strip() or not end.strip():
    raise ValueError(
      f'{where}: a segment has a start and an end; start is {start!r} and end '
      f'is {end!r}. Both empty mean the whole video.'
    )
  segment = seconds(start, where), seconds(end, where)
  if segment[1] <= segment[0]:
    raise ValueError(
      f'{where}: the segment from {start.strip()} to {end.strip()} is empty; '
      'its end must come after its start.'
    )
  return segment


def name(video: str, segment: Segment | None) -> str:
  """The id of a segment: that of its video with a media fragment (W3C).

  Args:
    video: The id of the video.
    segment: The part; None for all.

  Returns:
    'a.mp4#t=10,12.5', or for all of it the id of the video.
  """
  if segment is None:
    return video
  start, end = (f'{time:.3f}'.rstrip('0').rstrip('.') for time in segment)
  return f'{video}#t={start},{end}'
