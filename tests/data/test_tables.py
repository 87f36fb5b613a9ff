"""Plain MP4s are read by their own tables, and no others are."""

import contextlib
import io
import struct
from collections.abc import Callable
from typing import Any

import av
import numpy as np
import pytest

from tests.data import clips, exact_frames, fuzzing
from vivit_mae.data import container, decode, h264, mp4, packets, tables

_PLAIN: dict[str, dict[str, Any]] = {
  'reordered': {'x264-params': 'keyint=12:bframes=3:b-pyramid=normal'},
  'as they come': {'x264-params': 'keyint=16:bframes=0'},
  'one group': {'x264-params': 'keyint=250'},
  'index first': {'movflags': 'faststart', 'g': '12'},
  'QuickTime': {'kind': 'mov', 'g': '12'},
  'cropped': {'size': (50, 70), 'g': '12'},
  'full range': {'pixel_format': 'yuvj420p', 'g': '12'},
  'uneven': {'pts': [24 * i + i % 3 for i in range(60)], 'g': '12'},
  'late': {'pts': range(100, 1540, 24), 'g': '12'},
  'baseline': {'profile': 'baseline', 'g': '12'},
  'colours told': {'x264-params': 'keyint=12:colormatrix=bt709:range=pc'},
}

_UNUSUAL: dict[str, Callable[[], bytes]] = {
  'fragments': lambda: clips.encode(movflags='frag_keyframe+empty_moov'),
  'rotated': lambda: clips.encode(rotation=90),
  'HEVC': lambda: clips.encode(codec='libx265', preset='ultrafast'),
  '10 bits': lambda: clips.encode(pixel_format='yuv420p10le'),
  '4:4:4': lambda: clips.encode(pixel_format='yuv444p'),
  'interlaced': lambda: clips.encode(flags='+ildct+ilme'),
  'one frame': lambda: clips.encode(n=1),
  'start hidden': lambda: clips.hide_start(clips.encode(g='12'), 4),
  'end hidden': lambda: _changed(b'elst', 12, lambda ticks: ticks // 2),
  'played faster': lambda: _changed(b'elst', 20, lambda rate: 2 * rate),
  'cut': lambda: clips.encode(movflags='faststart')[:-2000],
  'Matroska': lambda: clips.encode(
    kind='matroska', time_base=clips.MILLISECOND
  ),
  'nothing': lambda: b'\0' * 64,
}


def _changed(box: bytes, at: int, change: Callable[[int], int]) -> bytes:
  """A video in whose box, from its name on, a number is another."""
  video = bytearray(clips.encode(g='12'))
  field = video.index(box) + at
  (old,) = struct.unpack_from('>I', video, field)
  struct.pack_into('>I', video, field, change(old))
  return bytes(video)


def _tables(video: bytes) -> packets.Packets | None:
  with container.VideoFile(video, '') as file:
    return tables.read(file)


def _first_frame(video: bytes) -> av.VideoFrame:
  with av.open(io.BytesIO(video), 'r') as opened:
    return next(opened.decode(video=0))


def _read_run(listed: packets.Packets, start: int, stop: int) -> None:
  for run in listed.runs([(start, stop)]):
    list(run)


def _forbid(*args, **kwargs):
  raise AssertionError('FFmpeg was asked to open the file')


@pytest.mark.parametrize('make', _PLAIN)
@pytest.mark.parametrize('as_path', [False, True])
def test_plain_files_are_exact_without_being_opened_by_ffmpeg(
  make, as_path, tmp_path, monkeypatch
):
  video = clips.encode(**_PLAIN[make])
  path = tmp_path / 'a.mp4'
  path.write_bytes(video)
  info = decode.probe(video)
  found: list[decode.VideoInfo] = []

  def plan(info):
    found.append(info)
    return [decode.Clip(np.arange(info.num_frames), (info.height, info.width))]

  with av.open(str(path)) as opened:
    every = [f.to_ndarray(format='rgb24') for f in opened.decode(video=0)]
  with monkeypatch.context() as patch:
    patch.setattr(av, 'open', _forbid)
    (clip,) = decode.read_clips(path if as_path else video, plan)
  np.testing.assert_array_equal(clip, every)
  assert len(found) == 1
  for name, value in vars(info).items():
    np.testing.assert_array_equal(getattr(found[0], name), value, name)
  wrong, _ = exact_frames.count_wrong(video, 60)
  assert not wrong


@pytest.mark.parametrize('make', _UNUSUAL)
def test_of_all_others_ffmpeg_is_asked(make):
  video = _UNUSUAL[make]()
  assert _tables(video) is None
  with contextlib.suppress(decode.VideoError):
    assert not exact_frames.count_wrong(video, 60)[0]


def test_sizes_colours_and_order_are_read_as_the_decoder_does():
  for name, make in _PLAIN.items():
    video = clips.encode(**make)
    header = mp4.read_header(lambda at, size, v=video: v[at : at + size])
    track = mp4.read_track(header)
    assert track is not None, name
    settings = h264.read_settings(track.config)
    assert settings is not None, name
    with container.VideoFile(video, '') as file:
      listed = packets.read(file)
      looks = packets.Looks.of(_first_frame(video))
      assert settings.reorders == bool(file.decoder.has_b_frames), name
    assert (settings.width, settings.height) == track.size
    assert (looks.width, looks.height) == track.size
    assert settings.pixel_format == looks.format
    assert (settings.matrix, settings.colour_range) == (
      looks.matrix,
      looks.colour_range,
    )
    # An edit list may shift all of its times.
    np.testing.assert_array_equal(
      track.pts - track.pts[0], np.array(listed.pts) - listed.pts[0], name
    )
    assert track.is_key.tolist() == listed.is_key
    assert track.tick == listed.tick


def test_open_groups_are_found_out():
  open_gop: dict[str, Any] = {
    'x264-params': 'keyint=12:bframes=3:open-gop=1:scenecut=0'
  }
  video = clips.encode(**open_gop)
  with container.VideoFile(video, '') as file:
    listed = tables.read(file)
    assert listed is not None
    second = listed.is_key.index(True, 1)
    with pytest.raises(packets.DeceivedError):
      _read_run(listed, second, second + 3)
  assert not exact_frames.count_wrong(video, 60)[0]


@pytest.mark.parametrize(
  'box', ['stts', 'ctts', 'stsc', 'stsz', 'stss', 'stco']
)
def test_tables_that_lie_deceive_nobody(box):
  video = clips.encode(n=40, g='12')
  at = video.index(box.encode())
  rng = np.random.default_rng(0)
  for number in range(40):
    damaged = bytearray(video)
    field = at + 4 * int(rng.integers(1, 12))
    struct.pack_into('>I', damaged, field, int(rng.integers(2**10)))
    outcome = fuzzing.check((number, bytes(damaged)))
    assert not outcome.is_fault, outcome


def test_files_that_shrink_meanwhile_are_found_out(tmp_path):
  path = tmp_path / 'a.mp4'
  path.write_bytes(clips.encode(g='12'))
  with container.VideoFile(path, '') as file:
    listed = tables.read(file)
    assert listed is not None
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(packets.DeceivedError):
      _read_run(listed, 24, 30)


def test_a_packet_far_from_the_others_is_read_alone(monkeypatch):
  monkeypatch.setattr(tables, '_GAP', -(10**6))
  video = clips.encode(g='12')
  assert not exact_frames.count_wrong(video, 60)[0]
