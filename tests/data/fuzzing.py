"""Damaged videos, and what the decoder makes of them.

    python -m tests.data.fuzzing --count=2000 --folder=../shared/videos/awkward

prints how many of the files were read exactly, how many were refused with a
reason, and each that did worse, with the seed that makes it again. Every file
is read in a process of its own pool, which may crash or hang without the run
doing so.
"""

import argparse
import collections
import dataclasses
import io
import pathlib
import random
import resource
import struct
import sys
from collections.abc import Callable, Iterator
from typing import Any

import av
import av.error
import av.stream
import numpy as np

from tests.data import clips
from vivit_mae.data import decode, isolation, transforms

# For one file: seconds, and MB of memory.
SECONDS, _MEMORY = 240, 3000

# Boxes of MP4 whose first numbers say how much there is, how large, how long.
_BOXES = (
  *(b'mvhd', b'tkhd', b'mdhd', b'elst', b'stts', b'ctts', b'stsz', b'stco'),
  *(b'stss', b'stsc', b'avc1', b'hvc1', b'mp4v', b'avcC', b'trun', b'tfhd'),
)
# Likewise in AVI and, as bytes that name an element, in Matroska.
_OTHERS = (
  *(b'avih', b'strh', b'strf', b'idx1', b'hdrl'),
  *(b'\x2a\xd7\xb1', b'\x44\x89', b'\xb0\x82', b'\xba\x81', b'\x23\xe3\x83'),
  *(b'\x1f\x43\xb6\x75', b'\xa3', b'\xe7'),
)
_LIES = (
  *(0, 1, 2, 0x7FFF, 0xFFFF, 30_000, 30_000 << 16, 0x7FFFFFFF, 0x80000000),
  *(0xFFFFFFFF, 0xFFFFFFFE, 3600 * 24 * 365 * 100, 100_000_000),
)


