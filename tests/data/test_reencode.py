"""Frames, times and colours stay; sizes, key frames and rotation change."""

import contextlib
import dataclasses
import io
from fractions import Fraction
from typing import Any, cast

import av
import numpy as np
import pytest
from PIL import Image

from tests.data import clips
from vivit_mae.data import container, decode, encode, frames, packets, reencode

LOSSLESS = reencode.Settings(crf=0, preset='ultrafast')
QUICK = reencode.Settings(preset='ultrafast')


def _rgb(video, **options):
  def plan(info):
    every = np.arange(info.num_frames)
    return [decode.Clip(every, (info.height, info.width))]

  return decode.read_clips(video, plan, **options)[0].astype(int)


def _smooth(
  n=8,
  size=(48, 64),
  pixel_format='yuv420p',
  colours=(2, 0, 2, 2),
  turned=0,
  pts=None,
  codec='libx264',
  kind='mp4',
):
  """A lossless video of soft waves; `colours` are FFmpeg's four tags."""
  height, width = size
  y, x = np.mgrid[:height, :width] * 1.0
  buffer = io.BytesIO()
  with av.open(buffer, 'w', format=kind) as opened:
    stream = cast(av.VideoStream, opened.add_stream(codec, rate=25))
    if codec == 'libx264':
      stream.codec_context.options = {'crf': '0', 'preset': 'ultrafast'}
    stream.height, stream.width, stream.pix_fmt = height, width, pixel_format
    target = stream.codec_context
    target.colorspace, target.color_range = colours[:2]
    target.color_primaries, target.color_trc = colours[2:]
    target.thread_count, target.time_base = 1, Fraction(1, 600)
    for i in range(n):
      wave = 128 + 90 * np.sin(x / 17 + i / 3) * np.cos(y / 19 - i / 5)
      rgb = np.stack([wave, 255 - wave, np.full_like(wave, 90)], -1)
      frame = av.VideoFrame.from_ndarray(rgb.astype(np.uint8), format='rgb24')
      frame = frame.reformat(
        format=pixel_format,
        dst_colorspace=colours[0] if colours[0] != 2 else None,
        dst_color_range=colours[1] or 1,
      )
      frame.pts = pts[i] if pts else i * 24
      frame.time_base = target.time_base
      opened.mux(stream.encode(frame))
    opened.mux(stream.encode(None))
  video = buffer.getvalue()
  if turned:
    # The matrix of the track's header says it: a, b, u, c, d, ...
    matrix = np.array([0, 1, 0, -1, 0], '>i4') * 65536
    upright = (np.array([1, 0, 0, 0, 1], '>i4') * 65536).tobytes()
    at = video.index(upright, video.index(b'tkhd'))
    video = video[:at] + matrix.tobytes() + video[at + 20 :]
  return video


def _tags(video):
  with av.open(io.BytesIO(video)) as opened:
    stream = opened.streams.video[0]
    context = stream.codec_context
    return [
      int(context.colorspace),
      int(context.color_range),
      int(context.color_primaries),
      int(context.color_trc),
    ]


@pytest.mark.parametrize('full', [False, True])
@pytest.mark.parametrize('matrix', [1, 2, 5, 6, 9])
def test_pixels_and_tags_of_colours_stay(matrix, full):
  pixel_format = 'yuvj420p' if full else 'yuv420p'
  colours = (matrix, 1 + full, *((9, 16) if matrix == 9 else (1, 1)))
  video = _smooth(pixel_format=pixel_format, colours=colours)
  encoded = reencode.reencode(video, LOSSLESS)
  assert _tags(encoded.video) == _tags(video) == list(colours)
  np.testing.assert_array_equal(_rgb(encoded.video), _rgb(video))
  assert encoded.loss.squared_error == 0
  assert encoded.loss.psnr() == (np.inf, np.inf)


def test_what_is_untagged_stays_untagged():
  video = _smooth()
  assert _tags(reencode.reencode(video, QUICK).video) == [2, 0, 2, 2]


@pytest.mark.parametrize('pixel_format', ['yuv444p', 'yuv420p10le', 'gbrp'])
def test_other_formats_of_pixels(pixel_format):
  colours = (2, 0, 2, 2) if pixel_format != 'gbrp' else (0, 2, 2, 2)
  codec = 'libx264rgb' if pixel_format == 'gbrp' else 'libx264'
  if pixel_format == 'gbrp':
    pixel_format, kind = 'rgb24', 'matroska'
    video = _smooth(
      pixel_format=pixel_format, colours=colours, codec=codec, kind=kind
    )
  else:
    video = _smooth(pixel_format=pixel_format, colours=colours)
  encoded = reencode.reencode(video, LOSSLESS)
  info = decode.probe(encoded.video, decode=True)
  assert info.pixel_format == 'yuv420p'
  assert np.abs(_rgb(encoded.video) - _rgb(video)).mean() < 2


