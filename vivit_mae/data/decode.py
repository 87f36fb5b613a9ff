"""Video bytes in, exactly the asked frames out.

The frames of a video are those that decoding it from the first packet to the
last gives, in the order they are shown; frame i is the i-th of them. Reading a
few of them is made cheap, never approximate: the packets are listed first, by
the file's tables where these can be checked, so that decoding starts at the
nearest key frame, and frames that nobody asked for and no other frame refers to
are skipped. Where a container's timestamps cannot carry that, or a frame fails
to appear, the video is decoded from its start.

Colours follow the file's tags (untagged: BT.601, limited range), rotation tags
are applied, and pixels are taken as square. Decoding uses one thread.

Of a segment of a longer video only the packets that it needs are read, where
the container can be searched; its frames are those whose time lies in it.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence

import av
import av.error
import numpy as np
from jaxtyping import UInt8

from vivit_mae.data import container, frames, packets
from vivit_mae.data import decoder as decoder_lib
from vivit_mae.data import pixels as pixels_lib
from vivit_mae.data.video import PIXELS, Clip, VideoError, VideoInfo

__all__ = [
  'PIXELS',
  'Clip',
  'VideoError',
  'VideoInfo',
  'opened',
  'probe',
  'read_clips',
]

# Clips of a video take longer than this only if something is wrong with it.
CLIP_SECONDS = 60.0

Source = bytes | str | os.PathLike | frames.Frames
Segment = tuple[float | int, float | int] | None


def probe(
  source: Source,
  name: str = '',
  decode: bool = False,
  segment: Segment = None,
  seconds: float | int | None = None,
) -> VideoInfo:
  """Says what a video holds.

  Args:
    source: The file's bytes, or its path (`etils.epath` remote paths too), or
      stored pictures.
    name: What to call it in errors; a path names itself.
    decode: Also decode every frame, strictly. Without it only packets are
      read, except where the container does not tell frames from packets.
    segment: Start and end in seconds of the part that is meant; None for all.
    seconds: How long this may take; None for ever.

  Returns:
    The video's properties.

  Raises:
    VideoError: it cannot be read, or, with `decode`, not all of it.
  """
  if isinstance(source, frames.Frames):
    return frames.probe(source, name, segment)
  with container.VideoFile(source, name, segment, seconds) as file:
    # One frame tells more than the header, and that there is one.
    decoder = decoder_lib.Decoder(file, trust=('times',))
    if decode:
      decoder.check()
    return decoder.info


def read_clips(
  source: Source,
  plan: Callable[[VideoInfo], Sequence[Clip]],
  name: str = '',
  segment: Segment = None,
) -> list[UInt8[np.ndarray, '_ _ _ *_']]:
  """Decodes the frames of some clips of one video, each frame once.

  Args:
    source: The file's bytes, or its path (`etils.epath` remote paths too), or
      stored pictures.
    plan: Chooses the clips, knowing what the video holds. Where a header was
      wrong it is called again, and is to choose alike.
    name: What to call the video in errors; a path names itself.
    segment: Start and end in seconds of the part that is meant; None for all.

  Returns:
    The pixels of each clip; see `Clip.pixels`.

  Raises:
    VideoError: the video, or a frame that is wanted, cannot be read, or not
      within `CLIP_SECONDS`.
    ValueError: a clip asks for frames or pixels that the video has not.
  """
  if isinstance(source, frames.Frames):
    return frames.read_clips(source, plan, name, segment)
  file = container.VideoFile(source, name, segment, CLIP_SECONDS)
  trust: tuple[str, ...] = ('header', 'times')
  if segment is None:  # which needs less than the tables list
    trust = ('tables', *trust)
  while True:
    try:
      with file:
        decoder = decoder_lib.Decoder(file, trust)
        sink = pixels_lib.Sink(plan(decoder.info), decoder.info)
        decoder.emit(sink)
        return sink.clips
    except packets.DeceivedError as error:
      trust = error.left
    except av.error.FFmpegError as error:
      # Not of decoding, but of making RGB: YCgCo, for one.
      reason = container.reason(error)
      raise VideoError('unsupported', file.name, reason) from None


@contextlib.contextmanager
def opened(
  source: bytes | str | os.PathLike, name: str = '', segment: Segment = None
) -> Iterator[tuple[VideoInfo, Iterator[av.VideoFrame]]]:
  """Opens a video to decode it from its first frame to its last.

  Args:
    source: The file's bytes, or its path (`etils.epath` remote paths too).
    name: What to call it in errors; a path names itself.
    segment: Start and end in seconds of the part that is meant; None for all.

  Yields:
    The properties of the video or segment, and its frames as they are stored,
    one at a time. Faults raise VideoError; of a segment, only those that
    FFmpeg does not conceal.

  Raises:
    VideoError: it cannot be read.
  """
  with container.VideoFile(source, name, segment) as file:
    decoder = decoder_lib.Decoder(file, trust=('times',))
    yield decoder.info, decoder.decode_strictly()
