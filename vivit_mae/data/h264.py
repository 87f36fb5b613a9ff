"""What an H.264 stream says of its frames before one is decoded.

Read from the stream's own settings (ITU-T H.264, 7.3.2.1 and Annex E), in the
form in which MP4 keeps them (ISO/IEC 14496-15, 5.3.3).
"""

import dataclasses

# The profile in which frames come as they are shown.
_BASELINE = 66
# Profiles whose settings say how colours are sampled.
_HIGH = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)
# The sample aspect ratio that is spelt out.
_EXTENDED = 255
# Kinds of NAL units: part of a picture, and of one that nothing before matters
# to.
_SLICE, _IDR_SLICE = 1, 5
# Bytes that say how long a NAL unit is.
_PREFIX = 4

# What a stream that does not say them has, by FFmpeg's numbers.
_UNKNOWN_MATRIX, _UNKNOWN_RANGE = 2, 0


@dataclasses.dataclass(frozen=True)
class Settings:
  """What the settings of a stream say.

  Attributes:
    width: Columns.
    height: Rows.
    pixel_format: FFmpeg's name of the pixels' format.
    matrix: FFmpeg's number of the colour space.
    colour_range: FFmpeg's number of the range.
    tells_colours: Whether the two stand in it.
    reorders: Whether frames may be shown in another order than they come.
  """

  width: int
  height: int
  pixel_format: str
  matrix: int
  colour_range: int
  tells_colours: bool
  reorders: bool


def read_settings(config: bytes) -> Settings | None:
  """Reads the settings of a stream.

  Args:
    config: The content of an MP4's `avcC` box.

  Returns:
    Them; None where they leave open what the decoder would have to guess, or
    are not those of plain videos: 8 bits, 4:2:0, progressive.
  """
  # One set, and NAL units with prefixes of four bytes.
  if len(config) < 8 or config[0] != 1 or config[4] & 3 != _PREFIX - 1:
    return None
  if config[5] & 31 != 1:
    return None
  length = int.from_bytes(config[6:8], 'big')
  # Where three of its bytes would look like a mark, one was put in between.
  unit = config[8 : 8 + length].replace(b'\0\0\3', b'\0\0')
  try:
    return _read(_Bits(unit[1:]))
  except IndexError:
    return None


def starts_anew(sample: bytes) -> bool:
  """Whether a stored picture and all that follow need nothing before it.

  Args:
    sample: The NAL units of one packet, as MP4 stores them.

  Returns:
    True for an IDR picture.
  """
  at = 0
  while at + _PREFIX < len(sample):
    kind = sample[at + _PREFIX] & 31
    if kind in (_SLICE, _IDR_SLICE):
      return kind == _IDR_SLICE
    at += _PREFIX + int.from_bytes(sample[at : at + _PREFIX], 'big')
  return False


class _Bits:
  """Reads bits; IndexError behind the end."""

  def __init__(self, data: bytes):
    self._value = int.from_bytes(data, 'big')
    self._left = 8 * len(data)

  def take(self, count: int) -> int:
    """An unsigned number of as many bits."""
    self._left -= count
    if self._left < 0:
      raise IndexError
    return self._value >> self._left & ((1 << count) - 1)

  def code(self) -> int:
    """An unsigned number in Exp-Golomb code."""
    zeros = 0
    while not self.take(1):
      zeros += 1
    return (1 << zeros) - 1 + self.take(zeros)


def _read(bits: _Bits) -> Settings | None:
  """Reads a sequence parameter set, of which the first byte was read."""
  profile = bits.take(8)
  bits.take(16)  # constraints and level
  bits.code()  # number of the set
  if profile in _HIGH:
    sampling, depths = bits.code(), (bits.code(), bits.code())
    lossless, scaled = bits.take(1), bits.take(1)
    if sampling != 1 or any(depths) or lossless or scaled:
      return None
  bits.code()  # length of frame numbers
  order = bits.code()
  if order == 0:
    bits.code()
  elif order == 1:
    return None
  bits.code()  # reference frames
  bits.take(1)
  columns, rows = bits.code() + 1, bits.code() + 1
  if not bits.take(1):  # interlaced
    return None
  bits.take(1)
  left = right = top = bottom = 0
  if bits.take(1):
    left, right, top, bottom = (bits.code() for _ in range(4))
  matrix, colour_range, tells_colours = _UNKNOWN_MATRIX, _UNKNOWN_RANGE, False
  reorders = None
  if bits.take(1):
    matrix, colour_range, tells_colours = _read_colours(bits)
    reorders = _read_reorders(bits)
  if reorders is None and profile != _BASELINE:
    return None
  full = colour_range == 2
  return Settings(
    width=16 * columns - 2 * (left + right),
    height=16 * rows - 2 * (top + bottom),
    pixel_format='yuvj420p' if full else 'yuv420p',
    matrix=matrix,
    colour_range=colour_range,
    tells_colours=tells_colours,
    reorders=bool(reorders),
  )


def _read_colours(bits: _Bits) -> tuple[int, int, bool]:
  """Matrix, range, and whether both are told: the usability's first part."""
  if bits.take(1) and bits.take(8) == _EXTENDED:
    bits.take(32)
  if bits.take(1):
    bits.take(1)
  matrix, colour_range = _UNKNOWN_MATRIX, _UNKNOWN_RANGE
  told = False
  if bits.take(1):
    bits.take(3)
    colour_range = 1 + bits.take(1)
    if told := bool(bits.take(1)):
      bits.take(16)
      matrix = bits.take(8)
  return matrix, colour_range, told


def _read_reorders(bits: _Bits) -> bool | None:
  """Whether frames change their order; the usability's second part.

  Returns:
    None where it is not told.
  """
  if bits.take(1):
    for _ in range(2):  # where colours lie
      bits.code()
  if bits.take(1):
    bits.take(65)  # frame rate
  timed = [_skip_timing(bits) for _ in range(2)]
  if any(timed):
    bits.take(1)
  bits.take(1)
  if not bits.take(1):
    return None
  bits.take(1)
  for _ in range(4):
    bits.code()
  return bool(bits.code())


def _skip_timing(bits: _Bits) -> bool:
  """Skips what describes a buffer; whether it was there."""
  if not bits.take(1):
    return False
  count = bits.code() + 1
  bits.take(8)
  for _ in range(count):
    for _ in range(2):
      bits.code()
    bits.take(1)
  bits.take(20)
  return True