def test_frames_keep_their_uneven_times():
  pts = [0, 24, 60, 61, 200, 1000, 1024, 1030]
  video = _smooth(pts=pts)
  encoded = reencode.reencode(video, QUICK)
  before, after = decode.probe(video), decode.probe(encoded.video, decode=True)
  assert after.variable_frame_rate
  assert encoded.num_frames == after.num_frames == 8
  np.testing.assert_allclose(after.timestamps, np.array(pts) / 600, rtol=1e-12)
  np.testing.assert_array_equal(after.timestamps, before.timestamps)
  assert after.duration == encoded.duration == before.duration


@pytest.mark.parametrize(
  ('kind', 'codec'),
  [('avi', 'mpeg4'), ('matroska', 'libx264'), ('mpegts', 'libx264')],
)
def test_other_containers(kind, codec):
  video = clips.encode(
    20, kind=kind, codec=codec, time_base=Fraction(1, 25), pts=range(20)
  )
  encoded = reencode.reencode(video, QUICK)
  before, after = decode.probe(video), decode.probe(encoded.video, decode=True)
  assert before.num_frames == after.num_frames == 20
  np.testing.assert_allclose(after.timestamps, before.timestamps, atol=1e-6)
  assert after.variable_frame_rate == before.variable_frame_rate
  assert np.abs(_rgb(encoded.video) - _rgb(video)).mean() < 8


def test_rotation_is_in_the_pixels():
  video = _smooth(turned=90)
  before = decode.probe(video)
  assert (before.rotation, before.height, before.width) == (90, 64, 48)
  encoded = reencode.reencode(video, LOSSLESS)
  after = decode.probe(encoded.video)
  assert (after.rotation, after.height, after.width) == (0, 64, 48)
  assert np.abs(_rgb(encoded.video) - _rgb(video)).mean() < 1


@pytest.mark.parametrize(
  ('size', 'short_side', 'result'),
  [
    ((48, 64), None, (48, 64)),
    ((48, 64), 32, (32, 42)),
    ((64, 48), 32, (42, 32)),
    ((48, 64), 100, (48, 64)),
    ((47, 65), None, (46, 64)),
    ((47, 65), 47 - 1, (46, 64)),
    ((90, 21), 20, (86, 20)),
  ],
)
def test_size(size, short_side, result):
  settings = dataclasses.replace(QUICK, short_side=short_side)
  odd = size[0] % 2 or size[1] % 2
  video = _smooth(3, size, 'yuv444p' if odd else 'yuv420p')
  encoded = reencode.reencode(video, settings)
  info = decode.probe(encoded.video)
  assert (info.height, info.width) == result
  assert encoded.loss.pixels == 3 * result[0] * result[1]


def test_key_frames_and_settings():
  video = clips.encode(40, g='250')
  sizes = {}
  for gop, crf in ((8, 23), (40, 23), (40, 40)):
    settings = reencode.Settings(gop=gop, crf=crf, tune='none')
    encoded = reencode.reencode(video, settings).video
    with container.VideoFile(encoded, '') as file:
      listed = packets.read(file)
    keys = np.flatnonzero([*listed.is_key, True])
    assert np.diff(keys).max() <= gop
    sizes[gop, crf] = len(encoded)
  assert sizes[8, 23] > sizes[40, 23] > sizes[40, 40]


@pytest.mark.parametrize('tune', ['fastdecode', 'grain'])
def test_the_same_video_gives_the_same_bytes(tune):
  video = clips.encode(24)
  settings = reencode.Settings(short_side=48, tune=tune)
  first = reencode.reencode(video, settings)
  for _ in range(4):
    assert reencode.reencode(video, settings) == first


def test_loss_is_measured_on_luma():
  video = _smooth(6)
  settings = dataclasses.replace(QUICK, crf=35)
  encoded = reencode.reencode(video, settings, 'a')
  luma = []
  for each in (video, encoded.video):
    with av.open(io.BytesIO(each), 'r') as opened:
      luma.append([f.to_ndarray()[:48] for f in opened.decode(video=0)])
  before, after = np.asarray(luma, int)
  errors = ((before - after) ** 2).sum((1, 2))
  assert encoded.loss.squared_error == errors.sum()
  assert encoded.loss.worst == errors.max() / (48 * 64)
  np.testing.assert_allclose(
    encoded.loss.psnr(),
    10 * np.log10(255**2 * 48 * 64 / np.array([errors.mean(), errors.max()])),
  )
  assert encoded.loss.bytes_before == len(video)
  assert encoded.loss.bytes_after == len(encoded.video)
  assert encoded.loss.worst_id == 'a'


def test_losses_add_up():
  a = reencode.Loss(10, 5, 100, 400, 6.0, 'a')
  b = reencode.Loss(30, 6, 300, 800, 7.0, 'b')
  total = reencode.Loss(40, 11, 400, 1200, 7.0, 'b')
  assert reencode.Loss.of_all([a, b]) == total
  part = dataclasses.replace(b, bytes_before=None)
  assert reencode.Loss.of_all([a, part]).bytes_before is None


