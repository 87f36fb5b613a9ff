"""Videos that are stored as pictures: one JPEG, PNG or the like for each frame.

They are read like encoded videos (`decode.probe`, `decode.read_clips` hand them
on to here), except that a rate must be given, as pictures hold none: frame i is
shown at i / fps seconds. Only the pictures that a clip asks for are read.

Pictures are taken as they are stored. A rotation in their EXIF data is ignored:
programs that write out the frames of a video leave none, and TensorFlow's
decoder, which read most such data sets so far, ignores it too.
"""

import contextlib
import dataclasses
import functools
import io
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from vivit_mae.data import container, pixels, transforms
from vivit_mae.data.video import Clip, VideoError, VideoInfo

_log = logging.getLogger(__name__)

# Pillow's modes of one channel.
_GRAY = ('1', 'L', 'LA', 'I', 'I;16')


@runtime_checkable
class Frames(Protocol):
  """The pictures of one video, encoded; can be pickled."""

  @property
  def fps(self) -> float | int:
    """Pictures per second."""
    ...

  def __len__(self) -> int: ...

  def read(self, i: int) -> bytes:
    """Picture i as it is stored.

    Raises:
      VideoError: it cannot be read.
    """
    ...

  def title(self, i: int) -> str:
    """What picture i is called in messages."""
    ...


@dataclasses.dataclass(frozen=True)
class EncodedFrames:
  """Pictures in memory.

  Attributes:
    pictures: Each encoded, in the order they are shown.
    fps: Pictures per second.
  """

  pictures: Sequence[bytes]
  fps: float | int = 30

  def __len__(self) -> int:
    return len(self.pictures)

  def read(self, i: int) -> bytes:
    """Picture i as it is stored."""
    return bytes(self.pictures[i])

  def title(self, i: int) -> str:
    """The number of picture i, from 0."""
    return f'picture {i}'


def probe(
  source: Frames,
  name: str = '',
  segment: tuple[float | int, float | int] | None = None,
) -> VideoInfo:
  """Says what a video holds, from its first picture and their number.

  Args:
    source: The pictures.
    name: What to call the video in errors.
    segment: Start and end in seconds of the part that is meant; None for all.

  Returns:
    The properties of the video, or of the segment alone.

  Raises:
    VideoError: there is no picture, or the first one is none.
  """
  return _Pictures(source, name, segment).info


def read_clips(
  source: Frames,
  plan: Callable[[VideoInfo], Sequence[Clip]],
  name: str = '',
  segment: tuple[float | int, float | int] | None = None,
) -> list[UInt8[np.ndarray, 't h w *c']]:
  """Decodes the pictures of some clips of one video, each picture once.

  Args:
    source: The pictures.
    plan: Chooses the clips, knowing what the video holds. Called once.
    name: What to call the video in errors.
    segment: Start and end in seconds of the part that is meant; None for all.

  Returns:
    The pixels of each clip; see `video.Clip.pixels`. Pictures of another size
    than the video's first are resized to it before anything is cut out.

  Raises:
    VideoError: a picture that is wanted cannot be read.
    ValueError: a clip asks for frames or pixels that the video has not.
  """
  pictures = _Pictures(source, name, segment)
  sink = pixels.Sink(plan(pictures.info), pictures.info)
  for i in sorted(sink.missing):
    sink.put_rgb(i, pictures.decode(i))
  return sink.clips


def decode_all(
  source: Frames,
  name: str = '',
  segment: tuple[float | int, float | int] | None = None,
) -> tuple[VideoInfo, Iterator[UInt8[np.ndarray, 'h w 3']]]:
  """Decodes all pictures, one at a time.

  Args:
    source: The pictures.
    name: What to call the video in errors.
    segment: Start and end in seconds of the part that is meant; None for all.

  Returns:
    The properties of the video or segment, and RGB pixels, all of one size.

  Raises:
    VideoError: there is no picture; later, one cannot be read.
  """
  pictures = _Pictures(source, name, segment)
  return pictures.info, map(pictures.decode, range(pictures.info.num_frames))


