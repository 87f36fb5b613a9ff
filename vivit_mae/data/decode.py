"""Video bytes in, exactly the asked frames out.

The frames of a video are those that decoding it from the first packet to the
last gives, in the order they are shown; frame i is the i-th of them. Reading a
few of them is made cheap, never approximate: the packets are listed first, so
that decoding starts at the nearest key frame, and frames that nobody asked for
and no other frame refers to are skipped. Where a container's timestamps cannot
carry that, or a frame fails to appear, the video is decoded from its start.

Colours follow the file's tags (untagged: BT.601, limited range), rotation tags
are applied, and pixels are taken as square. Decoding uses one thread.
"""

import bisect
import contextlib
import io
import itertools
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import cast

import av
import av.container
import av.error
import av.stream
import av.video.reformatter
import numpy as np
from etils import epath
from jaxtyping import UInt8

from vivit_mae.data import transforms
from vivit_mae.data.video import Clip, Timing, VideoError, VideoInfo

__all__ = ['Clip', 'VideoError', 'VideoInfo', 'probe', 'read_clips']

# Larger frames are refused before memory is taken for them; 8K video has half.
MAX_PIXELS = 2**26
# Files with more bytes of packets than this are read twice rather than kept.
KEEP_BYTES = 2**28

# Only these containers store true presentation times for every packet, and
# only these decoders were checked to skip frames without changing others.
_INDEXED_FORMATS = ('mov,mp4,m4a,3gp,3g2,mj2', 'matroska,webm')
_INDEXED_CODECS = ('h264', 'hevc', 'mpeg4', 'vp8', 'vp9', 'av1', 'libdav1d')
# The header's duration is a statement of the muxer in these, not a guess.
_TIMED_FORMATS = ('matroska,webm', 'avi')
# Playlists would open other files, and FFmpeg can render plain text.
_FORMATS = (
  'mov,matroska,avi,gif,apng,mpegts,mpeg,mpegvideo,m4v,flv,asf,ogg,h264,hevc,'
  'obu,ivf,mjpeg,mxf,nut,dv,rm,vc1,wtv,webp,yuv4mpegpipe'
)
_ATTACHED = av.stream.Disposition.attached_pic


def probe(
  source: bytes | str | os.PathLike, name: str = '', decode: bool = False
) -> VideoInfo:
  """Says what a video holds.

  Args:
    source: The file's bytes, or its path (`etils.epath` remote paths too).
    name: What to call it in errors; a path names itself.
    decode: Also decode every frame, strictly. Without it only packets are
      read, except where the container does not tell frames from packets.

  Returns:
    The video's properties.

  Raises:
    VideoError: it cannot be read, or, with `decode`, not all of it.
  """
  with _Video(source, name) as video:
    info = video.info()
    if decode:
      video.check(info)
    return info


def read_clips(
  source: bytes | str | os.PathLike,
  plan: Callable[[VideoInfo], Sequence[Clip]],
  name: str = '',
) -> list[UInt8[np.ndarray, 't h w 3']]:
  """Decodes the frames of some clips of one video, each frame once.

  Args:
    source: The file's bytes, or its path (`etils.epath` remote paths too).
    plan: Chooses the clips, knowing what the video holds. Called once.
    name: What to call the video in errors; a path names itself.

  Returns:
    RGB pixels of each clip.

  Raises:
    VideoError: the video, or a frame that is wanted, cannot be read.
    ValueError: a clip asks for frames or pixels that the video has not.
  """
  with _Video(source, name) as video:
    info = video.info()
    sink = _Sink(plan(info), info)
    video.emit(sink)
    return sink.clips