def test_pictures_become_a_video():
  rng = np.random.default_rng(0)
  still = rng.integers(0, 255, (6, 8, 3)).astype(np.uint8)
  shown = [np.roll(still, i, 1).repeat(8, 0).repeat(8, 1) for i in range(10)]
  stored = []
  for picture in shown:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, 'png')
    stored.append(buffer.getvalue())
  source = frames.EncodedFrames(stored, 5)
  encoded = reencode.reencode(source, LOSSLESS)
  info = decode.probe(encoded.video, decode=True)
  assert (info.num_frames, info.fps, info.duration) == (10, 5, 2)
  assert np.abs(_rgb(encoded.video) - np.stack(shown)).mean() < 12
  assert encoded.loss.bytes_before == sum(map(len, stored))
  assert _tags(encoded.video)[:2] == [5, 1]
  part = reencode.reencode(source, QUICK, segment=(0.4, 1.2))
  assert part.num_frames == 4


@pytest.mark.parametrize('kind', ['mp4', 'avi'])
def test_only_the_segment_is_encoded(kind):
  codec = 'libx264' if kind == 'mp4' else 'mpeg4'
  video = clips.encode(
    60, kind=kind, codec=codec, time_base=Fraction(1, 25), pts=range(60), g='12'
  )
  encoded = reencode.reencode(video, LOSSLESS, segment=(0.8, 1.6))
  assert encoded.num_frames == 20
  np.testing.assert_array_equal(
    _rgb(encoded.video), _rgb(video, segment=(0.8, 1.6))
  )
  assert encoded.loss.bytes_before is None


def test_a_segment_whose_frames_need_what_is_before_it():
  options: Any = {'x264-params': 'intra-refresh=1:keyint=20:mbtree=0'}
  video = clips.encode(60, time_base=Fraction(1, 25), pts=range(60), **options)
  encoded = reencode.reencode(video, LOSSLESS, segment=(1.0, 2.0))
  np.testing.assert_array_equal(
    _rgb(encoded.video), _rgb(video, segment=(1.0, 2.0))
  )


def test_a_gif():
  rng = np.random.default_rng(0)
  still = rng.integers(0, 255, (5, 6, 3)).astype(np.uint8)
  shown = [np.roll(still, i, 1).repeat(8, 0).repeat(8, 1) for i in range(6)]
  video = encode.write_gif(None, shown, 10)
  encoded = reencode.reencode(video, LOSSLESS)
  assert encoded.num_frames == 6
  assert np.abs(_rgb(encoded.video) - _rgb(video)).mean() < 12


def test_faulty_videos_are_not_encoded():
  video = bytearray(clips.encode(30, bf='0'))
  video[len(video) // 3 : len(video) // 3 + 400] = bytes(400)
  with pytest.raises(decode.VideoError, match=r'a\.mp4: corrupt'):
    reencode.reencode(bytes(video), QUICK, 'a.mp4')


def test_frames_that_do_not_come_are_noticed(monkeypatch):
  video = _smooth(6)
  opened = decode.opened

  @contextlib.contextmanager
  def lying(*arguments):
    with opened(*arguments) as (info, shown):
      yield info, (f for i, f in enumerate(shown) if i != 3)

  monkeypatch.setattr(decode, 'opened', lying)
  with pytest.raises(decode.VideoError, match='6 frames are declared, 5 decod'):
    reencode.reencode(video, QUICK, 'a')


def test_frames_that_are_not_written_are_noticed(monkeypatch):
  video = _smooth(6)
  probe = decode.probe

  def fewer(*arguments):
    info = probe(*arguments)
    return dataclasses.replace(info, num_frames=info.num_frames - 1)

  monkeypatch.setattr(decode, 'probe', fewer)
  with pytest.raises(reencode.EncodingError, match='a: of 6 frames, 5 are in'):
    reencode.reencode(video, QUICK, 'a')


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'short_side': 255}, 'short_side is 255; it is even'),
    ({'short_side': 0}, 'short_side is 0'),
    ({'gop': 0}, 'gop is 0; it is at least 1'),
    ({'crf': 52}, 'crf is 52; it is from 0'),
    ({'preset': 'quick'}, "preset is 'quick'; known are ultrafast"),
    ({'tune': 'fast'}, "tune is 'fast'; known are fastdecode"),
  ],
)
def test_impossible_settings(settings, message):
  with pytest.raises(ValueError, match=message):
    reencode.Settings(**settings)


def test_awkward_videos(shared_videos):
  for name, size in (
    ('decord_video_90.mov', (568, 320)),
    ('decord_video_180.mov', (320, 568)),
    ('derived/odd_227x127_nobframes_yuv444.mp4', (126, 226)),
    ('derived/single_frame.mp4', (128, 228)),
    ('torchcodec_h264_10bits.mp4', (200, 200)),
    ('sense_test_video.mp4', (30, 40)),
  ):
    path = shared_videos / 'awkward' / name
    before = decode.probe(path)
    encoded = reencode.reencode(path, QUICK)
    after = decode.probe(encoded.video, decode=True)
    assert (after.height, after.width) == size, name
    np.testing.assert_allclose(after.timestamps, before.timestamps, atol=1e-9)
    assert encoded.loss.bytes_before == path.stat().st_size
