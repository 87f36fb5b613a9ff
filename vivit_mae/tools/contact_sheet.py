"""One picture of several clips: a row for each, a column for each frame."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

_WIDTH = 1600  # pixels of the sheet
_MARGIN = 12
_GAP = 4
_HEADING, _CAPTION, _NOTE = 22, 18, 14  # pixels of the letters
_LEADING = 1.4  # height of a line, in letters


@dataclasses.dataclass(frozen=True, eq=False)
class Strip:
  """One row of a sheet.

  Attributes:
    caption: A line above it.
    frames: Its pictures.
    notes: A few words below each.
  """

  caption: str
  frames: UInt8[np.ndarray, 't h w 3']
  notes: tuple[str, ...]


def draw(heading: Sequence[str], strips: Sequence[Strip]) -> Image.Image:
  """Puts clips below one another.

  Args:
    heading: Lines above them.
    strips: The clips, all of one length and size.

  Returns:
    A picture 1,600 pixels wide. Frames that are too large for their column are
    averaged; small ones are enlarged so that their pixels can be seen.
  """
  count, height, width = strips[0].frames.shape[:3]
  column = (_WIDTH - 2 * _MARGIN + _GAP) // count - _GAP
  size = column, max(1, round(column * height / width))
  step = _line(_CAPTION) + size[1] + _line(_NOTE) + _MARGIN
  top = 2 * _MARGIN + len(heading) * _line(_HEADING)
  sheet = Image.new('RGB', (_WIDTH, top + len(strips) * step), 'white')
  pen = ImageDraw.Draw(sheet)
  room = _WIDTH - 2 * _MARGIN
  for k, text in enumerate(heading):
    _write(pen, (_MARGIN, _MARGIN + k * _line(_HEADING)), text, _HEADING, room)
  for row, strip in enumerate(strips):
    y = top + row * step
    _write(pen, (_MARGIN, y), strip.caption, _CAPTION, room)
    y += _line(_CAPTION)
    for k, (frame, note) in enumerate(
      zip(strip.frames, strip.notes, strict=True)
    ):
      x = _MARGIN + k * (column + _GAP)
      sheet.paste(_resized(frame, size), (x, y))
      _write(pen, (x, y + size[1]), note, _NOTE, column)
  return sheet


def _line(letters: int) -> int:
  return round(_LEADING * letters)


def _resized(
  frame: UInt8[np.ndarray, 'h w 3'], size: tuple[int, int]
) -> Image.Image:
  picture = Image.fromarray(frame)
  smaller = size[0] < picture.width
  method = Image.Resampling.BOX if smaller else Image.Resampling.NEAREST
  return picture.resize(size, method)


def _write(
  pen: ImageDraw.ImageDraw,
  place: tuple[int, int],
  text: str,
  letters: int,
  room: int,
) -> None:
  """Writes a line, without its middle where it is too long."""
  font = ImageFont.load_default(letters)
  kept, shown = len(text), text
  while pen.textlength(shown, font) > room and kept > 2:
    kept -= 1
    shown = f'{text[: kept // 2]}...{text[len(text) - (kept - kept // 2) :]}'
  pen.text(place, shown, 'black', font)
