"""Tells, without decoding, that a video surely needs no rotation.

FFmpeg says how to turn a frame with the frame itself, and to decode one only
for that costs as much as three that are wanted. So the file's header is looked
at: where it says or might say that something is to be turned, ask a frame.
"""

import io
import re
import struct
from collections.abc import Iterator

# The matrices of MP4 that turn, mirror and scale nothing: a, b, u, c, d.
_IDENTITY = struct.pack('>5i', 0x10000, 0, 0, 0, 0x10000)
# Where a box's matrix begins, by its version, after its type.
_MATRIX_AT = {b'mvhd': (40, 52), b'tkhd': (44, 56)}

# Its table of contents names the element before it comes.
_TRACKS = re.compile(rb'(?<!\x53\xab\x84)\x16\x54\xae\x6b(?=[^\0])')
_PROJECTION = b'\x76\x70'
_HEAD_BYTES = 2**16


def is_upright(source: bytes | str, kind: str) -> bool:
  """Whether no rotation is asked for, as far as the header is sure of it.

  Args:
    source: The file's bytes, or its local path.
    kind: 'mp4' for MP4 and QuickTime, 'matroska' for Matroska and WebM.

  Returns:
    True: its frames are shown as they are stored, unless the stream itself
    says otherwise. False: they may have to be turned.
  """
  check = {'mp4': _mp4, 'matroska': _matroska}[kind]
  if isinstance(source, bytes):
    return check(io.BytesIO(source))
  with open(source, 'rb') as file:
    return check(file)


def _mp4(file: io.BufferedIOBase) -> bool:
  """Looks at the matrices of the movie and of all its tracks."""
  matrices = 0
  for moov, start, stop in _boxes(file, 0, None):
    if moov != b'moov':
      continue
    for name, first, last in _boxes(file, start, stop):
      inner = [(name, first, last)]
      if name == b'trak':
        inner = list(_boxes(file, first, last))
      for box, at, _ in inner:
        if box not in _MATRIX_AT:
          continue
        file.seek(at)
        content = file.read(80)
        begin = _MATRIX_AT[box][content[:1] == b'\1'] - 4
        if content[begin : begin + len(_IDENTITY)] != _IDENTITY:
          return False
        matrices += 1
    return matrices > 1
  return False


def _boxes(
  file: io.BufferedIOBase, at: int, stop: int | None
) -> Iterator[tuple[bytes, int, int]]:
  """Yields the type of each box and where its content begins and ends."""
  while stop is None or at + 8 <= stop:
    file.seek(at)
    header = file.read(16)
    if len(header) < 8:
      return
    size, name = struct.unpack('>I4s', header[:8])
    begin = at + 8
    if size == 1 and len(header) == 16:
      (size,) = struct.unpack('>Q', header[8:])
      begin = at + 16
    if size < begin - at:
      return  # to the end of the file, or nonsense
    yield name, begin, at + size
    at += size


def _matroska(file: io.BufferedIOBase) -> bool:
  """Looks for the element that turns, in the description of the tracks."""
  head = file.read(_HEAD_BYTES)
  found = _TRACKS.search(head)
  if not found:
    return False
  at = found.end()
  # A size is one to eight bytes; as many zero bits lead it as bytes follow.
  follow = 8 - head[at].bit_length()
  begin = at + 1 + follow
  size = int.from_bytes(head[at:begin], 'big') & ((1 << 7 * (follow + 1)) - 1)
  described = head[begin : begin + size]
  return len(described) == size and _PROJECTION not in described
