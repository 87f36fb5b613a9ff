"""Video files opened with care: their stream, their packets, their end.

Together with `decode` the only file that reads through PyAV. What FFmpeg lets
pass in silence is an error here: a file that ends before its header says so,
cover art posing as a video, a header that asks for gigabytes.
"""

import contextlib
import io
import itertools
import math
import os
import stat
import struct
import time
from collections.abc import Generator, Iterator, Sequence
from typing import cast

import av
import av.container
import av.error
import av.stream
import numpy as np
from etils import epath

from vivit_mae.data import orientation
from vivit_mae.data.video import VideoError

# Larger frames are refused before memory is taken for them; 8K video fits.
MAX_PIXELS = 2**25
# No video has more packets than this; at 30 a second they last 38 hours.
MAX_PACKETS = 2**22
# Files with more bytes of packets than this are read twice rather than kept.
KEEP_BYTES = 2**28

_MOV, _MATROSKA = 'mov,mp4,m4a,3gp,3g2,mj2', 'matroska,webm'
# Only these containers store true presentation times for every packet, and
# only these decoders were checked to skip frames without changing others.
_INDEXED_FORMATS = (_MOV, _MATROSKA)
_INDEXED_CODECS = ('h264', 'hevc', 'mpeg4', 'vp8', 'vp9', 'av1', 'libdav1d')
# Streams cut anywhere are whole files in the other formats.
_BOUNDED_FORMATS = (_MOV, _MATROSKA, 'avi', 'gif')
# Playlists would open other files, and FFmpeg can render plain text.
_FORMATS = (
  'mov,matroska,avi,gif,apng,mpegts,mpeg,mpegvideo,m4v,flv,asf,ogg,h264,hevc,'
  'obu,ivf,mjpeg,mxf,nut,dv,rm,vc1,wtv,webp,yuv4mpegpipe'
)
# Seconds; frames are shown less long after they are decoded.
_SEEK_MARGIN = 1
# Frames that a decoder may hold back, in H.264 and HEVC.
_MAX_REORDER = 16
# Packets that are listed together.
_CHUNK = 256
# Keeps FFmpeg from reading a protocol into a name with a colon.
_LOCAL = 'file:'
_ATTACHED = av.stream.Disposition.attached_pic


