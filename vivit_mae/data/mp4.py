"""The tables of an MP4 or QuickTime file (ISO/IEC 14496-12).

Read where that saves opening the file with FFmpeg, which decodes a frame of
each stream for it, and reading its packets. Only files of the plain form are
read, as encoders write them; of all others nothing is said.
"""

import dataclasses
import struct
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

# The matrices that turn, mirror and scale nothing: a, b, u, c, d.
_IDENTITY = struct.pack('>5i', 0x10000, 0, 0, 0, 0x10000)
# Where in the content of a header, by its version: the matrix of the film and
# of a track, and the ticks of a second.
_MATRIX_AT = {b'mvhd': (36, 48), b'tkhd': (40, 52)}
_SCALE_AT = (12, 20)
# A header is not larger, unless something is wrong with it.
_MAX_HEADER = 2**27
# More boxes are not looked at, side by side.
_MAX_BOXES = 1000

# What a track's tables may consist of besides those that are read, and what
# the description of its pictures may say.
_TABLES = {b'stsd', b'stts', b'stsc', b'stsz', b'stss', b'stco', b'co64'}
_OTHER_TABLES = {b'ctts', b'sgpd', b'sbgp', b'sdtp', b'cslg', b'udta', b'free'}
_DESCRIBED = {b'avcC', b'colr', b'pasp', b'btrt'}
# Bytes of the description of pictures before its boxes.
_PICTURES = 78

Span = tuple[int, int]
Boxes = dict[bytes, list[Span]]


class _UnusualError(Exception):
  """A file that is not of the plain form."""


@dataclasses.dataclass(frozen=True, eq=False)
class Track:
  """The one H.264 track of a file of the plain form.

  Attributes:
    tick: Seconds in which its times are counted.
    size: (width, height) of its pictures, as the file tells it.
    config: The decoder's settings, the content of its `avcC` box.
    has_colours: Whether the file says how colours are to be read.
    begins: Where in the file each packet begins.
    sizes: The bytes of each.
    is_key: Whether decoding can start at each.
    dts: When each is decoded, in ticks.
    pts: When each is shown.
  """

  tick: Fraction
  size: tuple[int, int]
  config: bytes
  has_colours: bool
  begins: Int[np.ndarray, 'n']
  sizes: Int[np.ndarray, 'n']
  is_key: Bool[np.ndarray, 'n']
  dts: Int[np.ndarray, 'n']
  pts: Int[np.ndarray, 'n']


def read_header(read: Callable[[int, int], bytes]) -> bytes:
  """The content of the box that describes the film.

  Args:
    read: Gives the bytes of the file from a place on, as many as are asked for
      or as there are.

  Returns:
    The content of its first `moov` box, all of it or what the file still holds;
    nothing where there is none, or too much.
  """
  at = 0
  for _ in range(_MAX_BOXES):
    begin = read(at, 16)
    if len(begin) < 8:
      break
    name, head, size = _parse(begin, 0)
    if name == b'moov':
      return read(at + head, size - head) if size <= _MAX_HEADER else b''
    if size < head:
      break  # to the end of the file, or nonsense
    at += size
  return b''


def is_upright(header: bytes) -> bool:
  """Whether no rotation is asked for, as far as the header is sure of it.

  Args:
    header: What `read_header` gives.

  Returns:
    True: frames are shown as they are stored, unless the stream itself says
    otherwise. False: they may have to be turned.
  """
  film = _boxes(header, (0, len(header)))
  spans = [(b'mvhd', span) for span in film.get(b'mvhd', ())] + [
    (b'tkhd', span)
    for track in film.get(b'trak', ())
    for span in _boxes(header, track).get(b'tkhd', ())
  ]
  for name, (start, stop) in spans:
    at = start + _MATRIX_AT[name][header[start : start + 1] == b'\1']
    if header[at : min(at + len(_IDENTITY), stop)] != _IDENTITY:
      return False
  return len(spans) > 1


