"""The packets of an MP4 of H.264 by its own tables, and its decoder by them.

For a few frames, opening a file with FFmpeg and reading its packets costs as
much as decoding them: it decodes a frame of each stream to know what they look
like. The tables tell the same. They are believed where nothing is unusual in
them; what they say is compared with what is decoded, and else FFmpeg is asked.
"""

from collections.abc import Generator, Iterator, Sequence
from typing import cast

import av
import numpy as np

from vivit_mae.data import container, h264, mp4, packets
from vivit_mae.data.packets import DeceivedError

# Packets that are read together; to read and to decode in turns is slow.
_CHUNK = 64
# Bytes between them, of sound for one, that are rather read than left out.
_GAP = 2**16


def read(file: container.VideoFile) -> packets.Packets | None:
  """Reads the tables of a file, without opening it with FFmpeg.

  Args:
    file: The file.

  Returns:
    Its packets; None where FFmpeg is to be asked.
  """
  track = mp4.read_track(file.movie)
  settings = track and h264.read_settings(track.config)
  if track is None or settings is None:
    return None
  ends = track.begins + track.sizes
  delays = track.pts - track.dts
  if (
    (settings.width, settings.height) == track.size
    and settings.width * settings.height <= container.MAX_PIXELS
    and (settings.tells_colours or not track.has_colours)
    and len(ends) <= packets.MAX_PACKETS
    and track.is_key[0]
    and track.pts[0] == track.pts.min()
    and track.begins.min() >= 0
    and ends.max() <= file.size
    and packets.tells_order(
      track.pts, (int(delays.min()), int(delays.max())), settings.reorders
    )
  ):
    return _Tabled(file, track, settings)
  return None


class _Tabled(packets.Packets):
  """Packets known by tables, and read where they are needed."""

  def __init__(
    self,
    file: container.VideoFile,
    track: mp4.Track,
    settings: h264.Settings,
  ):
    self.decoder = _make_decoder(track.config)
    self.tick = track.tick
    self.rate = None
    self.looks = packets.Looks(
      width=settings.width,
      height=settings.height,
      rotation=0,
      format=settings.pixel_format,
      matrix=settings.matrix,
      colour_range=settings.colour_range,
    )
    self.pts = track.pts.tolist()
    self.is_key = track.is_key.tolist()
    self.order = np.argsort(track.pts).tolist()
    self._file = file
    self._dts = track.dts.tolist()
    self._begins = track.begins.tolist()
    self._sizes = track.sizes.tolist()
    self.first = self._read(0, 0)[0]

  def runs(
    self, bounds: Sequence[tuple[int, int]]
  ) -> Generator[Iterator[tuple[int, av.Packet]], None, None]:
    for start, stop in bounds:
      yield enumerate(self._run(start, stop), start)

  def _run(self, start: int, stop: int) -> Iterator[av.Packet]:
    """Packets from one to another, of which the first is a key frame."""
    for at in range(start, stop + 1, _CHUNK):
      yield from self._read(at, min(stop, at + _CHUNK - 1))

  def _read(self, start: int, stop: int) -> list[av.Packet]:
    """The same, read at once."""
    begins = self._begins[start : stop + 1]
    sizes = self._sizes[start : stop + 1]
    ends = [begin + size for begin, size in zip(begins, sizes, strict=True)]
    lowest, highest = min(begins), max(ends)
    if highest - lowest <= sum(sizes) + _GAP:
      block = self._file.read_at(lowest, highest - lowest)
      samples = [
        block[begin - lowest : end - lowest]
        for begin, end in zip(begins, ends, strict=True)
      ]
    else:
      samples = [
        self._file.read_at(begin, size)
        for begin, size in zip(begins, sizes, strict=True)
      ]
    found = []
    for at, sample in enumerate(samples, start):
      if len(sample) != self._sizes[at] or (
        # Others than these need pictures before them, or show some late.
        self.is_key[at] and not h264.starts_anew(sample)
      ):
        raise DeceivedError('header', 'times')
      packet = av.Packet(sample)
      packet.pts, packet.dts = self.pts[at], self._dts[at]
      packet.is_keyframe = self.is_key[at]
      found.append(packet)
    return found


def _make_decoder(config: bytes) -> av.VideoCodecContext:
  """A decoder of one thread."""
  decoder = cast(av.VideoCodecContext, av.CodecContext.create('h264', 'r'))
  decoder.extradata = config
  decoder.thread_type = 'NONE'
  decoder.thread_count = 1
  decoder.options = container.LIMITS
  return decoder