class VideoFile:
  """An open video file with the list of its packets; a context manager.

  Attributes:
    name: What errors call it.
    stream: FFmpeg's choice of the best video stream.
    decoder: Its decoder, limited to one thread.
    first: The first packet of the video, whatever the segment.
    packets: All packets that hold data; None when too large to keep.
    pts: Presentation time of each packet, in ticks; 0 where unknown.
    is_key: Whether decoding can start at each packet.
    order: Positions of the packets that are shown, in order of time; None
      where the container's word is not to be relied on.
    window: The ticks that are asked for, from the first to before the second;
      None for all. Only packets that they need are listed, if there is an
      order.
  """

  stream: av.VideoStream
  decoder: av.VideoCodecContext

  def __init__(
    self,
    source: bytes | str | os.PathLike,
    name: str,
    segment: tuple[float | int, float | int] | None = None,
    seconds: float | int | None = None,
  ):
    """Prepares to open a file.

    Args:
      source: Its bytes or its path.
      name: What errors call it; a path names itself.
      segment: Start and end in seconds of what is asked for; None for all.
      seconds: How long reading may take; None for ever.
    """
    self.name = name if isinstance(source, bytes) else name or str(source)
    self.first: av.Packet | None = None
    self.packets: list[av.Packet] | None = []
    self.pts: list[int] = []
    self.is_key: list[bool] = []
    self.order: list[int] | None = None
    self.window: tuple[int, int] | None = None
    self._segment = segment
    self._seconds = seconds
    self._end = None if seconds is None else time.monotonic() + seconds
    self._size = 0  # bytes of the packets
    # From when each is decoded to when it is shown, at least and at most.
    self._delays = (0, 0)
    self._source = _load(source, self.name)

  def __enter__(self):
    with contextlib.ExitStack() as stack:
      self._container, self.stream = stack.enter_context(self.open())
      self.decoder = self.stream.codec_context
      if self._segment is not None:
        tick = self.stream.time_base or 1
        zero = self.stream.start_time or 0
        # The first ticks that are not before its start, and its end.
        start, stop = (zero + math.ceil(t / tick - 1e-6) for t in self._segment)
        self.window = (start, stop)
      if self.window is None or not self._list_window(*self.window):
        self._list_packets()
      self._stack = stack.pop_all()
    return self

  def __exit__(self, *error):
    self.packets = self.first = None
    self._stack.close()

  @contextlib.contextmanager
  def open(
    self, *, strict: bool = False, ignore_edits: bool = False
  ) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """Opens the file at its best video stream, with a decoder of its own.

    Args:
      strict: Let the decoder report faults that it could conceal.
      ignore_edits: Show what an MP4's edit list hides.

    Yields:
      The container and the stream.

    Raises:
      VideoError: there is nothing to decode, or too much.
    """
    source = self._source
    target = io.BytesIO(source) if isinstance(source, bytes) else source
    limit = {'max_pixels': str(MAX_PIXELS)}
    options = {'format_whitelist': _FORMATS, **limit}
    if ignore_edits:
      options['ignore_editlist'] = '1'
    try:
      container = av.open(
        target, mode='r', options=options, metadata_errors='replace'
      )
    except av.error.FFmpegError as error:
      raise VideoError('unreadable', self.name, reason(error)) from None
    with container:
      stream = cast(av.VideoStream | None, container.streams.best('video'))
      if stream is None or stream.disposition & _ATTACHED:
        raise VideoError('no_video', self.name)
      decoder = stream.codec_context
      if decoder is None:
        raise VideoError('unsupported', self.name)
      width, height = decoder.width, decoder.height
      if container.format.name == 'gif':
        # FFmpeg learns it from the first frame that decodes, if one does.
        width, height = struct.unpack('<6xHH', self._read_ends()[0][:10])
      if width * height > MAX_PIXELS:
        raise VideoError(
          'too_large',
          self.name,
          f'{width}x{height}; at most {MAX_PIXELS} pixels are read',
        )
      if container.format.name == _MOV:
        for other in container.streams:
          if other.index != stream.index:
            other.discard = av.stream.Discard.all  # not even read
      decoder.thread_type = 'NONE'
      decoder.thread_count = 1
      decoder.options = limit | ({'err_detect': 'explode'} if strict else {})
      yield container, stream

  def check_time(self) -> None:
    """Raises VideoError when reading has taken too long."""
    if self._end is not None and time.monotonic() > self._end:
      raise VideoError('timeout', self.name, f'more than {self._seconds:g} s')

  def is_upright(self) -> bool:
    """Whether the header is sure that frames are shown as they are stored."""
    kind = {_MOV: 'mp4', _MATROSKA: 'matroska'}[self._container.format.name]
    source = self._source
    if isinstance(source, str):
      source = source.removeprefix(_LOCAL)
    return orientation.is_upright(source, kind)

  def runs(
    self, bounds: Sequence[tuple[int, int]]
  ) -> Generator[Iterator[tuple[int, av.Packet]], None, None]:
    """Some of the packets that are listed, with their positions in the list.

    Args:
      bounds: The first and the last position of each run, ascending.

    Yields:
      The packets of each run, which are to be taken before the next is.
    """
    if self.packets is not None:
      for start, stop in bounds:
        yield zip(
          range(start, stop + 1), self.packets[start : stop + 1], strict=True
        )
      return
    with self.open() as (container, stream):
      if self.window is not None:
        _seek(container, stream, self.window[0])
      packets = enumerate(p for p in container.demux(stream) if p.size)
      at = 0
      for start, stop in bounds:
        yield itertools.islice(packets, start - at, stop + 1 - at)
        at = stop + 1

  def _has_index(self) -> bool:
    """Whether the kinds of file and stream let packets serve as an index."""
    return (
      self._container.format.name in _INDEXED_FORMATS
      and self.decoder.name in _INDEXED_CODECS
    )

  def _tells_order(self) -> bool:
    """Whether the times of the packets can be those of showing them."""
    least, most = self._delays
    pts = np.asarray(self.pts)
    ranks = np.argsort(pts)
    steps = np.diff(pts[ranks])
    if least < 0 or not np.all(steps):
      return False
    moves = np.abs(ranks - np.arange(len(pts)))
    if not self.decoder.has_b_frames:
      return not moves.any()
    # Frames that are not shown in the order in which they come can't all be
    # shown when they are decoded, and not long after it either.
    if not most or moves.max() > _MAX_REORDER:
      return False
    # One with another's time would come shortly before or after a third.
    return not len(steps) or bool(2 * steps.min() >= np.median(steps))

  def _list_window(self, start: int, stop: int) -> bool:
    """Lists the packets that show some ticks; whether that could be done."""
    if not self._has_index():
      return False
    shown: list[int] = []
    trusted = True
    with self.open() as (container, stream):
      try:
        packets = (p for p in container.demux(stream) if p.size)
        self.first = next(packets, None)
        _seek(container, stream, start)
        for packet in container.demux(stream):
          if not packet.size:
            continue
          if packet.pts is None or packet.dts is None:
            trusted = False
            break
          if packet.dts >= stop:
            break  # nothing that follows is shown before
          if start <= packet.pts < stop and not packet.is_discard:
            shown.append(len(self.pts))
          self._append([packet])
      except av.error.FFmpegError as error:
        raise VideoError('corrupt', self.name, reason(error)) from None
    if (
      trusted
      and self.pts
      and self._tells_order()
      and self.is_key[0]
      and (self.pts[0] <= start or self._is_first(self.pts[0]))
    ):
      self.order = sorted(shown, key=lambda j: self.pts[j])
      return True
    self.pts, self.is_key, self.packets, self._size = [], [], [], 0
    return False

  def _is_first(self, pts: int) -> bool:
    """Whether a video begins at this tick."""
    return self.stream.start_time is not None and pts <= self.stream.start_time

  def _append(self, packets: list[av.Packet]) -> None:
    """Adds packets of the video to the list."""
    self.check_time()
    self.first = self.first or packets[0]
    self.pts += [p.pts or 0 for p in packets]
    self.is_key += [p.is_keyframe for p in packets]
    if len(self.pts) > MAX_PACKETS:
      raise VideoError(
        'too_large', self.name, f'it has more than {MAX_PACKETS} packets'
      )
    self._size += sum(p.size for p in packets)
    delays = [
      p.pts - p.dts for p in packets if p.pts is not None and p.dts is not None
    ]
    self._delays = (
      min([self._delays[0], *delays]),
      max([self._delays[1], *delays]),
    )
    if self._size > KEEP_BYTES:
      self.packets = None
    elif self.packets is not None:
      self.packets += packets

  def _list_packets(self) -> None:
    """Lists the packets, and decides whether they can serve as an index."""
    kind = self._container.format.name
    # The end of Matroska is judged by time, and sound may outlast the pictures.
    streams = () if kind == _MATROSKA else (self.stream,)
    end, timed = 0.0, True
    shown: list[int] = []
    last = None
    demuxed = self._container.demux(*streams)
    try:
      # In chunks, for each of which the loops are short.
      while packets := list(itertools.islice(demuxed, _CHUNK)):
        packets = [p for p in packets if p.size]
        if kind == _MATROSKA:
          end = max([end, *map(_end_of, packets)])
          index = self.stream.index
          packets = [p for p in packets if p.stream_index == index]
        if not packets:
          continue
        first = len(self.pts)
        shown += [first + j for j, p in enumerate(packets) if not p.is_discard]
        self._append(packets)
        timed = timed and all(p.pts is not None for p in packets)
        last = packets[-1]
    except av.error.FFmpegError as error:
      raise VideoError('corrupt', self.name, reason(error)) from None
    if last is None:
      raise VideoError('no_frames', self.name, 'its video stream is empty')
    if kind in _BOUNDED_FORMATS:
      self._check_end(kind, last, end)
    if (
      self._has_index()
      and timed
      and self._tells_order()
      and shown
      # Frames shown before the first key frame may or may not decode.
      and self.is_key[0]
      and self.pts[0] == min(self.pts)
    ):
      if self.window is not None:
        start, stop = self.window
        shown = [j for j in shown if start <= self.pts[j] < stop]
      self.order = sorted(shown, key=lambda j: self.pts[j])

  def _check_end(self, kind: str, last: av.Packet, end: float) -> None:
    """Raises VideoError where the header promises more than the file holds.

    Args:
      kind: FFmpeg's name of the container.
      last: The last packet of the video stream.
      end: When the last packet of any stream ends, in seconds.
    """
    declared, found = self.stream.frames, len(self.pts)
    if kind == _MATROSKA:
      # It counts no frames. Rounding and odd last frames take some slack.
      promised = (self._container.duration or 0) / av.time_base
      if end < promised - max(0.15, 0.01 * promised):
        raise VideoError(
          'truncated',
          self.name,
          f'its header declares {promised:.2f} s, {end:.2f} s are in the file',
        )
    if kind == 'avi' and last.dts is not None:
      found = max(found, last.dts + 1)  # frames may be dropped on purpose
    if kind == _MOV and found < declared:
      # An edit list may rightly hide frames: count once more without it.
      with self.open(ignore_edits=True) as (container, stream):
        found = sum(1 for p in container.demux(stream) if p.dts is not None)
    if kind in (_MOV, 'avi') and found < declared:
      raise VideoError(
        'truncated',
        self.name,
        f'its header declares {declared} frames, {found} are in the file',
      )
    if last.is_corrupt:
      raise VideoError(
        'truncated',
        self.name,
        f'it ends in the middle of frame {len(self.pts)}',
      )
    # Some writers pad after the end mark.
    padding = b'\0\r\n '
    if kind == 'gif' and self._read_ends()[1].rstrip(padding)[-1:] != b';':
      raise VideoError('truncated', self.name, 'its end mark is missing')

  def _read_ends(self) -> tuple[bytes, bytes]:
    """The first and the last 4 KiB of the file."""
    if isinstance(self._source, bytes):
      return self._source[:4096], self._source[-4096:]
    with open(self._source.removeprefix(_LOCAL), 'rb') as file:
      start = file.read(4096)
      size = os.fstat(file.fileno()).st_size
      file.seek(max(0, size - 4096))
      return start, file.read()