class _Sink:
  """Takes frames as they are decoded, and puts them where they are wanted."""

  def __init__(self, clips: Sequence[Clip], info: VideoInfo):
    self._plan = clips
    self._info = info
    self._scaler = av.video.reformatter.VideoReformatter()
    self.clips = [
      np.zeros((len(c.frames), *c.size, 3), np.uint8) for c in clips
    ]
    self.missing: dict[int, list[tuple[int, int]]] = {}
    for k, clip in enumerate(clips):
      for t, i in enumerate(clip.frames.tolist()):
        if not 0 <= i < info.num_frames:
          raise ValueError(
            f'frame {i} is asked of a video of {info.num_frames} frames'
          )
        self.missing.setdefault(i, []).append((k, t))

  def put(self, i: int, frame: av.VideoFrame) -> None:
    """Stores frame i, if it is wanted and was not stored before."""
    places = self.missing.pop(i, None)
    if places is None:
      return
    rgb = _to_rgb(frame, self._info, self._scaler)
    first: dict[int, int] = {}
    for k, t in places:
      if k in first:
        self.clips[k][t] = self.clips[k][first[k]]
        continue
      clip = self._plan[k]
      self.clips[k][t] = transforms.crop_and_resize(
        rgb, clip.box, clip.size, flip=clip.flip, antialias=clip.antialias
      )
      first[k] = t


