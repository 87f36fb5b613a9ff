"""The packets of an open video file, and when they are shown.

A list of them is an index of the frames, so that a few can be decoded without
the rest. Here it is had by reading them; `tables` can do without.
"""

import abc
import dataclasses
import functools
import itertools
from collections.abc import Generator, Iterator, Sequence
from fractions import Fraction

import av
import av.container
import av.error
import numpy as np
from jaxtyping import Int

from vivit_mae.data import container
from vivit_mae.data.container import AVI, GIF, MATROSKA, MOV, VideoFile
from vivit_mae.data.video import VideoError

# No video has more packets than this; at 30 a second they last 38 hours.
MAX_PACKETS = 2**22
# Files with more bytes of packets than this are read twice rather than kept.
KEEP_BYTES = 2**28

# Only these containers store true presentation times for every packet, and
# only these decoders were checked to skip frames without changing others.
_INDEXED_FORMATS = (MOV, MATROSKA)
_INDEXED_CODECS = ('h264', 'hevc', 'mpeg4', 'vp8', 'vp9', 'av1', 'libdav1d')
# Streams cut anywhere are whole files in the other formats.
_BOUNDED_FORMATS = (MOV, MATROSKA, AVI, GIF)
# Frames that a decoder may hold back, in H.264 and HEVC.
_MAX_REORDER = 16
# Packets that are listed together.
_CHUNK = 256


class DeceivedError(Exception):
  """What was trusted turned out to be wrong.

  Attributes:
    left: What may still be trusted; see `decoder.Decoder`.
  """

  def __init__(self, *left: str):
    super().__init__()
    self.left = left


@dataclasses.dataclass(frozen=True)
class Looks:
  """How the stored frames of a video look, and are to be shown.

  Attributes:
    width: Columns.
    height: Rows.
    rotation: Degrees (0, 90, 180, 270) to turn them clockwise.
    format: FFmpeg's name of the pixels' format.
    matrix: FFmpeg's number of the colour space.
    colour_range: FFmpeg's number of the range.
  """

  width: int
  height: int
  rotation: int
  format: str
  matrix: int
  colour_range: int

  @classmethod
  def of(cls, frame: av.VideoFrame) -> 'Looks':
    """Those of a frame."""
    return cls(
      width=frame.width,
      height=frame.height,
      rotation=round(-frame.rotation / 90) * 90 % 360,
      format=frame.format.name,
      matrix=int(frame.colorspace),
      colour_range=int(frame.color_range),
    )


class Packets(abc.ABC):
  """Packets of a video that hold data, in the order of the file.

  Attributes:
    decoder: What decodes them, limited to one thread.
    tick: Seconds in which times are counted.
    rate: Frames a second by the header; None if it does not say.
    looks: What the header says of the frames; None where that is not enough.
    first: The first packet of the video, whatever the segment.
    pts: Presentation time of each packet, in ticks; 0 where unknown.
    is_key: Whether decoding can start at each packet.
    order: Positions of the packets that are shown, in order of time; None
      where the container's word is not to be relied on.
  """

  decoder: av.VideoCodecContext
  tick: Fraction
  rate: float | None
  looks: Looks | None
  first: av.Packet | None
  pts: list[int]
  is_key: list[bool]
  order: list[int] | None

  @abc.abstractmethod
  def runs(
    self, bounds: Sequence[tuple[int, int]]
  ) -> Generator[Iterator[tuple[int, av.Packet]], None, None]:
    """Some of the packets, with their positions in the list.

    Args:
      bounds: The first and the last position of each run, ascending.

    Yields:
      The packets of each run, which are to be taken before the next is.

    Raises:
      DeceivedError: the file holds others than its tables say.
    """


def read(file: VideoFile) -> Packets:
  """Reads the packets of a video, or those that its segment needs.

  Args:
    file: The open file.

  Returns:
    Its packets.

  Raises:
    VideoError: it is broken, or holds less than it declares.
  """
  found = None
  if file.window is not None and _can_index(file):
    found = _read_window(file, *file.window)
  return found or _read_all(file)


class _Read(Packets):
  """Packets that were read, and are kept unless they are too large."""

  def __init__(self, file: VideoFile):
    rate = file.stream.average_rate or file.stream.guessed_rate
    self.decoder = file.decoder
    self.tick = file.stream.time_base or Fraction(1)
    self.rate = float(rate) if rate else None
    self.first: av.Packet | None = None
    self.pts: list[int] = []
    self.is_key: list[bool] = []
    self.order: list[int] | None = None
    self._file = file
    self._kept: list[av.Packet] | None = []
    self._size = 0  # bytes of the packets
    # From when each is decoded to when it is shown, at least and at most.
    self._delays = (0, 0)
    self._timed = True

  @functools.cached_property
  def looks(self) -> Looks | None:
    decoder = self.decoder
    if not (decoder.pix_fmt and decoder.width and self._file.is_upright()):
      return None
    return Looks(
      width=decoder.width,
      height=decoder.height,
      rotation=0,
      format=decoder.pix_fmt,
      matrix=int(decoder.colorspace),
      colour_range=int(decoder.color_range),
    )

  def append(self, packets: list[av.Packet]) -> None:
    """Adds packets that were read."""
    self._file.check_time()
    self.first = self.first or packets[0]
    self.pts += [p.pts or 0 for p in packets]
    self.is_key += [p.is_keyframe for p in packets]
    if len(self.pts) > MAX_PACKETS:
      raise VideoError(
        'too_large', self._file.name, f'it has more than {MAX_PACKETS} packets'
      )
    self._size += sum(p.size for p in packets)
    self._timed = self._timed and all(p.pts is not None for p in packets)
    delays = [
      p.pts - p.dts for p in packets if p.pts is not None and p.dts is not None
    ]
    self._delays = (
      min([self._delays[0], *delays]),
      max([self._delays[1], *delays]),
    )
    if self._size > KEEP_BYTES:
      self._kept = None
    elif self._kept is not None:
      self._kept += packets

  def has_order(self) -> bool:
    """Whether their times can be those of showing them."""
    return self._timed and tells_order(
      np.asarray(self.pts), self._delays, bool(self.decoder.has_b_frames)
    )

  def runs(
    self, bounds: Sequence[tuple[int, int]]
  ) -> Generator[Iterator[tuple[int, av.Packet]], None, None]:
    if self._kept is not None:
      for start, stop in bounds:
        yield zip(
          range(start, stop + 1), self._kept[start : stop + 1], strict=True
        )
      return
    with self._file.open() as (opened, stream):
      if self._file.window is not None:
        container.seek(opened, stream, self._file.window[0])
      packets = enumerate(_demux(opened, stream))
      at = 0
      for start, stop in bounds:
        yield itertools.islice(packets, start - at, stop + 1 - at)
        at = stop + 1


