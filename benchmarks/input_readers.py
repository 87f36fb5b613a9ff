"""Ways from a video file to the pixels of a clip: ours, its limit, and others.

Each reader is called with a path and a generator of random numbers, and makes
the clips of one video. All draw frames and boxes by the same functions (16
frames, every fourth, and a random half to all of their area), so with the same
generator they read the same. Libraries are imported by the reader that needs
them.
"""

import bisect
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from vivit_mae.data import augment, decode, sampling, transforms

LENGTH, STRIDE, SIDE = 16, 4, 224
_SIZE = (SIDE, SIDE)
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Reader = Callable[[str, np.random.Generator], Any]


def _frames(num_frames: int, rng: np.random.Generator) -> np.ndarray:
  return sampling.videomae_frames(num_frames, LENGTH, STRIDE, rng.random())


def _box(height: int, width: int, rng: np.random.Generator) -> transforms.Box:
  return transforms.random_resized_crop(height, width, rng)


def ours(
  pixels: str = 'rgb', repeats: int = 1, repeat: str = 'windows'
) -> Reader:
  """This library's decoder, with one or several clips of one decode."""
  cv2.setNumThreads(1)  # as its workers do

  def read(path, rng):
    def plan(info):
      windows = repeats if repeat == 'windows' else 1
      starts = [_frames(info.num_frames, rng) for _ in range(windows)]
      return [
        decode.Clip(
          starts[k % windows],
          _SIZE,
          _box(info.height, info.width, rng),
          antialias=False,
          pixels=pixels,
        )
        for k in range(repeats)
      ]

    return decode.read_clips(path, plan)

  return read


def ours_augmented() -> Reader:
  """The same with RandAugment, as VideoMAE fine-tunes."""
  policy = augment.RandAugment.parse('rand-m7-n4-mstd0.5-inc1', 'bicubic')
  plain = ours()

  def read(path, rng):
    (clip,) = plain(path, rng)
    return augment.rand_augment(clip, policy, rng)

  return read


def limit() -> Reader:
  """Decodes the packets that a clip needs, in one go, and converts nothing.

  Whatever reads frames through FFmpeg has at least this to do: open the file,
  list its packets, and decode from the last key frame to the last frame that
  is wanted, without those that nobody refers to.
  """
  import av

  def read(path, rng):
    with av.open(str(path), mode='r') as file:
      stream = file.streams.video[0]
      decoder = stream.codec_context
      stream.thread_type, decoder.thread_count = 'NONE', 1
      packets = [p for p in file.demux(stream) if p.size]
      shown = sorted(range(len(packets)), key=lambda j: packets[j].pts or 0)
      wanted = {shown[i] for i in _frames(len(shown), rng)}
      keys = [j for j, p in enumerate(packets) if p.is_keyframe]
      at, skip, count = -1, None, 0
      for j in sorted(wanted):
        key = keys[bisect.bisect_right(keys, j) - 1]
        if key > at:
          if at >= 0:
            count += len(decoder.decode(None))
            decoder.flush_buffers()
          at = key
        for k in range(at, j + 1):
          now = 'DEFAULT' if k in wanted else 'NONREF'
          if now != skip:
            decoder.skip_frame = skip = now
          count += len(decoder.decode(packets[k]))
        at = j + 1
      return count + len(decoder.decode(None))

  return read


def decord_videomae() -> Reader:
  """Decord and VideoMAE's transforms: PIL, then normalised float32 in torch."""
  import decord
  import torch
  from PIL import Image

  torch.set_num_threads(1)
  mean, std = (torch.tensor(x).view(3, 1, 1, 1) for x in (_MEAN, _STD))

  def read(path, rng):
    video = decord.VideoReader(path, num_threads=1, ctx=decord.cpu(0))
    frames = video.get_batch(_frames(len(video), rng)).asnumpy()
    top, left, height, width = _box(frames.shape[1], frames.shape[2], rng)
    pictures = [
      Image.fromarray(frame)
      .crop((left, top, left + width, top + height))
      .resize(_SIZE, Image.Resampling.BILINEAR)
      for frame in frames
    ]
    clip = torch.from_numpy(np.stack([np.asarray(p) for p in pictures]))
    clip = clip.permute(3, 0, 1, 2).contiguous().float().div(255)
    return clip.sub_(mean).div_(std)

  return read


def _cut(frames: Any, rng: np.random.Generator) -> np.ndarray:
  """What ours does to RGB frames; uint8."""
  box = _box(frames[0].shape[0], frames[0].shape[1], rng)
  return np.stack(
    [
      transforms.crop_and_resize(frame, box, _SIZE, antialias=False)
      for frame in frames
    ]
  )


def decord_uint8() -> Reader:
  """Decord for the frames, our crop for the rest."""
  import decord

  def read(path, rng):
    video = decord.VideoReader(path, num_threads=1, ctx=decord.cpu(0))
    frames = video.get_batch(_frames(len(video), rng)).asnumpy()
    del video  # its threads go on as long as it lives
    return _cut(frames, rng)

  return read


def torchcodec() -> Reader:
  """torchcodec, seeking approximately, for the frames; our crop."""
  import torch
  from torchcodec.decoders import VideoDecoder

  torch.set_num_threads(1)
  cv2.setNumThreads(1)

  def read(path, rng):
    video = VideoDecoder(
      path,
      seek_mode='approximate',
      num_ffmpeg_threads=1,
      dimension_order='NHWC',
    )
    indices = _frames(len(video), rng).tolist()
    return _cut(video.get_frames_at(indices).data.numpy(), rng)

  return read


def opencv() -> Reader:
  """OpenCV: seek, then grab all and retrieve what is wanted; our crop."""
  cv2.setNumThreads(1)

  def read(path, rng):
    video = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    indices = _frames(int(video.get(cv2.CAP_PROP_FRAME_COUNT)), rng)
    video.set(cv2.CAP_PROP_POS_FRAMES, int(indices[0]))
    wanted, found = set(indices.tolist()), {}
    for i in range(int(indices[0]), int(indices[-1]) + 1):
      video.grab()
      if i in wanted:
        found[i] = cv2.cvtColor(video.retrieve()[1], cv2.COLOR_BGR2RGB)
    video.release()
    return _cut([found[i] for i in indices.tolist()], rng)

  return read


# name -> (what makes the reader, clips that it makes of one video)
READERS: dict[str, tuple[Callable[[], Reader], int]] = {
  'decode-only limit': (limit, 1),
  'ours, yuv420': (lambda: ours('yuv420'), 1),
  'ours, RGB': (ours, 1),
  'ours, yuv420, R = 2': (lambda: ours('yuv420', 2), 2),
  'ours, yuv420, R = 4': (lambda: ours('yuv420', 4), 4),
  'ours, RGB, R = 2': (lambda: ours(repeats=2), 2),
  'ours, RGB, R = 4': (lambda: ours(repeats=4), 4),
  'ours, RGB, R = 4, same frames': (
    lambda: ours(repeats=4, repeat='crops'),
    4,
  ),
  'ours, RGB and RandAugment': (ours_augmented, 1),
  'decord + VideoMAE transforms': (decord_videomae, 1),
  'decord, our crop': (decord_uint8, 1),
  'torchcodec, our crop': (torchcodec, 1),
  'OpenCV, our crop': (opencv, 1),
}
