"""Decodes what is asked of one open file, in the cheapest way that is right."""

import bisect
import contextlib
import itertools
import math
from collections.abc import Collection, Iterator, Sequence

import av
import av.error

from vivit_mae.data import colour, container, tables
from vivit_mae.data import packets as packets_lib
from vivit_mae.data import pixels as pixels_lib
from vivit_mae.data.packets import DeceivedError, Looks
from vivit_mae.data.video import Timing, VideoError, VideoInfo

# What FFmpeg fills in from other frames it only marks.
_INCOMPLETE = 'a frame is incomplete'


class Decoder:
  """Decodes what is asked of one open file, in the cheapest way that is right.

  Attributes:
    info: What the video holds.
  """

  def __init__(self, file: container.VideoFile, trust: Collection[str]):
    """Finds out what the file holds.

    Args:
      file: The file.
      trust: 'times': that packets' times tell the frames, where they may;
        'header': also, that it says how these look; 'tables': also, that its
        tables say which packets it has.

    Raises:
      VideoError: it can't be read.
      DeceivedError: something was trusted, and wrongly so.
    """
    self._file = file
    found = tables.read(file) if 'tables' in trust else None
    self._packets = found or packets_lib.read(file)
    self._frames: list[av.VideoFrame] | None = None
    self._by_time: dict[int, int] | None = None
    # What the header says of the frames, until one has shown it.
    self._unproven: Looks | None = None
    if self._packets.order and 'times' in trust:
      self._read_settings()
      looks = self._packets.looks if 'header' in trust else None
      self._unproven = looks
      if looks is None:
        # An error only means that the slow way must be taken.
        with contextlib.suppress(av.error.FFmpegError):
          first = next(self._decode_needed([0]), None)
          looks = Looks.of(first) if first else None
      if looks is not None:
        pts = self._packets.pts
        self._by_time = {pts[j]: i for i, j in enumerate(self._packets.order)}
        self.info = self._describe(looks, list(self._by_time))
        return
    self._list_frames()

  def _read_settings(self) -> None:
    """Shows the decoder what only the first packet says.

    The encoder's name and version, for one, of which some are known to have
    written what has to be read in another way.
    """
    decoder = self._packets.decoder
    decoder.skip_frame = 'ALL'
    with contextlib.suppress(av.error.FFmpegError):
      decoder.decode(self._packets.first)

  def _list_frames(self) -> None:
    """Finds out by decoding which frames there are, and keeps a few."""
    file = self._file
    kept: list[av.VideoFrame] = []
    ticks, size = [], 0
    faults: list[str] = []
    for frame in self._decode_shown(faults):
      ticks.append(frame.pts)
      size += frame.width * frame.height * 3
      if size <= packets_lib.KEEP_BYTES or not kept:
        kept.append(frame)
      elif len(kept) > 1:
        del kept[1:]  # decoded again, rather than kept
    if not kept:
      detail = faults[0] if faults else ''
      if not faults and file.window is not None:
        detail = 'not one in the segment that is asked for'
      raise VideoError('no_frames', file.name, detail)
    self._frames = kept if len(kept) == len(ticks) else None
    self.info = self._describe(Looks.of(kept[0]), ticks)

  def emit(self, sink: pixels_lib.Sink) -> None:
    """Decodes what a sink wants.

    Raises:
      VideoError: not all of it decodes.
      DeceivedError: something was trusted, and wrongly so.
    """
    if self._by_time is None:
      for i, frame in enumerate(self._frames or self._decode_shown()):
        sink.put(i, frame)
      if sink.missing:  # it changed while it was read
        raise VideoError('corrupt', self._file.name, 'frames are lost')
      return
    # As above: frames that do not come this way are sought by the slow one.
    with contextlib.suppress(av.error.FFmpegError):
      for frame in _in_order(self._decode_needed(sink.missing)):
        self._put(sink, frame)
    if not sink.missing:
      return
    last = -1
    for frame in _in_order(self._decode_all()):
      last = max(last, self._put(sink, frame))
      if not sink.missing:
        return
    lost = min(sink.missing)
    raise VideoError(
      'truncated' if lost > last else 'corrupt',
      self._file.name,
      f'frame {lost} of {self.info.num_frames} does not decode',
    )

  def _put(self, sink: pixels_lib.Sink, frame: av.VideoFrame) -> int:
    """Hands a frame on; which one it is."""
    i = self._rank(frame)
    if i in sink.missing:
      if self._unproven is not None:
        if Looks.of(frame) != self._unproven:
          raise DeceivedError('times')
        self._unproven = None
      sink.put(i, frame)
    return i

  def check(self) -> None:
    """Decodes everything, strictly.

    Raises:
      VideoError: a frame is missing or faulty.
    """
    faults: list[str] = []
    found = sum(1 for _ in self._decode_shown(faults, strict=True))
    told = self.info.num_frames
    if faults:
      raise VideoError(
        'corrupt',
        self._file.name,
        f'FFmpeg reports {len(faults)} faults in {told} frames, the first: '
        f'{faults[0]}',
      )
    if found != told:
      raise VideoError(
        'truncated' if found < told else 'corrupt',
        self._file.name,
        f'{told} frames are declared, {found} decode',
      )

  def decode_strictly(self) -> Iterator[av.VideoFrame]:
    """Yields the frames that are shown, up to a fault.

    Raises:
      VideoError: at the fault.
    """
    faults: list[str] = []
    if self._file.window is None or self._by_time is None:
      for frame in self._decode_shown(faults, strict=True):
        if faults:
          break
        yield frame
    else:
      # What comes before the segment is not read, which may be hours, unless
      # a frame does not come this way.
      done = 0
      try:
        for frame in _in_order(
          self._decode_needed(range(self.info.num_frames))
        ):
          if frame.is_corrupt:
            faults.append(_INCOMPLETE)
            break
          if self._rank(frame) == done:
            done += 1
            yield frame
        if done < self.info.num_frames and not faults:
          for frame in self._decode_all(faults, strict=True):
            if faults:
              break
            if self._rank(frame) == done:
              done += 1
              yield frame
      except av.error.FFmpegError as error:
        faults.append(container.reason(error))
      except DeceivedError:
        faults.append('the times of its frames do not ascend')
    if faults:
      raise VideoError('corrupt', self._file.name, faults[0])

  def _rank(self, frame: av.VideoFrame) -> int:
    """Which frame of the video this is; -1 if it is none."""
    if self._by_time is None or frame.pts is None:
      return -1
    return self._by_time.get(frame.pts, -1)

  def _describe(self, looks: Looks, ticks: Sequence[int | None]) -> VideoInfo:
    """Gathers the properties from one frame and the times of all."""
    listed = self._packets
    timing = Timing.of(ticks, float(listed.tick), listed.rate)
    width, height = looks.width, looks.height
    if looks.rotation in (90, 270):
      width, height = height, width
    if pixels_lib.is_planar(looks.format, width, height):
      to_rgb = colour.yuv_to_rgb(looks.matrix, looks.colour_range)
    else:
      to_rgb = colour.yuv_to_rgb()
    return VideoInfo(
      num_frames=len(ticks),
      width=width,
      height=height,
      rotation=looks.rotation,
      codec=listed.decoder.name,
      pixel_format=looks.format,
      to_rgb=to_rgb,
      **vars(timing),
    )

  def _decode_needed(self, wanted: Collection[int]) -> Iterator[av.VideoFrame]:
    """Decodes the wanted frames, and those that they refer to."""
    listed = self._packets
    assert listed.order is not None
    needed = {listed.order[i] for i in wanted}
    keys = [j for j, is_key in enumerate(listed.is_key) if is_key]
    runs: list[tuple[int, int]] = []  # first and last packet of each
    for j in sorted(needed):
      k = bisect.bisect_right(keys, j) - 1
      if listed.pts[j] < listed.pts[keys[k]] and k > 0:
        k -= 1  # shown before its key frame: it refers to the group before too
      if runs and keys[k] <= runs[-1][1] + 1:
        runs[-1] = (runs[-1][0], j)
      else:
        runs.append((keys[k], j))
    with contextlib.closing(listed.runs(runs)) as packets:
      for run in packets:
        yield from self._decode_run(run, needed)

  def _decode_run(
    self,
    packets: Iterator[tuple[int, av.Packet]],
    needed: Collection[int],
  ) -> Iterator[av.VideoFrame]:
    """Decodes packets of which the first is a key frame."""
    decoder = self._packets.decoder
    if decoder.is_open:
      decoder.flush_buffers()
    skip = None
    for j, packet in packets:
      # Frames that no other refers to may be left out.
      wanted = 'DEFAULT' if j in needed else 'NONREF'
      if wanted != skip:
        decoder.skip_frame = skip = wanted
        self._file.check_time()
      yield from decoder.decode(packet)
    yield from decoder.decode(None)

  def _decode_shown(
    self,
    faults: list[str] | None = None,
    strict: bool = False,
  ) -> Iterator[av.VideoFrame]:
    """Decodes all, and yields what lies in the segment that is asked for."""
    start, stop = self._file.window or (-math.inf, math.inf)
    for frame in self._decode_all(faults, strict):
      pts = start if frame.pts is None else frame.pts
      if pts >= stop:
        return
      if pts >= start:
        yield frame

  def _decode_all(
    self,
    faults: list[str] | None = None,
    strict: bool = False,
  ) -> Iterator[av.VideoFrame]:
    """Decodes all packets in order; adds to `faults` what fails to decode."""
    with self._file.open(strict=strict) as (opened, stream):
      decoder = stream.codec_context
      packets = (p for p in opened.demux(stream) if p.size)
      for packet in itertools.chain(packets, [None]):
        self._file.check_time()
        try:
          for frame in decoder.decode(packet):
            if strict and frame.is_corrupt and faults is not None:
              faults.append(_INCOMPLETE)
            yield frame
        except av.error.FFmpegError as error:
          if faults is not None:
            faults.append(container.reason(error))


def _in_order(frames_: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
  """Frames as they come, as long as their times ascend."""
  last = None
  for frame in frames_:
    if frame.pts is None or (last is not None and frame.pts <= last):
      raise DeceivedError
    last = frame.pts
    yield frame