def _load(source: bytes | str | os.PathLike, name: str) -> bytes | str:
  """Bytes stay; remote files are read; local ones become FFmpeg's addresses."""
  if isinstance(source, bytes):
    if not source:
      raise VideoError('empty', name)
    return source
  path = os.fspath(source)
  if '://' in path:
    remote = epath.Path(path)
    if not remote.is_file():
      raise VideoError('missing', name)
    return _load(remote.read_bytes(), name)
  try:
    found = os.stat(path)
  except (OSError, ValueError):
    raise VideoError('missing', name) from None
  if not stat.S_ISREG(found.st_mode):
    raise VideoError('missing', name)
  if not found.st_size:
    raise VideoError('empty', name)
  return f'{_LOCAL}{path}'


def _end_of(packet: av.Packet) -> float:
  """When a packet ends, in seconds; 0 if it does not say."""
  if packet.pts is None:
    return 0.0
  ticks = packet.pts + (packet.duration or 0)
  return ticks * packet.time_base.numerator / packet.time_base.denominator


def _seek(
  container: av.container.InputContainer, stream: av.VideoStream, start: int
) -> None:
  """Goes to a key frame that is shown before a tick, or to the first one."""
  # Files are sought by decoding time, which is earlier than that of showing.
  margin = round(_SEEK_MARGIN / (stream.time_base or 1))
  container.seek(start - margin, stream=stream, backward=True)


def reason(error: av.error.FFmpegError) -> str:
  """FFmpeg's own words."""
  return error.strerror or type(error).__name__