def read_track(header: bytes) -> Track | None:
  """Reads where the packets of a video are and when they are shown.

  Args:
    header: What `read_header` gives.

  Returns:
    Its only video track, all of which is shown; None where the file is not of
    the plain form, so that FFmpeg is to be asked: fragments, several tracks,
    other codecs, edit lists that hide frames, tables that contradict.
  """
  try:
    return _read_track(header) if is_upright(header) else None
  except (_UnusualError, struct.error):
    return None


def _read_track(header: bytes) -> Track:
  film = _boxes(header, (0, len(header)))
  _expect(not film.keys() & {b'mvex', b'cmov'})
  tracks = []
  for span in film.get(b'trak', ()):
    media = _boxes(header, _only(_boxes(header, span), b'mdia'))
    handler, _ = _only(media, b'hdlr')
    if header[handler + 8 : handler + 12] == b'vide':
      tracks.append((_boxes(header, span), media))
  _expect(len(tracks) == 1)
  track, media = tracks[0]
  tables = _boxes(header, _only(_boxes(header, _only(media, b'minf')), b'stbl'))
  _expect(not tables.keys() - _TABLES - _OTHER_TABLES)
  sizes = _sizes(header, _only(tables, b'stsz'))
  count = len(sizes)
  steps = _repeated(header, _only(tables, b'stts'), count)
  _expect(steps.min() > 0)
  pts = dts = np.cumsum(steps) - steps
  if b'ctts' in tables:
    pts = dts + _repeated(header, _only(tables, b'ctts'), count)
  is_key = np.zeros(count, np.bool_)
  keys = _table(header, _only(tables, b'stss'), '>u4', 1)[:, 0] - 1
  _expect(len(keys) > 0 and keys.min() >= 0 and keys.max() < count)
  is_key[keys] = True
  scale = _scale(header, _only(media, b'mdhd'))
  _check_edits(
    header,
    track,
    scale / _scale(header, _only(film, b'mvhd')),
    steps,
    pts,
    is_key,
  )
  size, config, has_colours = _read_description(header, _only(tables, b'stsd'))
  return Track(
    tick=1 / scale,
    size=size,
    config=config,
    has_colours=has_colours,
    begins=_begins(header, tables, sizes),
    sizes=sizes,
    is_key=is_key,
    dts=dts,
    pts=pts,
  )


def _sizes(header: bytes, span: Span) -> Int[np.ndarray, 'n']:
  """The bytes of each packet."""
  start, stop = span
  alike, count = struct.unpack_from('>II', header, start + 4)
  _expect(not alike and count > 1 and stop - start >= 12 + 4 * count)
  sizes = np.frombuffer(header, '>u4', count, start + 12).astype(np.int64)
  _expect(sizes.min() > 0)
  return sizes


def _begins(
  header: bytes, tables: Boxes, sizes: Int[np.ndarray, 'n']
) -> Int[np.ndarray, 'n']:
  """Where each packet begins: packets lie in chunks, without gaps."""
  name = b'co64' if b'co64' in tables else b'stco'
  _expect(not (b'co64' in tables and b'stco' in tables))
  kind = '>u8' if name == b'co64' else '>u4'
  chunks = _table(header, _only(tables, name), kind, 1)[:, 0]
  firsts, packets, described = _table(
    header, _only(tables, b'stsc'), '>u4', 3
  ).T
  _expect(len(firsts) > 0 and firsts[0] == 1 and np.all(described == 1))
  lengths = np.diff(firsts, append=len(chunks) + 1)
  _expect(lengths.min() > 0 and packets.min() > 0)
  in_chunk = np.repeat(packets, lengths)
  _expect(int(in_chunk.sum()) == len(sizes))
  before = np.cumsum(sizes) - sizes
  first = np.cumsum(in_chunk) - in_chunk
  return np.repeat(chunks - before[first], in_chunk) + before