def _flip_bits(video: bytearray, rng: random.Random) -> None:
  start, stop = rng.choice(
    [(0, len(video)), (0, min(2048, len(video))), (len(video) // 2, len(video))]
  )
  for _ in range(rng.choice([1, 3, 20, 200])):
    video[rng.randrange(start, stop)] ^= 1 << rng.randrange(8)


def _truncate(video: bytearray, rng: random.Random) -> None:
  del video[len(video) * rng.randrange(1, 20) // 20 :]


def _swap_chunks(video: bytearray, rng: random.Random) -> None:
  size = min(rng.choice([16, 256, 4096]), len(video) // 2)
  a, b = (rng.randrange(len(video) - size + 1) for _ in range(2))
  one, other = bytes(video[a : a + size]), bytes(video[b : b + size])
  video[a : a + size] = other
  video[b : b + size] = one


def _lie_in_header(video: bytearray, rng: random.Random) -> None:
  names = [name for name in (*_BOXES, *_OTHERS) if name in video]
  for _ in range(rng.choice([1, 1, 2, 5])):
    if not names:
      return _flip_bits(video, rng)
    name = rng.choice(names)
    at = video.find(name)
    if rng.random() < 0.3:
      at = max(at, video.find(name, at + 1))  # another track's
    field = at + len(name) + 4 * rng.randrange(0, 24)
    if field + 4 <= len(video):
      struct.pack_into('>I', video, field, rng.choice(_LIES))
  return None


def _lie_about_times(video: bytearray, rng: random.Random) -> None:
  """Timestamps that repeat, run backwards, or lie years apart."""
  for name in (b'stts', b'ctts'):
    at = video.find(name)
    if at < 0:
      continue
    (count,) = struct.unpack_from('>I', video, at + 8)
    kind = rng.choice(['same', 'back', 'far', 'random'])
    for entry in range(min(count, 1000)):
      field = at + 12 + 8 * entry + 4
      if field + 4 > len(video):
        break
      (old,) = struct.unpack_from('>I', video, field)
      new = {
        'same': 0,
        'back': (old - rng.randrange(5000)) & 0xFFFFFFFF,
        'far': old * 1_000_003 & 0xFFFFFFFF,
        'random': rng.randrange(2**32),
      }[kind]
      if rng.random() < 0.5:
        struct.pack_into('>I', video, field, new)
    return None
  return _lie_in_header(video, rng)


def _damage_blocks(video: bytearray, rng: random.Random) -> None:
  at, size = rng.randrange(len(video)), rng.choice([1, 100, 5000])
  what = rng.choice(['zero', 'noise', 'cut', 'insert', 'double'])
  piece = bytes(video[at : at + size])
  new = {
    'zero': bytes(len(piece)),
    'noise': rng.randbytes(len(piece)),
    'cut': b'',
    'insert': piece + rng.randbytes(size),
    'double': piece + piece,
  }[what]
  video[at : at + size] = new


MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (
  *(_flip_bits, _truncate, _swap_chunks, _lie_in_header, _lie_about_times),
  _damage_blocks,
)


def damaged(videos: list[bytes], seed: int) -> bytes:
  """Video number `seed` of those that damaging some videos gives."""
  rng = random.Random(seed)
  video = bytearray(videos[seed % len(videos)])
  for _ in range(rng.choice([1, 1, 1, 2, 3])):
    if len(video) > 64:
      rng.choice(MUTATIONS)(video, rng)
  return bytes(video)


def generated() -> list[bytes]:
  """Small sound videos of the common makes, always the same bytes."""
  same = 'mbtree=0'  # see `encode.write_video`
  makes: list[dict[str, Any]] = [
    {'x264-params': f'keyint=10:bframes=3:{same}'},
    {'x264-params': f'keyint=12:bframes=3:open-gop=1:scenecut=0:{same}'},
    {'movflags': 'frag_keyframe+empty_moov', 'x264-params': f'keyint=8:{same}'},
    {'movflags': 'faststart', 'x264-params': f'keyint=250:{same}'},
    {'codec': 'mpeg4', 'bf': '2', 'g': '12'},
    {
      'kind': 'matroska',
      'time_base': clips.MILLISECOND,
      'x264-params': f'keyint=12:{same}',
    },
    {'codec': 'libx265', 'x265-params': 'keyint=12:log-level=none'},
  ]
  return [clips.encode(n=30, size=(48, 64), **make) for make in makes]


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What came of one file.

  Attributes:
    seed: What made it.
    kind: 'exact', 'concealed' (frames of a damaged stream that FFmpeg mends in
      one way or another), 'refused: <kind>', or what must not be: 'wrong
      count', 'wrong frames', 'error', 'crashed', 'timeout', 'memory'.
    detail: More of it.
    resident: MB that the process held afterwards.
  """

  seed: int
  kind: str
  detail: str = ''
  resident: float = 0.0

  @property
  def is_fault(self) -> bool:
    """Whether it must not be."""
    good = self.kind in ('exact', 'concealed')
    return not good and not self.kind.startswith('refused')


def run(
  videos: list[bytes], seeds: range, num_workers: int
) -> Iterator[Outcome]:
  """Reads damaged videos."""
  jobs = ((seed, damaged(videos, seed)) for seed in seeds)
  with isolation.Pool(check, num_workers, SECONDS) as pool:
    for number, found in pool.run(jobs):
      if isinstance(found, isolation.Failure):
        found = Outcome(seeds[number], found.kind, found.detail)
      yield found


def check(job: tuple[int, bytes]) -> Outcome:
  """Reads one file in every way, and compares with plain decoding."""
  seed, video = job
  try:
    outcome = _check(seed, video)
  except decode.VideoError as error:
    outcome = Outcome(seed, f'refused: {error.kind}', str(error))
  except Exception as error:  # no other may come through
    outcome = Outcome(seed, 'error', f'{type(error).__name__}: {error}')
  status = pathlib.Path('/proc/self/status').read_text()
  resident = int(status.split('VmRSS:')[1].split()[0]) / 1024
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
  if peak > _MEMORY and not outcome.is_fault:
    outcome = Outcome(seed, 'memory', f'{peak:.0f} MB at most')
  return dataclasses.replace(outcome, resident=resident)


def _check(seed: int, video: bytes) -> Outcome:
  rng = np.random.default_rng(seed)
  read: dict[int, np.ndarray] = {}
  for _ in range(3):
    asked: list[decode.Clip] = []

    def plan(info, asked=asked):
      wanted = rng.integers(info.num_frames, size=6)
      size = (min(info.height, 64), min(info.width, 64))
      asked[:] = [decode.Clip(wanted, size, antialias=False)]
      return asked

    (pixels,) = decode.read_clips(video, plan)
    read |= dict(zip(asked[0].frames.tolist(), pixels, strict=True))
  try:
    info = decode.probe(video, decode=True, seconds=60)
  except decode.VideoError as error:
    if error.kind == 'timeout':
      raise
    return Outcome(seed, 'concealed', str(error))
  return _compare(seed, video, info, read)


def _compare(seed, video, info, read) -> Outcome:
  """Against plain decoding, of a stream in which FFmpeg finds no fault."""
  count = 0
  wrong = []
  concealed = False
  with av.open(io.BytesIO(video), 'r', metadata_errors='replace') as opened:
    stream: Any = opened.streams.best('video')
    # A fault in the sound of an MP4 is none of the pictures'.
    for other in opened.streams:
      if 'mp4' in opened.format.name and other.index != stream.index:
        other.discard = av.stream.Discard.all
    # Threads mend what is damaged in other ways.
    stream.thread_type, stream.codec_context.thread_count = 'NONE', 1
    try:
      for count, frame in enumerate(opened.decode(stream), 1):
        concealed = concealed or frame.is_corrupt
        if count - 1 in read:
          pixels = _plain(frame, info, read[count - 1].shape[:2])
          if not np.array_equal(pixels, read[count - 1]):
            wrong.append(count - 1)
    except av.error.FFmpegError as error:
      return Outcome(seed, 'concealed', f'plain decoding ends: {error}')
  if count != info.num_frames:
    detail = f'{info.num_frames} frames are told, {count} decode'
    return Outcome(seed, 'wrong count', detail)
  if wrong and concealed:
    # It filled in what it could not decode, out of whatever it had decoded.
    return Outcome(seed, 'concealed', 'a frame is incomplete')
  if wrong:
    return Outcome(seed, 'wrong frames', f'{wrong} of {count}')
  return Outcome(seed, 'exact')


def _plain(frame, info, size):
  turned = info.rotation in (90, 270)
  stored = (info.height, info.width) if turned else (info.width, info.height)
  rgb = frame.reformat(*stored, 'rgb24').to_ndarray()
  rgb = np.rot90(rgb, -info.rotation // 90)
  return transforms.crop_and_resize(rgb, None, size, antialias=False)


def main() -> None:
  """Runs the command."""
  parser = argparse.ArgumentParser(description=str(__doc__).split('\n', 1)[0])
  parser.add_argument('--count', type=int, default=2000)
  parser.add_argument('--first', type=int, default=0, help='first seed')
  parser.add_argument(
    '--folder', help='videos to damage, beside generated ones'
  )
  parser.add_argument('--workers', type=int, default=2)
  args = parser.parse_args()
  videos = generated()
  if args.folder:
    paths = sorted(pathlib.Path(args.folder).rglob('*.*'))
    videos += [p.read_bytes() for p in paths if p.is_file()]
  seeds = range(args.first, args.first + args.count)
  kinds: collections.Counter[str] = collections.Counter()
  resident: list[float] = []
  for outcome in run(videos, seeds, args.workers):
    kinds[outcome.kind] += 1
    resident.append(outcome.resident)
    if outcome.is_fault:
      print(outcome, flush=True)
    if sum(kinds.values()) % 100 == 0:
      print(f'{sum(kinds.values())} files', file=sys.stderr, flush=True)
  for kind, number in kinds.most_common():
    print(f'{number:6d} {kind}')
  parts = np.array_split([r for r in resident if r], 4)
  means = ', '.join(f'{np.mean(part):.0f}' for part in parts if len(part))
  print(f'resident MB, means of the quarters of the run: {means}')


if __name__ == '__main__':
  main()
