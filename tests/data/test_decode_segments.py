"""Segments of long videos, and headers that say less, or more, than is true."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from tests.data import clips, exact_frames
from vivit_mae.data import container, decode, matroska, mp4, packets

_MAKES: dict[str, dict[str, Any]] = {
  'mp4': {'g': '12'},
  'one group': {'g': '250'},
  'open GOP': {'x264-params': 'keyint=12:bframes=3:open-gop=1:scenecut=0'},
  'Matroska': {'kind': 'matroska', 'time_base': clips.MILLISECOND},
  'MPEG-TS': {'kind': 'mpegts', 'time_base': Fraction(1, 90000)},
  'AVI': {
    'codec': 'mpeg4',
    'kind': 'avi',
    'time_base': Fraction(1, 25),
  },
}


def _read(video, segment=None):
  """All frames, and what is known of them."""
  infos: list[decode.VideoInfo] = []

  def plan(info):
    infos.append(info)
    frames = np.arange(info.num_frames)
    return [decode.Clip(frames, (info.height, info.width))]

  (pixels,) = decode.read_clips(video, plan, 'a.mp4', segment)
  return pixels, infos[-1]


@pytest.mark.parametrize('make', _MAKES)
@pytest.mark.parametrize('keep', [True, False])
def test_frames_of_a_segment_are_those_of_its_time(make, keep, monkeypatch):
  options: dict[str, Any] = {'time_base': Fraction(1, 600), **_MAKES[make]}
  ticks = [round(i / 25 / options['time_base']) for i in range(100)]
  video = clips.encode(n=100, pts=ticks, **options)
  if not keep:
    monkeypatch.setattr(packets, 'KEEP_BYTES', 0)
  whole, _ = _read(video)
  # Frames are 1/25 s apart; a segment ends before its end.
  for start, stop in ((0, 1), (0.3, 0.5), (1.99, 2.61), (3.5, 9), (0, 4)):
    first, last = (int(np.ceil(25 * t - 1e-9)) for t in (start, stop))
    part, info = _read(video, (start, stop))
    np.testing.assert_array_equal(part, whole[first:last])
    assert info.num_frames == len(part)
    assert info.timestamps[0] == 0
    assert info.duration == pytest.approx(len(part) / 25, abs=0.02)
    assert decode.probe(video, segment=(start, stop)).num_frames == len(part)


def test_only_what_a_segment_needs_is_read():
  video = clips.encode(n=400, size=(32, 32), g='10')
  with container.VideoFile(video, '', (12.0, 12.4)) as file:
    listed = packets.read(file)
  assert listed.order is not None
  assert len(listed.order) == 10
  # A second before it, for safety, and up to a group more.
  assert len(listed.pts) < 60


def test_a_segment_behind_the_end_is_refused():
  video = clips.encode(n=20)
  for call in (
    lambda: _read(video, (5, 6)),
    lambda: decode.probe(video, 'a.mp4', segment=(5, 6)),
  ):
    with pytest.raises(decode.VideoError, match='not one in the segment') as e:
      call()
    assert e.value.kind == 'no_frames'


def test_a_header_that_hides_a_rotation_is_found_out(
  shared_videos, monkeypatch
):
  path = shared_videos / 'awkward' / 'decord_video_90.mov'
  upright, info = _read(path)
  assert info.rotation == 90
  monkeypatch.setattr(container.VideoFile, 'is_upright', lambda self: True)
  again, info = _read(path)
  assert info.rotation == 90
  np.testing.assert_array_equal(again, upright)


@pytest.mark.parametrize('kind', ['mp4', 'mov', 'matroska'])
def test_upright_videos_are_known_by_their_header(kind, tmp_path):
  options: dict[str, Any] = {'n': 3, 'kind': kind}
  if kind == 'matroska':
    options['time_base'] = clips.MILLISECOND
  turned = clips.encode(**options, rotation=90)
  path = tmp_path / 'video'
  path.write_bytes(clips.encode(**options))
  for source in (path, path.read_bytes()):
    with container.VideoFile(source, '') as file:
      assert file.is_upright()
  with container.VideoFile(turned, '') as file:
    assert not file.is_upright()


def test_headers_that_are_not_whole_are_not_relied_on():
  for kind, module in (('mp4', mp4), ('matroska', matroska)):
    options: dict[str, Any] = {}
    if module is matroska:
      options['time_base'] = clips.MILLISECOND
    video = clips.encode(3, kind=kind, **options)
    if module is mp4:
      header = mp4.read_header(lambda at, size, v=video: v[at : at + size])
    else:
      header = video
    assert module.is_upright(header)
    assert not module.is_upright(b'')
    assert not module.is_upright(header[:40])


def test_times_that_cannot_be_true_are_not_relied_on():
  options: dict[str, Any] = {'x264-params': 'keyint=40:bframes=3'}
  video = bytearray(clips.encode(n=40, **options))
  # The table of how much later than decoded frames are shown: all at once.
  at = video.index(b'ctts') + 8
  count = int.from_bytes(video[at : at + 4], 'big')
  for entry in range(count):
    field = at + 4 + 8 * entry + 4
    video[field : field + 4] = bytes(4)
  assert exact_frames.count_wrong(bytes(video), 32) == (0, 38)


def test_reading_takes_only_so_long(monkeypatch):
  video = clips.encode(n=40)
  monkeypatch.setattr(decode, 'CLIP_SECONDS', 0.0)
  with pytest.raises(decode.VideoError, match='more than 0 s') as caught:
    _read(video)
  assert caught.value.kind == 'timeout'
  assert decode.probe(video).num_frames == 40
