"""Video files opened with care: their stream and their end.

What FFmpeg lets pass in silence is an error here: a file that ends before its
header says so, cover art posing as a video, a header that asks for gigabytes.
"""

import contextlib
import functools
import io
import math
import os
import stat
import struct
import time
from collections.abc import Iterator
from typing import cast

import av
import av.container
import av.error
import av.stream
from etils import epath

from vivit_mae.data import matroska, mp4
from vivit_mae.data.video import VideoError

# Larger frames are refused before memory is taken for them; 8K video fits.
MAX_PIXELS = 2**25
LIMITS = {'max_pixels': str(MAX_PIXELS)}
# FFmpeg's names of containers.
MOV, MATROSKA = 'mov,mp4,m4a,3gp,3g2,mj2', 'matroska,webm'
AVI, GIF = 'avi', 'gif'

# Playlists would open other files, and FFmpeg can render plain text.
_FORMATS = (
  'mov,matroska,avi,gif,apng,mpegts,mpeg,mpegvideo,m4v,flv,asf,ogg,h264,hevc,'
  'obu,ivf,mjpeg,mxf,nut,dv,rm,vc1,wtv,webp,yuv4mpegpipe'
)
# Seconds; frames are shown less long after they are decoded.
_SEEK_MARGIN = 1
# Keeps FFmpeg from reading a protocol into a name with a colon.
_LOCAL = 'file:'
_ATTACHED = av.stream.Disposition.attached_pic


class VideoFile:
  """A video file, opened when it is needed; a context manager.

  Attributes:
    name: What errors call it.
  """

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
    self._segment = segment
    self._seconds = seconds
    self._end = None if seconds is None else time.monotonic() + seconds
    self._source = _load(source, self.name)

  def __enter__(self):
    self._stack = contextlib.ExitStack()
    return self

  def __exit__(self, *error):
    self._stack.close()
    # The file may be another when it is opened again.
    for name in ('_opened', '_file', 'movie', 'size'):
      vars(self).pop(name, None)

  @property
  def container(self) -> av.container.InputContainer:
    """What FFmpeg reads it with."""
    return self._opened[0]

  @property
  def stream(self) -> av.VideoStream:
    """FFmpeg's choice of the best video stream."""
    return self._opened[1]

  @property
  def decoder(self) -> av.VideoCodecContext:
    """Its decoder, limited to one thread."""
    return self.stream.codec_context

  @property
  def kind(self) -> str:
    """FFmpeg's name of its container."""
    return self.container.format.name

  @property
  def window(self) -> tuple[int, int] | None:
    """The ticks asked for, from the first to before the second; None: all."""
    if self._segment is None:
      return None
    tick = self.stream.time_base or 1
    zero = self.stream.start_time or 0
    # The first ticks that are not before its start, and its end.
    start, stop = (zero + math.ceil(t / tick - 1e-6) for t in self._segment)
    return start, stop

  @functools.cached_property
  def _opened(self) -> tuple[av.container.InputContainer, av.VideoStream]:
    return self._stack.enter_context(self.open())

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
    options = {'format_whitelist': _FORMATS, **LIMITS}
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
      if container.format.name == GIF:
        # FFmpeg learns it from the first frame that decodes, if one does.
        width, height = struct.unpack('<6xHH', self.read_at(0, 10))
      if width * height > MAX_PIXELS:
        raise VideoError(
          'too_large',
          self.name,
          f'{width}x{height}; at most {MAX_PIXELS} pixels are read',
        )
      if container.format.name == MOV:
        for other in container.streams:
          if other.index != stream.index:
            other.discard = av.stream.Discard.all  # not even read
      decoder.thread_type = 'NONE'
      decoder.thread_count = 1
      decoder.options = LIMITS | ({'err_detect': 'explode'} if strict else {})
      yield container, stream

  def check_time(self) -> None:
    """Raises VideoError when reading has taken too long."""
    if self._end is not None and time.monotonic() > self._end:
      raise VideoError('timeout', self.name, f'more than {self._seconds:g} s')

  def is_upright(self) -> bool:
    """Whether the header is sure that frames are shown as they are stored."""
    if self.kind == MOV:
      return mp4.is_upright(self.movie)
    if self.kind == MATROSKA:
      return matroska.is_upright(self.read_at(0, matroska.HEAD_BYTES))
    return False

  @functools.cached_property
  def movie(self) -> bytes:
    """What `mp4.read_header` reads of it."""
    return mp4.read_header(self.read_at)

  @functools.cached_property
  def size(self) -> int:
    """Its bytes."""
    if isinstance(self._source, bytes):
      return len(self._source)
    with _reading(self.name):
      return os.fstat(self._file.fileno()).st_size

  def read_at(self, at: int, size: int) -> bytes:
    """As many bytes from a place on, or those that are there."""
    if isinstance(self._source, bytes):
      return self._source[at : at + size]
    with _reading(self.name):
      return os.pread(self._file.fileno(), size, at)

  @functools.cached_property
  def _file(self) -> io.RawIOBase:
    assert isinstance(self._source, str)
    path = self._source.removeprefix(_LOCAL)
    with _reading(self.name):
      return self._stack.enter_context(open(path, 'rb', buffering=0))

  def check_end(self, found: int, last: av.Packet, end: float) -> None:
    """Raises VideoError where the header promises more than the file holds.

    Args:
      found: How many packets the video stream has.
      last: The last of them.
      end: When the last packet of any stream ends, in seconds.
    """
    kind, declared, packets = self.kind, self.stream.frames, found
    if kind == MATROSKA:
      # It counts no frames. Rounding and odd last frames take some slack.
      promised = (self.container.duration or 0) / av.time_base
      if end < promised - max(0.15, 0.01 * promised):
        raise VideoError(
          'truncated',
          self.name,
          f'its header declares {promised:.2f} s, {end:.2f} s are in the file',
        )
    if kind == AVI and last.dts is not None:
      found = max(found, last.dts + 1)  # frames may be dropped on purpose
    if kind == MOV and found < declared:
      # An edit list may rightly hide frames: count once more without it.
      with self.open(ignore_edits=True) as (container, stream):
        found = sum(1 for p in container.demux(stream) if p.dts is not None)
    if kind in (MOV, AVI) and found < declared:
      raise VideoError(
        'truncated',
        self.name,
        f'its header declares {declared} frames, {found} are in the file',
      )
    if last.is_corrupt:
      raise VideoError(
        'truncated',
        self.name,
        f'it ends in the middle of frame {packets}',
      )
    # Some writers pad after the end mark.
    padding = b'\0\r\n '
    tail = self.read_at(max(0, self.size - 4096), 4096)
    if kind == GIF and tail.rstrip(padding)[-1:] != b';':
      raise VideoError('truncated', self.name, 'its end mark is missing')


@contextlib.contextmanager
def _reading(name: str) -> Iterator[None]:
  """Makes errors of the file system ours."""
  try:
    yield
  except OSError as error:
    raise VideoError('unreadable', name, str(error.strerror)) from None


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


def seek(
  container: av.container.InputContainer, stream: av.VideoStream, start: int
) -> None:
  """Goes to a key frame that is shown before a tick, or to the first one."""
  # Files are sought by decoding time, which is earlier than that of showing.
  margin = round(_SEEK_MARGIN / (stream.time_base or 1))
  container.seek(start - margin, stream=stream, backward=True)


def reason(error: av.error.FFmpegError) -> str:
  """FFmpeg's own words."""
  return error.strerror or type(error).__name__