def _to_rgb(
  frame: av.VideoFrame,
  info: VideoInfo,
  scaler: av.video.reformatter.VideoReformatter,
) -> UInt8[np.ndarray, 'h w 3']:
  """A frame's RGB pixels as shown; a change of size in mid-stream is undone."""
  turned = info.rotation in (90, 270)
  width, height = (
    (info.height, info.width) if turned else (info.width, info.height)
  )
  frame = scaler.reformat(frame, width, height, 'rgb24', threads=1)
  return np.rot90(frame.to_ndarray(), -info.rotation // 90)


class _Video:
  """An open video file: the list of its packets, and ways to decode them."""

  def __init__(self, source: bytes | str | os.PathLike, name: str):
    self._name = name if isinstance(source, bytes) else name or str(source)
    self._source = _load(source, self._name)
    # Of each packet: presentation time, whether it is a key, and is shown.
    self._pts: list[int] = []
    self._is_key: list[bool] = []
    self._is_shown: list[bool] = []
    # Positions of the shown packets in order of time; None: do not rely on it.
    self._order: list[int] | None = None
    self._packets: list[av.Packet] | None = []
    self._frames: list[av.VideoFrame] | None = None

  def __enter__(self):
    with contextlib.ExitStack() as stack:
      opened = stack.enter_context(self._open())
      self._container, self._stream = opened
      self._decoder = self._stream.codec_context
      self._list_packets()
      self._stack = stack.pop_all()
    return self

  def __exit__(self, *error):
    self._frames = self._packets = None
    self._stack.close()

  def info(self) -> VideoInfo:
    """What the video holds; decodes one frame, or all where it must."""
    if self._order is not None:
      first = None
      # An error here only means that the slow way must be taken.
      with contextlib.suppress(av.error.FFmpegError):
        first = next(self._decode_run(iter([(0, self._first)]), 0, 0), None)
      if first is not None:
        return self._describe(first, [self._pts[j] for j in self._order])
      self._order = None
    bound = len(self._pts) * self._decoder.width * self._decoder.height * 3
    kept: list[av.VideoFrame] = []
    ticks = []
    for frame in self._decode_all():
      ticks.append(frame.pts)
      if bound <= KEEP_BYTES or not kept:
        kept.append(frame)
    if not kept:
      raise VideoError('no_frames', self._name)
    self._frames = kept if len(kept) == len(ticks) else None
    return self._describe(kept[0], ticks)

  def emit(self, sink: _Sink) -> None:
    """Decodes what a sink wants; VideoError when not all of it decodes."""
    last = -1
    if self._order is None:
      for i, frame in enumerate(self._frames or self._decode_all()):
        sink.put(i, frame)
    else:
      rank: dict[int | None, int] = {
        self._pts[j]: i for i, j in enumerate(self._order)
      }
      # Likewise.
      with contextlib.suppress(av.error.FFmpegError):
        for frame in self._decode_needed(sink.missing):
          sink.put(rank.get(frame.pts, -1), frame)
      if sink.missing:
        for frame in self._decode_all():
          i = rank.get(frame.pts, -1)
          sink.put(i, frame)
          last = max(last, i)
    if sink.missing:
      lost = min(sink.missing)
      raise VideoError(
        'truncated' if lost > last else 'corrupt',
        self._name,
        f'frame {lost}, of {len(self._pts)} declared, does not decode',
      )

  def check(self, info: VideoInfo) -> None:
    """Decodes everything, strictly; VideoError where anything is amiss."""
    errors: list[av.error.FFmpegError] = []
    found = sum(1 for _ in self._decode_all(errors, strict=True))
    if found < info.num_frames and not errors:
      raise VideoError(
        'truncated',
        self._name,
        f'{info.num_frames} frames are declared, {found} decode',
      )
    if errors:
      raise VideoError(
        'corrupt',
        self._name,
        f'{found} of {info.num_frames} frames decode without a fault, and '
        f'FFmpeg says: {_reason(errors[0])}',
      )

  @contextlib.contextmanager
  def _open(
    self, *, ignore_edits: bool = False, strict: bool = False
  ) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """Opens the file at its best video stream, with one decoding thread."""
    source = self._source
    target = io.BytesIO(source) if isinstance(source, bytes) else source
    limit = {'max_pixels': str(MAX_PIXELS)}
    try:
      container = av.open(
        target,
        mode='r',
        options={
          'format_whitelist': _FORMATS,
          'ignore_editlist': str(int(ignore_edits)),
          **limit,
        },
        metadata_errors='replace',
      )
    except av.error.FFmpegError as error:
      raise VideoError('unreadable', self._name, _reason(error)) from None
    with container:
      stream = cast(av.VideoStream | None, container.streams.best('video'))
      if stream is None or stream.disposition & _ATTACHED:
        raise VideoError('no_video', self._name)
      decoder = stream.codec_context
      if decoder is None:
        raise VideoError('unsupported', self._name)
      if decoder.width * decoder.height > MAX_PIXELS:
        raise VideoError(
          'too_large',
          self._name,
          f'{decoder.width}x{decoder.height}; at most {MAX_PIXELS} pixels',
        )
      decoder.thread_type = 'NONE'
      decoder.thread_count = 1
      decoder.options = limit | ({'err_detect': 'explode'} if strict else {})
      yield container, stream

  def _list_packets(self) -> None:
    """Lists the packets, decides whether they can serve as an index."""
    kind = self._container.format.name
    # Where the end is judged by time, sound may last longer than the pictures.
    streams = () if kind in _TIMED_FORMATS else (self._stream,)
    size, end, timed = 0, 0.0, True
    try:
      for packet in self._container.demux(*streams):
        if packet.pts is not None and packet.size:
          stop = (packet.pts + (packet.duration or 0)) * packet.time_base
          end = max(end, float(stop))
        if packet.stream_index != self._stream.index or not packet.size:
          continue
        if not self._pts:
          self._first = packet
        timed = timed and packet.pts is not None
        self._pts.append(packet.pts or 0)
        self._is_key.append(packet.is_keyframe)
        self._is_shown.append(not packet.is_discard)
        size += packet.size
        if size > KEEP_BYTES:
          self._packets = None
        elif self._packets is not None:
          self._packets.append(packet)
    except av.error.FFmpegError as error:
      raise VideoError('corrupt', self._name, _reason(error)) from None
    if not self._pts:
      raise VideoError('no_frames', self._name, 'its video stream is empty')
    self._check_end(kind, end)
    shown = [j for j, is_shown in enumerate(self._is_shown) if is_shown]
    if (
      kind in _INDEXED_FORMATS
      and self._decoder.name in _INDEXED_CODECS
      and timed
      and len(set(self._pts)) == len(self._pts)
      and shown
      # Frames shown before the first key frame may or may not decode.
      and self._is_key[0]
      and self._pts[0] == min(self._pts)
    ):
      self._order = sorted(shown, key=lambda j: self._pts[j])

  def _check_end(self, kind: str, end: float) -> None:
    """Raises VideoError where the header declares more than the file holds."""
    declared, found = self._stream.frames, len(self._pts)
    if kind in _TIMED_FORMATS:
      promised = (self._container.duration or 0) / av.time_base
      if end < 0.95 * promised - 0.1:
        raise VideoError(
          'truncated',
          self._name,
          f'its header declares {promised:.2f} s, {end:.2f} s are in the file',
        )
    elif kind == _INDEXED_FORMATS[0] and found < declared:
      # An edit list may rightly hide frames: count once more without it.
      with self._open(ignore_edits=True) as (container, stream):
        found = sum(1 for p in container.demux(stream) if p.dts is not None)
      if found < declared:
        raise VideoError(
          'truncated',
          self._name,
          f'its header declares {declared} frames, {found} are in the file',
        )

  def _describe(
    self, frame: av.VideoFrame, ticks: Sequence[int | None]
  ) -> VideoInfo:
    """Gathers the properties from one frame and the times of all."""
    rate = self._stream.average_rate or self._stream.guessed_rate
    timing = Timing.of(
      ticks, float(self._stream.time_base or 1), float(rate) if rate else None
    )
    rotation = round(-frame.rotation / 90) * 90 % 360
    width, height = frame.width, frame.height
    if rotation in (90, 270):
      width, height = height, width
    return VideoInfo(
      num_frames=len(ticks),
      width=width,
      height=height,
      rotation=rotation,
      codec=self._decoder.name,
      pixel_format=frame.format.name,
      **vars(timing),
    )

  def _decode_needed(self, wanted: Iterable[int]) -> Iterator[av.VideoFrame]:
    """Decodes the wanted frames, and those that they refer to."""
    assert self._order is not None
    needed = {self._order[i] for i in wanted}
    keys = [j for j, is_key in enumerate(self._is_key) if is_key]
    runs: list[list[int]] = []
    for j in sorted(needed):
      k = bisect.bisect_right(keys, j) - 1
      if self._pts[j] < self._pts[keys[k]] and k > 0:
        k -= 1  # shown before its key frame: it refers to the group before too
      if runs and keys[k] <= runs[-1][1] + 1:
        runs[-1][1] = j
      else:
        runs.append([keys[k], j])
    with contextlib.ExitStack() as stack:
      packets = self._packets
      if packets is None:
        container, stream = stack.enter_context(self._open())
        packets = (p for p in container.demux(stream) if p.size)
      numbered = enumerate(packets)
      for start, stop in runs:
        yield from self._decode_run(numbered, start, stop, needed)

  def _decode_run(
    self,
    packets: Iterator[tuple[int, av.Packet]],
    start: int,
    stop: int,
    needed: Collection[int] = (0,),
  ) -> Iterator[av.VideoFrame]:
    """Decodes packets `start` to `stop`, which begin with a key frame."""
    decoder = self._decoder
    if decoder.is_open:
      decoder.flush_buffers()
    for j, packet in packets:
      if j >= start:
        # Frames that no other refers to may be left out.
        decoder.skip_frame = 'DEFAULT' if j in needed else 'NONREF'
        yield from decoder.decode(packet)
      if j == stop:
        break
    yield from decoder.decode(None)

  def _decode_all(
    self,
    errors: list[av.error.FFmpegError] | None = None,
    strict: bool = False,
  ) -> Iterator[av.VideoFrame]:
    """Decodes all packets in order; what fails to decode is left out."""
    with self._open(strict=strict) as (container, stream):
      decoder = stream.codec_context
      packets = (p for p in container.demux(stream) if p.size)
      for packet in itertools.chain(packets, [None]):
        try:
          yield from decoder.decode(packet)
        except av.error.FFmpegError as error:
          if errors is not None:
            errors.append(error)


def _load(source: bytes | str | os.PathLike, name: str) -> bytes | str:
  """Bytes stay; remote files are read; local ones become FFmpeg's addresses."""
  if isinstance(source, bytes):
    if not source:
      raise VideoError('empty', name)
    return source
  path = epath.Path(source)
  if not path.is_file():
    raise VideoError('missing', name)
  if '://' in str(path):
    return _load(path.read_bytes(), name)
  if path.stat().length == 0:
    raise VideoError('empty', name)
  # The prefix keeps FFmpeg from reading a protocol into a name with a colon.
  return f'file:{path}'


def _reason(error: av.error.FFmpegError) -> str:
  """FFmpeg's own words."""
  return error.strerror or type(error).__name__