class _Pictures:
  """The pictures of a video or of a segment of it, decoded one at a time.

  Attributes:
    info: What they are.
  """

  def __init__(
    self,
    source: Frames,
    name: str,
    segment: tuple[float | int, float | int] | None,
  ):
    self._source, self._name = source, name
    fps = float(source.fps)
    start, stop = 0, len(source)
    if segment is not None:
      # Half a thousandth of a frame: 2.04 s x 25 a second is frame 51.
      begin, end = (int(np.ceil(s * fps - 5e-4)) for s in segment)
      start, stop = max(0, begin), min(stop, end)
    if start >= stop:
      where = '' if segment is None else f' in {segment[0]} to {segment[1]} s'
      raise VideoError(
        'no_frames', name, f'{len(source)} pictures, none{where}'
      )
    self._first = start
    self._encoded = source.read(start)
    codec, width, height, is_gray = self._header(start, self._encoded)
    count = stop - start
    self.info = VideoInfo(
      num_frames=count,
      duration=count / fps,
      fps=fps,
      width=width,
      height=height,
      rotation=0,
      codec=codec,
      pixel_format='gray' if is_gray else 'rgb24',
      variable_frame_rate=False,
      timestamps=np.arange(count) / fps,
    )

  def decode(self, i: int) -> UInt8[np.ndarray, 'h w 3']:
    """RGB pixels of frame i, in the size of the first.

    Raises:
      VideoError: it does not decode.
      ValueError: there is no such frame.
    """
    info = self.info
    if not 0 <= i < info.num_frames:
      raise ValueError(
        f'frame {i} is asked of a video of {info.num_frames} frames'
      )
    row = self._first + i
    encoded = self._source.read(row) if i else self._encoded
    self._header(row, encoded)
    with contextlib.suppress(cv2.error):
      bgr = cv2.imdecode(
        np.frombuffer(encoded, np.uint8),
        cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION,
      )
      if bgr is not None:
        rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
        return transforms.crop_and_resize(rgb, None, (info.height, info.width))
    raise self._error('corrupt', row, f'its {len(encoded)} bytes do not decode')

  def _header(self, row: int, encoded: bytes) -> tuple[str, int, int, bool]:
    """Format, width and height of a picture, and whether it is grey.

    Raises:
      VideoError: it is no picture, or one too large to be decoded.
    """
    # What Pillow raises is an OSError, which would pass for a failure to read.
    kind = 'corrupt'
    try:
      with Image.open(io.BytesIO(encoded)) as picture:
        width, height = picture.size
        if width * height <= container.MAX_PIXELS:
          found = (picture.format or '').lower()
          return found, width, height, picture.mode in _GRAY
      kind, reason = 'too_large', f'{width}x{height}'
    except Image.DecompressionBombError as error:
      kind, reason = 'too_large', str(error)
    except (OSError, ValueError) as error:
      reason = f'it is no picture: {error}'
    raise self._error(kind, row, reason)

  def _error(self, kind: str, row: int, reason: str) -> VideoError:
    return VideoError(kind, self._name, f'{self._source.title(row)}: {reason}')


@functools.cache
def log_cost(where: str, fps: float | int) -> None:
  """Says once for each dataset what pictures cost, and what rate is assumed.

  The figures are quoted from measurements with other readers (Scenic's and
  TFDS's own, in TensorFlow); docs/datasets.md has those of this one.

  Args:
    where: The name of the dataset.
    fps: Pictures per second, where the data does not say.
  """
  _log.warning(
    'data: %s stores each frame as a picture (taken as %g a second). Quoted '
    'figures, for 10 s of 340x256 and a clip of 16 frames: mp4 0.8 MB and 48 '
    'CPU ms, or 0.9 MB and 16 ms re-encoded for training; JPEG in records of '
    "Scenic's 6.4 MB and 30 ms; PNG in TFDS's records 43 MB and 800 ms. Of a "
    'record every clip reads all. `python -m vivit_mae.tools.dataset prepare` '
    'writes it as video; see its --source and --fps.',
    where,
    fps,
  )
