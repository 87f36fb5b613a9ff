"""Random frames of many files beside plain decoding from the start.

    python -m tests.data.exact_frames --frames=400 ../shared/videos

reads frames of each file, and of generated ones, a few at a time and in random
order, and counts those that differ by a single pixel.
"""

import argparse
import hashlib
import io
import pathlib
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np

from tests.data import clips
from vivit_mae.data import decode

_TOGETHER = 16


def generated() -> Iterator[tuple[str, bytes]]:
  """Files of every make, with their names."""
  open_gop: dict[str, Any] = {
    'x264-params': 'keyint=12:bframes=3:open-gop=1:scenecut=0'
  }
  steps = np.random.default_rng(0).integers(8, 60, 60)
  makes: dict[str, dict[str, Any]] = {
    'open GOP': open_gop,
    'open GOP, HEVC': {
      'codec': 'libx265',
      'x265-params': 'keyint=12:open-gop=1:log-level=none',
    },
    'variable frame rate': {'pts': (np.cumsum(steps) - steps[0]).tolist()},
    'rotated by 90': {'rotation': 90},
    'rotated by 180': {'rotation': 180},
    '10 bit': {'pixel_format': 'yuv420p10le', 'g': '12'},
    '4:4:4': {'pixel_format': 'yuv444p', 'g': '12'},
    'AVI': {
      'codec': 'mpeg4',
      'bf': '2',
      'g': '12',
      'kind': 'avi',
      'time_base': Fraction(1, 25),
      'pts': range(60),
    },
    'MKV': {'kind': 'matroska', 'time_base': clips.MILLISECOND, 'g': '12'},
    'MPEG-TS': {'kind': 'mpegts', 'time_base': Fraction(1, 90000), 'g': '12'},
  }
  for name, make in makes.items():
    yield name, clips.encode(**make)
  yield 'open GOP, cut', clips.cut_at_second_key(clips.encode(**open_gop))
  closed: dict[str, Any] = {'x264-params': 'keyint=30:bframes=3'}
  for hidden in (4, 12, 40):
    video = clips.encode(**closed)
    yield f'edit list hides {hidden}', clips.hide_start(video, hidden)


def count_wrong(
  source: bytes | str, frames: int, seed: int = 0
) -> tuple[int, int]:
  """Reads random frames of a file.

  Returns:
    How many differ from plain decoding, and how many frames the file has.

  Raises:
    VideoError: It cannot be read.
  """
  rng = np.random.default_rng(seed)
  count = decode.probe(source).num_frames
  expected = list(_plain_digests(source))
  if len(expected) != count:
    return frames, count
  wanted = rng.integers(count, size=frames)
  wrong = 0
  for start in range(0, frames, _TOGETHER):
    part = wanted[start : start + _TOGETHER]

    def plan(info, part=part):
      return [decode.Clip(part, (info.height, info.width))]

    (read,) = decode.read_clips(source, plan)
    for i, pixels in zip(part.tolist(), read, strict=True):
      wrong += _digest(pixels) != expected[i]
  return wrong, count


def _plain_digests(source: bytes | str) -> Iterator[bytes]:
  target = io.BytesIO(source) if isinstance(source, bytes) else source
  with av.open(target, 'r') as opened:
    for frame in opened.decode(opened.streams.best('video')):
      assert isinstance(frame, av.VideoFrame)
      rgb = frame.to_ndarray(format='rgb24')
      yield _digest(np.rot90(rgb, round(frame.rotation / 90)))


def _digest(pixels: np.ndarray) -> bytes:
  return hashlib.blake2b(pixels.tobytes()).digest()


def main() -> None:
  """Runs the command."""
  parser = argparse.ArgumentParser(description=str(__doc__).split('\n', 1)[0])
  parser.add_argument('folders', nargs='*')
  parser.add_argument('--frames', type=int, default=400)
  args = parser.parse_args()
  sources: list[tuple[str, bytes | str]] = list(generated())
  for folder in args.folders:
    paths = sorted(pathlib.Path(folder).rglob('*.*'))
    sources += [
      (str(p), str(p))
      for p in paths
      if p.is_file() and p.suffix not in ('.md', '.csv')
    ]
  total = faults = refused = 0
  for name, source in sources:
    try:
      wrong, _ = count_wrong(source, args.frames)
    except decode.VideoError as error:
      print(f'refused: {error}', flush=True)
      refused += 1
      continue
    total += args.frames
    faults += wrong
    if wrong:
      print(f'{name}: {wrong} of {args.frames} frames are wrong', flush=True)
  print(
    f'{faults} of {total} frames are wrong, in {len(sources) - refused} files; '
    f'{refused} files were refused'
  )


if __name__ == '__main__':
  main()