def _can_index(file: VideoFile) -> bool:
  """Whether the kinds of file and stream let packets serve as an index."""
  return file.kind in _INDEXED_FORMATS and file.decoder.name in _INDEXED_CODECS


def tells_order(
  pts: Int[np.ndarray, 'n'], delays: tuple[int, int], reorders: bool
) -> bool:
  """Whether the times of packets can be those of showing them.

  Args:
    pts: The times.
    delays: The ticks from when each is decoded to when it is shown, at least
      and at most.
    reorders: Whether the stream says that it changes the order.

  Returns:
    Whether nothing speaks against it.
  """
  least, most = delays
  ranks = np.argsort(pts)
  steps = np.diff(pts[ranks])
  if least < 0 or not np.all(steps):
    return False
  moves = np.abs(ranks - np.arange(len(pts)))
  if not reorders:
    return not moves.any()
  # Frames that are not shown in the order in which they come can't all be
  # shown when they are decoded, and not long after it either.
  if not most or moves.max() > _MAX_REORDER:
    return False
  # One with another's time would come shortly before or after a third.
  return not len(steps) or bool(2 * steps.min() >= np.median(steps))


def _read_window(file: VideoFile, start: int, stop: int) -> Packets | None:
  """Reads the packets that show some ticks; None if that can't be done."""
  found = _Read(file)
  shown: list[int] = []
  with file.open() as (opened, stream):
    try:
      found.first = next(_demux(opened, stream), None)
      container.seek(opened, stream, start)
      for packet in _demux(opened, stream):
        if packet.pts is None or packet.dts is None:
          return None
        if packet.dts >= stop:
          break  # nothing that follows is shown before
        if start <= packet.pts < stop and not packet.is_discard:
          shown.append(len(found.pts))
        found.append([packet])
    except av.error.FFmpegError as error:
      raise VideoError('corrupt', file.name, container.reason(error)) from None
  begin = file.stream.start_time
  if (
    found.pts
    and found.has_order()
    and found.is_key[0]
    and (found.pts[0] <= start or (begin is not None and found.pts[0] <= begin))
  ):
    found.order = sorted(shown, key=lambda j: found.pts[j])
    return found
  return None


def _read_all(file: VideoFile) -> Packets:
  """Reads all packets, and decides whether they can serve as an index."""
  # The end of Matroska is judged by time, and sound may outlast the pictures.
  matroska = file.kind == MATROSKA
  streams = () if matroska else (file.stream,)
  found = _Read(file)
  end = 0.0
  shown: list[int] = []
  last = None
  demuxed = file.container.demux(*streams)
  try:
    # In chunks, for each of which the loops are short.
    while packets := list(itertools.islice(demuxed, _CHUNK)):
      packets = [p for p in packets if p.size]
      if matroska:
        end = max([end, *map(_end_of, packets)])
        packets = [p for p in packets if p.stream_index == file.stream.index]
      if not packets:
        continue
      first = len(found.pts)
      shown += [first + j for j, p in enumerate(packets) if not p.is_discard]
      found.append(packets)
      last = packets[-1]
  except av.error.FFmpegError as error:
    raise VideoError('corrupt', file.name, container.reason(error)) from None
  if last is None:
    raise VideoError('no_frames', file.name, 'its video stream is empty')
  if file.kind in _BOUNDED_FORMATS:
    file.check_end(len(found.pts), last, end)
  if (
    _can_index(file)
    and found.has_order()
    and shown
    # Frames shown before the first key frame may or may not decode.
    and found.is_key[0]
    and found.pts[0] == min(found.pts)
  ):
    if file.window is not None:
      start, stop = file.window
      shown = [j for j in shown if start <= found.pts[j] < stop]
    found.order = sorted(shown, key=lambda j: found.pts[j])
  return found


def _demux(
  opened: av.container.InputContainer, stream: av.VideoStream
) -> Iterator[av.Packet]:
  """Packets that hold data."""
  return (p for p in opened.demux(stream) if p.size)


def _end_of(packet: av.Packet) -> float:
  """When a packet ends, in seconds; 0 if it does not say."""
  if packet.pts is None:
    return 0.0
  ticks = packet.pts + (packet.duration or 0)
  return ticks * packet.time_base.numerator / packet.time_base.denominator
