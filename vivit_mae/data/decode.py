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
import itertools
import os
from collections.abc import Callable, Collection, Iterator, Sequence

import av
import av.error
import av.video.reformatter
import numpy as np
from jaxtyping import UInt8

from vivit_mae.data import container, transforms
from vivit_mae.data.video import Clip, Timing, VideoError, VideoInfo

__all__ = ['Clip', 'VideoError', 'VideoInfo', 'probe', 'read_clips']


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
  with container.VideoFile(source, name) as file:
    decoder = _Decoder(file)
    if decode:
      decoder.check()
    return decoder.info


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
  with container.VideoFile(source, name) as file:
    decoder = _Decoder(file)
    sink = _Sink(plan(decoder.info), decoder.info)
    decoder.emit(sink)
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


class _Decoder:
  """Decodes what is asked of one open file, in the cheapest way that is right.

  Attributes:
    info: What the video holds.
  """

  def __init__(self, file: container.VideoFile):
    self._file = file
    self._frames: list[av.VideoFrame] | None = None
    first = None
    if file.order is not None:
      # An error only means that the slow way must be taken.
      with contextlib.suppress(av.error.FFmpegError):
        first = next(self._decode_needed([0]), None)
    if file.order is not None and first is not None:
      self._by_time = {file.pts[j]: i for i, j in enumerate(file.order)}
      self.info = self._describe(first, list(self._by_time))
      return
    self._by_time = None
    bound = len(file.pts) * file.decoder.width * file.decoder.height * 3
    kept: list[av.VideoFrame] = []
    ticks = []
    faults: list[av.error.FFmpegError] = []
    for frame in self._decode_all(faults):
      ticks.append(frame.pts)
      if bound <= container.KEEP_BYTES or not kept:
        kept.append(frame)
    if not kept:
      detail = container.reason(faults[0]) if faults else ''
      raise VideoError('no_frames', file.name, detail)
    self._frames = kept if len(kept) == len(ticks) else None
    self.info = self._describe(kept[0], ticks)

  def emit(self, sink: _Sink) -> None:
    """Decodes what a sink wants.

    Raises:
      VideoError: not all of it decodes.
    """
    if self._by_time is None:
      for i, frame in enumerate(self._frames or self._decode_all()):
        sink.put(i, frame)
      return
    # As above: frames that do not come this way are sought by the slow one.
    with contextlib.suppress(av.error.FFmpegError):
      for frame in self._decode_needed(sink.missing):
        sink.put(self._rank(frame), frame)
    if not sink.missing:
      return
    last = -1
    for frame in self._decode_all():
      i = self._rank(frame)
      sink.put(i, frame)
      last = max(last, i)
    if sink.missing:
      lost = min(sink.missing)
      raise VideoError(
        'truncated' if lost > last else 'corrupt',
        self._file.name,
        f'frame {lost} of {self.info.num_frames} does not decode',
      )

  def check(self) -> None:
    """Decodes everything, strictly.

    Raises:
      VideoError: a frame is missing or faulty.
    """
    faults: list[av.error.FFmpegError] = []
    found = sum(1 for _ in self._decode_all(faults, strict=True))
    if faults:
      raise VideoError(
        'corrupt',
        self._file.name,
        f'FFmpeg reports {len(faults)} faults in {self.info.num_frames} '
        f'frames, the first: {container.reason(faults[0])}',
      )
    if found < self.info.num_frames:
      raise VideoError(
        'truncated',
        self._file.name,
        f'{self.info.num_frames} frames are declared, {found} decode',
      )

  def _rank(self, frame: av.VideoFrame) -> int:
    """Which frame of the video this is; -1 if it is none."""
    if self._by_time is None or frame.pts is None:
      return -1
    return self._by_time.get(frame.pts, -1)

  def _describe(
    self, frame: av.VideoFrame, ticks: Sequence[int | None]
  ) -> VideoInfo:
    """Gathers the properties from one frame and the times of all."""
    stream = self._file.stream
    rate = stream.average_rate or stream.guessed_rate
    timing = Timing.of(
      ticks, float(stream.time_base or 1), float(rate) if rate else None
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
      codec=self._file.decoder.name,
      pixel_format=frame.format.name,
      **vars(timing),
    )

  def _decode_needed(self, wanted: Collection[int]) -> Iterator[av.VideoFrame]:
    """Decodes the wanted frames, and those that they refer to."""
    file = self._file
    assert file.order is not None
    needed = {file.order[i] for i in wanted}
    keys = [j for j, is_key in enumerate(file.is_key) if is_key]
    runs: list[tuple[int, int]] = []  # first and last packet of each
    for j in sorted(needed):
      k = bisect.bisect_right(keys, j) - 1
      if file.pts[j] < file.pts[keys[k]] and k > 0:
        k -= 1  # shown before its key frame: it refers to the group before too
      if runs and keys[k] <= runs[-1][1] + 1:
        runs[-1] = (runs[-1][0], j)
      else:
        runs.append((keys[k], j))
    with contextlib.ExitStack() as stack:
      packets = file.packets
      if packets is None:
        opened, stream = stack.enter_context(file.open())
        packets = (p for p in opened.demux(stream) if p.size)
      numbered = enumerate(packets)
      for start, stop in runs:
        yield from self._decode_run(numbered, start, stop, needed)

  def _decode_run(
    self,
    packets: Iterator[tuple[int, av.Packet]],
    start: int,
    stop: int,
    needed: Collection[int],
  ) -> Iterator[av.VideoFrame]:
    """Decodes packets `start` to `stop`, of which the first is a key frame."""
    decoder = self._file.decoder
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
    faults: list[av.error.FFmpegError] | None = None,
    strict: bool = False,
  ) -> Iterator[av.VideoFrame]:
    """Decodes all packets in order; adds to `faults` what fails to decode."""
    with self._file.open(strict=strict) as (opened, stream):
      decoder = stream.codec_context
      packets = (p for p in opened.demux(stream) if p.size)
      for packet in itertools.chain(packets, [None]):
        try:
          yield from decoder.decode(packet)
        except av.error.FFmpegError as error:
          if faults is not None:
            faults.append(error)
