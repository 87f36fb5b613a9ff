"""What cannot be read is refused by its right name, and at no cost."""

import io
import pathlib
from fractions import Fraction
from typing import Any

import av
import av.stream
import numpy as np
import pytest

from tests.data import clips
from vivit_mae.data import container, decode

_BROKEN = (
  'mdx_10byte_broken.gif',
  'derived/audio_only.mp4',
  'derived/truncated_60pct_faststart.mp4',
  'derived/zero_bytes.mp4',
)


@pytest.mark.parametrize('part', [0.5, 0.7, 0.9])
@pytest.mark.parametrize(
  'options',
  [
    {'kind': 'matroska', 'time_base': Fraction(1, 1000)},
    {'kind': 'avi', 'codec': 'mpeg4', 'time_base': Fraction(1, 25)},
  ],
  ids=str,
)
def test_cut_files_are_truncated(options: dict[str, Any], part):
  pts = range(60) if options['kind'] == 'avi' else None
  video = clips.encode(size=(128, 160), pts=pts, **options)
  decode.probe(video, decode=True)
  with pytest.raises(decode.VideoError) as caught:
    decode.probe(video[: int(part * len(video))])
  assert caught.value.kind == 'truncated'


def test_missing_index_is_unreadable():
  video = clips.encode()
  with pytest.raises(decode.VideoError) as caught:
    decode.probe(video[: len(video) // 2], 'clips/a b.mp4')
  assert caught.value.kind == 'unreadable'
  assert str(caught.value).startswith('clips/a b.mp4: unreadable')


def _damaged():
  video = bytearray(clips.encode(size=(128, 128), crf='5'))
  start = video.index(b'mdat')
  for at in range(start + 3000, start + 9000, 500):
    video[at] ^= 0x5A
  return bytes(video)


def test_damaged_frames_are_found_by_the_strict_check():
  video = _damaged()
  # Decoders conceal such faults, so that training reads on.
  plan = [decode.Clip(np.array([0, 59]), (128, 128))]
  assert len(decode.read_clips(video, lambda info: plan)[0]) == 2
  with pytest.raises(decode.VideoError) as caught:
    decode.probe(video, decode=True)
  assert caught.value.kind == 'corrupt'


def test_text_and_missing_files_are_refused(tmp_path):
  with pytest.raises(decode.VideoError, match=r'missing \(there is no'):
    decode.probe(tmp_path / 'none.mp4')
  (tmp_path / 'a.txt').write_text('a list of films\n' * 100)
  with pytest.raises(decode.VideoError, match='unreadable'):
    decode.probe(tmp_path / 'a.txt')
  (tmp_path / 'b.mp4').write_text(
    '#EXTM3U\n#EXTINF:9,\nhttp://localhost/x.ts\n'
  )
  with pytest.raises(decode.VideoError, match='unreadable'):
    decode.probe(tmp_path / 'b.mp4')


def test_names_that_look_like_protocols_are_read(tmp_path):
  path = tmp_path / 'concat:50%03d é.mp4'
  path.write_bytes(clips.encode(n=5))
  assert decode.probe(path).num_frames == 5
  assert decode.probe(str(path)).num_frames == 5


def test_giant_frames_are_refused_before_memory_is_taken():
  picture = (
    b'GIF89a' + (30000).to_bytes(2, 'little') * 2 + b'\x80\0\0'
    b'\0\0\0\xff\xff\xff\x2c\0\0\0\0'
    + (30000).to_bytes(2, 'little') * 2
    + b'\0\x02\x02\x4c\x01\0;'
  )
  with pytest.raises(decode.VideoError) as caught:
    decode.probe(picture, 'giant')
  assert caught.value.kind == 'too_large'
  assert '30000x30000' in str(caught.value)


def test_giant_frames_inside_a_modest_header_are_refused(monkeypatch):
  video = clips.encode()
  monkeypatch.setattr(container, 'MAX_PIXELS', 64 * 80 - 1)
  with pytest.raises(decode.VideoError, match='too_large'):
    decode.probe(video)


def test_cover_art_is_no_video(tmp_path):
  buffer = io.BytesIO()
  with av.open(buffer, 'w', format='mp4') as opened:
    sound = opened.add_stream('aac', rate=8000)
    cover = opened.add_stream('mjpeg', rate=1)
    cover.height, cover.width, cover.pix_fmt = 16, 16, 'yuvj420p'
    cover.disposition = av.stream.Disposition.attached_pic
    frame = av.AudioFrame.from_ndarray(
      np.zeros((1, 1024), np.float32), format='fltp', layout='mono'
    )
    frame.sample_rate = 8000
    picture = av.VideoFrame.from_ndarray(
      np.zeros((16, 16, 3), np.uint8), format='rgb24'
    )
    opened.mux(cover.encode(picture))
    opened.mux(cover.encode(None))
    opened.mux(sound.encode(frame))
    opened.mux(sound.encode(None))
  with pytest.raises(decode.VideoError) as caught:
    decode.probe(buffer.getvalue())
  assert caught.value.kind == 'no_video'


def test_nothing_is_printed(shared_videos, capfd):
  root = pathlib.Path(shared_videos) / 'awkward'
  for name in _BROKEN:
    with pytest.raises(decode.VideoError):
      decode.probe(root / name)
  with pytest.raises(decode.VideoError):
    decode.probe(_damaged(), decode=True)
  assert capfd.readouterr() == ('', '')