def _check_edits(
  header: bytes,
  track: Boxes,
  ticks: Fraction,
  steps: Int[np.ndarray, 'n'],
  pts: Int[np.ndarray, 'n'],
  is_key: Bool[np.ndarray, 'n'],
) -> None:
  """Expects an edit list, if there is one, to show every packet once.

  Args:
    header: The file's.
    track: Boxes of the track.
    ticks: How many of the track's ticks are one of the film's.
    steps: How long each packet lasts.
    pts: When each is shown.
    is_key: Whether decoding can start at each.
  """
  if b'edts' not in track:
    return
  start, _ = _only(_boxes(header, _only(track, b'edts')), b'elst')
  form = '>QqI' if header[start : start + 1] == b'\1' else '>IiI'
  (count,) = struct.unpack_from('>I', header, start + 4)
  _expect(count in (1, 2))
  *waits, (length, begin, rate) = (
    struct.unpack_from(form, header, start + 8 + k * struct.calcsize(form))
    for k in range(count)
  )
  _expect(all(begins == -1 for _, begins, _ in waits) and rate == 1 << 16)
  end = begin + int(length * ticks)
  _expect(0 <= begin <= pts.min() and pts.max() < end)
  # FFmpeg ends at a key frame that reaches the end.
  _expect((pts + steps)[is_key].max() < end)


def _read_description(
  header: bytes, span: Span
) -> tuple[tuple[int, int], bytes, bool]:
  """Size, decoder's settings, and whether there is a word on colours."""
  start, stop = span
  (count,) = struct.unpack_from('>I', header, start + 4)
  name, head, size = _parse(header, start + 8)
  _expect(count == 1 and name == b'avc1' and start + 8 + size <= stop)
  begin = start + 8 + head
  width, height = struct.unpack_from('>HH', header, begin + 24)
  inner = _boxes(header, (begin + _PICTURES, start + 8 + size))
  _expect(not inner.keys() - _DESCRIBED)
  first, last = _only(inner, b'avcC')
  return (width, height), header[first:last], b'colr' in inner


def _repeated(
  header: bytes, span: Span, count: int
) -> Int[np.ndarray, 'count']:
  """Numbers that a table gives with how often each follows."""
  often, numbers = _table(header, span, '>i4', 2).T
  _expect(len(often) > 0 and often.min() > 0 and int(often.sum()) == count)
  return np.repeat(numbers, often)


def _table(
  header: bytes, span: Span, kind: str, columns: int
) -> Int[np.ndarray, 'n columns']:
  """A table that fills the rest of its box."""
  start, stop = span
  (rows,) = struct.unpack_from('>I', header, start + 4)
  _expect(stop - start >= 8 + rows * columns * np.dtype(kind).itemsize)
  found = np.frombuffer(header, kind, rows * columns, start + 8)
  return found.reshape(rows, columns).astype(np.int64)


def _scale(header: bytes, span: Span) -> Fraction:
  """Ticks of a second, in the header of the film or of a track's media."""
  at = span[0] + _SCALE_AT[header[span[0] : span[0] + 1] == b'\1']
  scale = int.from_bytes(header[at : at + 4], 'big')
  _expect(scale > 0)
  return Fraction(scale)


def _only(boxes: Boxes, name: bytes) -> Span:
  """Where the content of the one box of a name is."""
  found = boxes.get(name, [])
  _expect(len(found) == 1)
  return found[0]


def _boxes(header: bytes, span: Span) -> Boxes:
  """Where the contents of the boxes in a box begin and end, by name."""
  at, stop = span
  found: Boxes = {}
  for _ in range(_MAX_BOXES):
    if at + 8 > stop:
      break
    name, head, size = _parse(header, at)
    if size < head or at + size > stop:
      break
    found.setdefault(name, []).append((at + head, at + size))
    at += size
  return found


def _parse(data: bytes, at: int) -> tuple[bytes, int, int]:
  """A box's name, the size of what stands before its content, and its size."""
  size, name = struct.unpack_from('>I4s', data, at)
  if size != 1 or at + 16 > len(data):
    return name, 8, size
  return name, 16, struct.unpack_from('>Q', data, at + 8)[0]


def _expect(condition: Any) -> None:
  if not condition:
    raise _UnusualError
