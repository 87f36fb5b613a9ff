"""A confusion matrix as a picture, readable for 2 to some 400 classes."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageDraw, ImageFont

_LONGEST_SIDE = 900
_LARGEST_CELL = 44
_FONT = 13
_MARGIN = 12
# Names and counts are written where a cell has room for them.
_NAMED_CELL = 13
_COUNTED_CELL = 26
_NAME_WIDTH = 170
_LISTED = 12
# From white to a dark blue, which colour-blind readers see as well.
_DARK = np.array([8, 48, 107])
_GRID = (205, 205, 205)
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def picture(
  counts: Int[np.ndarray, 'c c'], names: Sequence[str], title: str = ''
) -> UInt8[np.ndarray, 'height width 3']:
  """Draws counts of true (row) against predicted (column) classes.

  A cell is the darker the larger the share of the row's videos that it holds.
  Names stand at the rows and columns, and counts in the cells, where there is
  room; for many classes every so many are numbered. The pairs that are confused
  most are listed below by name.

  Args:
    counts: see `metrics.confusion`.
    names: of the classes.
    title: what stands above.

  Returns:
    One picture.

  Raises:
    ValueError: there are not as many names as classes.
  """
  classes = len(counts)
  if len(names) != classes:
    raise ValueError(
      f'a confusion matrix of {classes} classes needs as many names, not '
      f'{len(names)}.'
    )
  cell = max(2, min(_LARGEST_CELL, _LONGEST_SIDE // classes))
  font = ImageFont.load_default(_FONT)
  lines = [title] if title else []
  listed = _confused(counts, names, numbered=cell < _NAMED_CELL)
  labels = _labels(names, cell, font)
  space = max(_width(text, font) for text in labels.values()) + 8
  side = classes * cell
  top = _MARGIN + (_FONT + 6) * len(lines) + _FONT + 6 + space
  left = _MARGIN + _FONT + 8 + space
  wide = max([_width(text, font) for text in lines + listed], default=0)
  width = max(left + side, _MARGIN + wide) + _MARGIN
  height = top + side + _MARGIN + (_FONT + 5) * (len(listed) + 1)

  image = Image.new('RGB', (width, height), 'white')
  image.paste(Image.fromarray(_cells(counts, cell)), (left, top))
  draw = ImageDraw.Draw(image)
  draw.rectangle((left - 1, top - 1, left + side, top + side), outline=_GRID)
  for place, text in enumerate(lines):
    draw.text((_MARGIN, _MARGIN + (_FONT + 6) * place), text, 'black', font)
  draw.text(
    (left, top - space - _FONT - 6), 'predicted class', (90, 90, 90), font
  )
  _vertical(image, 'true class', (_MARGIN, top), (90, 90, 90), font)
  for index, text in labels.items():
    middle = index * cell + cell // 2
    draw.text((left - 5, top + middle), text, 'black', font, anchor='rm')
    _vertical(
      image, text, (left + middle - _FONT // 2 - 1, top - 5), 'black', font,
      up=True,
    )  # fmt: skip
  if cell >= _COUNTED_CELL:
    _write_counts(draw, counts, cell, (left, top))
  for place, text in enumerate(listed):
    y = top + side + _MARGIN + (_FONT + 5) * place
    draw.text((_MARGIN, y), text, 'black', font)
  return np.asarray(image)


def _cells(
  counts: Int[np.ndarray, 'c c'], cell: int
) -> UInt8[np.ndarray, 'side side 3']:
  """The coloured squares."""
  shades = _shades(counts)[..., None]
  colours = np.round(255 - shades * (255 - _DARK)).astype(np.uint8)
  large = colours.repeat(cell, axis=0).repeat(cell, axis=1)
  if cell >= _NAMED_CELL:  # lines between the cells would drown small ones
    large[cell - 1 :: cell] = _GRID
    large[:, cell - 1 :: cell] = _GRID
  return large


def _shades(counts: Int[np.ndarray, 'c c']) -> Float[np.ndarray, 'c c']:
  """Share of the row's videos, bent so that a few percent can be seen."""
  return (counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)) ** 0.6


def _labels(names: Sequence[str], cell: int, font: _Font) -> dict[int, str]:
  """What is written at the rows and columns: names, or some numbers."""
  if cell >= _NAMED_CELL:
    return {i: _shorten(name, font) for i, name in enumerate(names)}
  steps = (5, 10, 20, 25, 50, 100, 200, 500, 1000)
  step = next((s for s in steps if s * cell >= 2 * _FONT), steps[-1])
  return {i: str(i) for i in range(0, len(names), step)}


def _confused(
  counts: Int[np.ndarray, 'c c'], names: Sequence[str], numbered: bool
) -> list[str]:
  """The pairs of classes that are confused most, as lines of text."""
  if numbered:
    names = [f'{number} {name}' for number, name in enumerate(names)]
  wrong = counts * (1 - np.eye(len(counts), dtype=counts.dtype))
  pairs = np.argsort(-wrong, axis=None, kind='stable')[:_LISTED]
  lines = []
  for pair in pairs:
    true, predicted = np.unravel_index(pair, counts.shape)
    if wrong[true, predicted]:
      lines.append(
        f'{wrong[true, predicted]} of {counts[true].sum()}  {names[true]}  '
        f'taken for  {names[predicted]}'
      )
  return ['confused most:', *lines] if lines else []


def _write_counts(
  draw: ImageDraw.ImageDraw,
  counts: Int[np.ndarray, 'c c'],
  cell: int,
  corner: tuple[int, int],
) -> None:
  """Writes the counts that are not zero into their cells, if they fit."""
  shades = _shades(counts)
  for true, predicted in np.argwhere(counts):
    text = str(counts[true, predicted])
    font = ImageFont.load_default(_FONT)
    if _width(text, font) > cell - 4:
      font = ImageFont.load_default(9)
    place = (
      corner[0] + int(predicted) * cell + cell // 2,
      corner[1] + int(true) * cell + cell // 2,
    )
    colour = 'white' if shades[true, predicted] > 0.5 else 'black'
    draw.text(place, text, colour, font, anchor='mm')


def _vertical(
  image: Image.Image,
  text: str,
  corner: tuple[int, int],
  colour: str | tuple[int, int, int],
  font: _Font,
  up: bool = False,
) -> None:
  """Writes turned to the left, above `corner` if `up`, or else below it."""
  size = (_width(text, font) + 2, _FONT + 4)
  line = Image.new('RGB', size, 'white')
  ImageDraw.Draw(line).text((0, 0), text, colour, font)
  turned = line.rotate(90, expand=True)
  x, y = corner
  image.paste(turned, (x, y - turned.height if up else y))


def _width(text: str, font: _Font) -> int:
  return int(np.ceil(font.getlength(text)))


def _shorten(name: str, font: _Font) -> str:
  """Cuts a name that is too long for the margin."""
  if _width(name, font) <= _NAME_WIDTH:
    return name
  while name and _width(f'{name}...', font) > _NAME_WIDTH:
    name = name[:-1]
  return f'{name}...'
