"""Takes frames as they are decoded, and puts them where clips want them."""

from collections.abc import Sequence
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from jaxtyping import UInt8

from vivit_mae.data import transforms
from vivit_mae.data.video import Clip, VideoInfo

# What can be cut and resized plane by plane, as it is stored.
_PLANAR = ('yuv420p', 'yuvj420p')

Planes = Sequence[UInt8[np.ndarray, '_ _']]


class Sink:
  """The clips of one video, filled frame by frame.

  Attributes:
    clips: Their pixels; see `video.Clip.pixels`.
    missing: Frames that are wanted and have not come -> (clip, position).
  """

  def __init__(self, clips: Sequence[Clip], info: VideoInfo):
    self._plan = clips
    self._info = info
    self._scaler = VideoReformatter()
    # One for each size, as it is prepared anew when the size changes.
    self._scalers: dict[tuple[int, ...], VideoReformatter] = {}
    planar = is_planar(info.pixel_format, info.width, info.height)
    self._by_plane = [planar and c.pixels == 'yuv420' for c in clips]
    # What of each plane belongs to the clips that are made plane by plane.
    self._cuts = [
      _cuts(c.box, info) if by_plane else ()
      for c, by_plane in zip(clips, self._by_plane, strict=True)
    ]
    self.clips = [np.empty(c.shape, np.uint8) for c in clips]
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
    by_plane = [p for p in places if self._by_plane[p[0]]]
    if by_plane:
      self._store(by_plane, self._planes(frame), self._put_planes)
    if len(by_plane) < len(places):
      plain = [p for p in places if not self._by_plane[p[0]]]
      self._store(plain, self._rgb(frame), self._put_rgb)

  def put_rgb(self, i: int, picture: UInt8[np.ndarray, 'h w 3']) -> None:
    """Stores frame i, as `put` does, out of its RGB pixels as shown."""
    places = self.missing.pop(i, None)
    if places is not None:
      self._store(places, picture, self._put_rgb)

  def _store(self, places, picture: Any, put: Any) -> None:
    """Puts a picture to its places; those of one clip are alike."""
    first: dict[int, int] = {}
    for k, t in places:
      if k in first:
        self.clips[k][t] = self.clips[k][first[k]]
      else:
        put(k, self.clips[k][t], picture)
        first[k] = t

  def _put_rgb(
    self,
    k: int,
    target: UInt8[np.ndarray, '...'],
    rgb: UInt8[np.ndarray, 'h w 3'],
  ) -> None:
    clip = self._plan[k]
    planar = clip.pixels == 'yuv420'
    pixels = transforms.crop_and_resize(
      rgb,
      clip.box,
      clip.size,
      flip=clip.flip,
      antialias=clip.antialias,
      out=None if planar else target,
    )
    if planar:
      frame = av.VideoFrame.from_ndarray(
        np.ascontiguousarray(pixels), format='rgb24'
      )
      frame = self._scaler.reformat(frame, format='yuv420p', threads=1)
      pixels = frame.to_ndarray()
    if pixels is not target:
      target[...] = pixels

  def _put_planes(
    self, k: int, target: UInt8[np.ndarray, 'h w'], planes: Planes
  ) -> None:
    clip = self._plan[k]
    height, width = clip.size
    below = target[height:].reshape(2, height // 2, width // 2)
    parts = (target[:height], below[0], below[1])
    for plane, cut, part in zip(planes, self._cuts[k], parts, strict=True):
      pixels = plane[cut]
      if pixels.shape != part.shape:
        pixels = self._resize(pixels, part, clip.antialias)
      if clip.flip:
        part[...] = pixels[:, ::-1].copy()
      elif pixels is not part:
        part[...] = pixels

  def _resize(
    self,
    plane: UInt8[np.ndarray, 'h w'],
    part: UInt8[np.ndarray, 'h2 w2'],
    antialias: bool,
  ) -> UInt8[np.ndarray, 'h2 w2']:
    """As `transforms.resize` to rounding; quicker where it has to average."""
    size: Any = part.shape
    shrinks = size[0] < plane.shape[0] or size[1] < plane.shape[1]
    if not (antialias and shrinks):
      return transforms.resize(plane, size, antialias=False, out=part)
    scaler = self._scalers.setdefault(plane.shape, VideoReformatter())
    # Made of the array itself, which is quicker than a copy of its rows.
    frame = av.VideoFrame.from_numpy_buffer(
      np.ascontiguousarray(plane), format='gray'
    )
    frame = scaler.reformat(
      frame, size[1], size[0], 'gray', interpolation='BILINEAR', threads=1
    )
    return _view(frame.planes[0])

  def _rgb(self, frame: av.VideoFrame) -> UInt8[np.ndarray, 'h w 3']:
    """RGB pixels as shown."""
    frame = self._scaler.reformat(
      frame, *_stored_size(self._info), 'rgb24', threads=1
    )
    return np.rot90(frame.to_ndarray(), -self._info.rotation // 90)

  def _planes(self, frame: av.VideoFrame) -> Planes:
    """Luma and colour differences as shown, without a copy where it can be."""
    width, height = _stored_size(self._info)
    if (frame.width, frame.height) != (width, height):
      frame = self._scaler.reformat(frame, width, height, threads=1)
    planes = [_view(plane) for plane in frame.planes]
    if self._info.rotation:
      planes = [np.rot90(p, -self._info.rotation // 90) for p in planes]
    return planes


def _view(plane: Any) -> UInt8[np.ndarray, 'h w']:
  """The bytes of one of PyAV's planes, without the padding of its rows."""
  rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
  return rows[: plane.height, : plane.width]


def is_planar(pixel_format: str, width: int, height: int) -> bool:
  """Whether 'yuv420' clips of a video are made of its planes as they are.

  Those of others go through RGB, and their colours are BT.601, limited range.
  """
  return pixel_format in _PLANAR and width >= 2 and height >= 2


def _stored_size(info: VideoInfo) -> tuple[int, int]:
  """(width, height) of the stored frames; a change in mid-stream is undone."""
  if info.rotation in (90, 270):
    return info.height, info.width
  return info.width, info.height


def _cuts(
  box: transforms.Box | None, info: VideoInfo
) -> tuple[tuple[slice, slice], ...]:
  """What a box cuts out of the planes, moved to the pixels that colours lie on.

  Raises:
    ValueError: It does not lie in the frame.
  """
  if box is None:
    box = transforms.Box(0, 0, info.height, info.width)
  transforms.check_box(box, info.height, info.width)
  sides = []
  for start, length, limit in (
    (box.top, box.height, info.height),
    (box.left, box.width, info.width),
  ):
    length = max(2, length // 2 * 2)
    start = min(start // 2 * 2, limit // 2 * 2 - length)
    sides.append((start, start + length))
  rows, columns = sides
  whole = (slice(*rows), slice(*columns))
  half = (
    slice(rows[0] // 2, rows[1] // 2),
    slice(columns[0] // 2, columns[1] // 2),
  )
  return whole, half, half
