"""Videos to measure the input with: moving pictures under the grain of film.

What a decoder has to do for a frame depends on how hard the frame was to
encode. Flat or synthetic pictures cost next to nothing; so these pan and zoom
over textures with the spectrum of natural images (amplitude 1/f), have things
that move in front, cuts, and fresh grain in each frame, and come out at the
size of Kinetics' files (0.6 to 1 MB for ten seconds of 340x256).
"""

import io
import math
import pathlib
from collections.abc import Iterator

import av
import cv2
import numpy as np
from jaxtyping import Float, UInt8

SIZE = (256, 340)
FPS = 30
SECONDS = 10
# name -> options of x264
STORES = {
  'keyint 250': {'g': '250'},
  'keyint 32, fastdecode': {'g': '32', 'tune': 'fastdecode'},
}


def write(folder: pathlib.Path, count: int, store: str) -> list[pathlib.Path]:
  """Writes videos that are not there yet.

  Args:
    folder: Where to; made if missing.
    count: How many.
    store: A key of `STORES`.

  Returns:
    Their paths.
  """
  folder.mkdir(parents=True, exist_ok=True)
  paths = [folder / f'{number:03d}.mp4' for number in range(count)]
  for number, path in enumerate(paths):
    if not path.exists():
      draft = path.with_suffix('.part')
      draft.write_bytes(_encode(number, STORES[store]))
      draft.replace(path)
  return paths


def _encode(number: int, options: dict[str, str]) -> bytes:
  """One video with a sound track, as x264 writes it at its defaults."""
  buffer = io.BytesIO()
  options = {'crf': '23', 'preset': 'medium', **options}
  with av.open(buffer, 'w', format='mp4') as container:
    video = container.add_stream('libx264', rate=FPS, options=options)
    video.height, video.width, video.pix_fmt = *SIZE, 'yuv420p'
    sound = container.add_stream('aac', rate=44100, layout='mono')
    sound.bit_rate = 64_000
    rng = np.random.default_rng(number)
    for i, pixels in enumerate(_frames(rng)):
      frame = av.VideoFrame.from_ndarray(pixels, format='rgb24')
      frame.pts = i
      container.mux(video.encode(frame))
    wave = 0.1 * rng.standard_normal((1, 44100 * SECONDS)).astype(np.float32)
    for start in range(0, wave.shape[1], 1024):
      piece = np.ascontiguousarray(wave[:, start : start + 1024])
      frame = av.AudioFrame.from_ndarray(piece, format='fltp', layout='mono')
      frame.sample_rate, frame.pts = 44100, start
      container.mux(sound.encode(frame))
    container.mux(video.encode(None))
    container.mux(sound.encode(None))
  return buffer.getvalue()


def _frames(
  rng: np.random.Generator,
) -> Iterator[UInt8[np.ndarray, 'h w 3']]:
  """The frames of one video: three takes, with cuts between them."""
  height, width = SIZE
  total = FPS * SECONDS
  cuts = np.sort(rng.integers(60, total - 60, 2))
  strength = rng.uniform(0.5, 2)  # of the grain, in grey levels
  for start, stop in zip((0, *cuts), (*cuts, total), strict=True):
    scene, things = _texture(rng, 640), _texture(rng, 256)
    heading, spin = rng.uniform(0, 2 * math.pi), rng.uniform(-0.002, 0.002)
    speed, zoom = rng.uniform(0.2, 1.5), rng.uniform(-0.001, 0.002)
    place, course = rng.uniform(60, 200, 2), rng.uniform(-2, 2, 2)
    for i in range(stop - start):
      shift = speed * i * np.array([math.cos(heading), math.sin(heading)])
      frame = _view(scene, 320 + shift, 1 + zoom * i, spin * i, (width, height))
      thing = _view(things, np.array([128.0, 128.0]), 1.5, 0.01 * i, (96, 96))
      top, left = np.abs((place + course * i) % 300 - 150).astype(int)
      frame[top : top + 96, left : left + 96] = thing
      grain = rng.normal(0, strength, (height, width, 1))
      noisy = frame + grain
      yield np.clip(noisy, 0, 255).astype(np.uint8)


def _texture(rng: np.random.Generator, side: int) -> UInt8[np.ndarray, 's s 3']:
  """A random picture whose spectrum falls as that of natural images."""
  across = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side))
  falloff: Float[np.ndarray, 's f'] = np.maximum(across, 1 / side) ** -1.1
  planes = []
  for _ in range(3):
    phases = np.exp(2j * np.pi * rng.random(falloff.shape))
    planes.append(np.fft.irfft2(falloff * phases, (side, side)))
  grey = planes[0]
  colour = np.stack([grey + 0.3 * p for p in planes], -1)
  colour = (colour - colour.mean()) / colour.std()
  return np.clip(128 + 55 * colour, 0, 255).astype(np.uint8)


def _view(
  picture: UInt8[np.ndarray, 's s 3'],
  middle: Float[np.ndarray, '2'],
  zoom: float,
  angle: float,
  size: tuple[int, int],
) -> UInt8[np.ndarray, 'h w 3']:
  """A window of a picture that repeats beyond its edges."""
  matrix = cv2.getRotationMatrix2D((size[0] / 2, size[1] / 2), 0, 1.0)
  cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
  matrix[:, :2] = [[cos, -sin], [sin, cos]]
  matrix[:, 2] = middle - matrix[:, :2] @ (np.array(size) / 2)
  return cv2.warpAffine(
    picture,
    matrix,
    size,
    flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
    borderMode=cv2.BORDER_WRAP,
  )
