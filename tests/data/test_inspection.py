import dataclasses
import io
import os
import shutil
import signal
import struct
import time
from fractions import Fraction
from typing import cast

import av
import numpy as np
import pytest

from tests.data import clips, tiny_videos
from vivit_mae.data import decode, inspection, lists
from vivit_mae.data import facts as facts_lib
from vivit_mae.data.facts import Facts, Header, Job
from vivit_mae.data.isolation import Failure
from vivit_mae.data.listing import Example


def _rotated(video: bytes, degrees: int) -> bytes:
  """An mp4 whose track is tagged to be turned clockwise."""
  turns = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1)}[degrees]
  unit = 2**16
  upright = struct.pack('>5i', unit, 0, 0, 0, unit)
  at = video.rindex(upright)  # of the track, after that of the film
  a, b, c, d = (unit * k for k in turns)
  turned = struct.pack('>5i', a, b, 0, c, d)
  return video[:at] + turned + video[at + len(upright) :]


def _two_streams() -> bytes:
  """An mp4 of two video streams."""
  buffer = io.BytesIO()
  with av.open(buffer, 'w', format='mp4') as opened:
    streams = []
    for size in (64, 80):
      stream = cast(av.VideoStream, opened.add_stream('libx264', rate=25))
      stream.width = stream.height = size
      stream.pix_fmt = 'yuv420p'
      streams.append(stream)
    for _ in range(5):
      for stream in streams:
        frame = av.VideoFrame(stream.width, stream.height, 'yuv420p')
        opened.mux(stream.encode(frame))
    for stream in streams:
      opened.mux(stream.encode(None))
  return buffer.getvalue()


@pytest.fixture(scope='module')
def odd(tmp_path_factory):
  """A folder with one of each oddity, and two ordinary videos."""
  root = tmp_path_factory.mktemp('odd')
  plain = clips.encode(n=70)
  files = {
    'plain.mp4': plain,
    'plain.mkv': clips.encode(
      n=70, kind='matroska', time_base=Fraction(1, 1000), pts=range(0, 2800, 40)
    ),
    'short.mp4': clips.encode(n=63),
    'one.mp4': clips.encode(n=1),
    'rotated.mp4': _rotated(plain, 90),
    'variable.mp4': clips.encode(
      n=70, pts=[24 * i + 9 * (i % 2) for i in range(70)]
    ),
    'fast.mp4': clips.encode(n=70, pts=range(0, 140, 2)),
    'slow.mp4': clips.encode(n=70, pts=range(0, 70 * 600, 600)),
    'small.mp4': clips.encode(n=70, size=(48, 80)),
    'narrow.mp4': clips.encode(n=70, size=(64, 320)),
    'streams.mp4': _two_streams(),
    'long.mp4': clips.encode(n=70, pts=range(0, 70 * 36000, 36000)),
    'cut.mp4': plain[: len(plain) // 2],
    'empty.mp4': b'',
  }
  for name, content in files.items():
    (root / name).write_bytes(content)
  tiny_videos.broken(root / 'text.mp4')
  shutil.copy(root / 'plain.mp4', root / 'twin.mp4')
  return root


def _inspect(splits, span=64, **arguments):
  rows = inspection.gather(splits, **arguments)
  return rows, inspection.find(rows, span)


def _found(findings, group):
  return {(f.id, f.kind): f.reason for f in findings if f.group == group}


def test_each_oddity_is_named_and_nothing_else(odd):
  rows, findings = _inspect(lists.read_folder(odd).splits, num_workers=2)
  assert [row.id for row in rows] == sorted(path.name for path in odd.iterdir())
  broken = _found(findings, 'broken')
  assert broken.keys() == {
    ('cut.mp4', 'unreadable'),
    ('empty.mp4', 'empty'),
    ('text.mp4', 'unreadable'),
  }
  assert _found(findings, 'suspicious') == {
    ('variable.mp4', 'variable_frame_rate'): (
      'frames follow each other by 25 to 55 ms'
    ),
    ('fast.mp4', 'frame_rate'): 'it has 300 frames a second',
    ('slow.mp4', 'frame_rate'): 'it has 1 frames a second',
    ('long.mp4', 'frame_rate'): 'it has 0.01667 frames a second',
    ('long.mp4', 'long'): '1.2 hours',
    ('small.mp4', 'small'): '80x48 pixels',
    ('narrow.mp4', 'aspect'): '320x64 pixels',
    ('streams.mp4', 'streams'): '2 video streams; 64x64 is read',
  }
  assert _found(findings, 'short') == {
    ('one.mp4', 'short'): '1 frame',
    ('short.mp4', 'short'): '63 frames',
    ('streams.mp4', 'short'): '5 frames',
  }
  assert _found(findings, 'rotated') == {
    ('rotated.mp4', 'rotated'): 'by 90 degrees clockwise, to 64x80'
  }
  assert _found(findings, 'duplicate') == {
    ('twin.mp4', 'same_content'): 'as plain.mp4'
  }
  order = [(f.group, f.kind) for f in findings]
  known = [(g, k) for g, kinds in inspection.KINDS.items() for k in kinds]
  assert order == sorted(order, key=known.index)


def test_facts(odd):
  path = odd / 'plain.mkv'
  (facts,) = facts_lib.read(Job(str(path), 'plain.mkv'))
  assert isinstance(facts, Facts)
  assert facts.fps == pytest.approx(25)
  assert facts.duration == pytest.approx(2.8)
  assert facts == Facts(
    container='mkv/webm',
    codec='h264',
    pixel_format='yuv420p',
    width=80,
    height=64,
    rotation=0,
    fps=facts.fps,
    num_frames=70,
    duration=facts.duration,
    variable_frame_rate=False,
    num_bytes=path.stat().st_size,
  )
  content = path.read_bytes()
  (again,) = facts_lib.read(Job(content, 'plain.mkv'))
  assert isinstance(again, Facts)
  assert len(again.digest) == 64
  assert dataclasses.replace(again, digest='') == facts


_INFO = decode.VideoInfo(
  num_frames=100,
  duration=4.0,
  fps=25.0,
  width=320,
  height=240,
  rotation=0,
  codec='h264',
  pixel_format='yuv420p',
  variable_frame_rate=False,
  timestamps=np.arange(100) / 25,
)
_HEADER = Header('mp4/mov', 1, 100, 4.0, 25.0)


@pytest.mark.parametrize(
  ('info', 'header', 'kinds'),
  [
    ({}, {}, []),
    ({}, {'num_frames': 0, 'duration': None, 'fps': 0.0}, []),
    ({}, {'duration': 0.0}, ['duration']),
    ({}, {'num_frames': 99}, ['frame_count']),
    ({}, {'duration': 7.9}, []),
    ({}, {'duration': 8.1}, ['gaps']),
    ({'duration': 3600.0}, {'duration': 4.0}, []),
    ({'duration': 3601.0}, {'duration': 4.0}, ['long']),
    ({'fps': 240.0}, {}, []),
    ({'fps': 241.0}, {}, ['frame_rate']),
    ({}, {'fps': 4.9}, ['frame_rate']),
    ({'width': 64, 'height': 256}, {}, []),
    ({'width': 63, 'height': 256}, {}, ['small', 'aspect']),
    ({'rotation': 270}, {}, ['rotated']),
  ],
)
def test_what_counts_as_odd(info, header, kinds):
  info = dataclasses.replace(_INFO, **info)
  header = dataclasses.replace(_HEADER, **header)
  found = [kind for kind, _ in facts_lib.find_oddities(info, header)]
  assert found == kinds
  known = inspection.KINDS['suspicious'] | inspection.KINDS['rotated']
  assert set(kinds) <= set(known)


def test_segments_of_one_file_are_measured_each(odd):
  file = str(odd / 'variable.mp4')
  segments = [(0, 1), (1.0, 2.0), (2.5, 99.0), (50, 60)]
  examples = [
    Example(file, -1, f's{i}', segment)
    for i, segment in enumerate([*segments, None])
  ]
  jobs = list(inspection._files({'train': examples}))
  assert [len(group) for group in jobs] == [5]
  rows, findings = _inspect({'train': examples}, span=26)
  times = np.array([24 * i + 9 * (i % 2) for i in range(70)]) / 600
  for row, (start, end) in zip(rows, segments[:3], strict=False):
    facts = row.result
    assert isinstance(facts, Facts)
    assert facts.num_frames == np.sum((times >= start) & (times < end))
    assert facts.duration == pytest.approx(min(end, 2.83) - start, abs=0.1)
  assert rows[3].result == Failure(
    'no_frames', 'none from 50 to 60 s; it lasts 2.83 s'
  )
  assert isinstance(rows[4].result, Facts)
  assert rows[4].result.num_frames == 70
  # What is odd about the file is said once.
  assert len(_found(findings, 'suspicious')) == 1
  assert _found(findings, 'duplicate') == {}
  assert set(_found(findings, 'short')) == {
    ('s0', 'short'),
    ('s1', 'short'),
    ('s2', 'short'),
  }


def test_duplicates_say_where_and_what(odd):
  plain, twin = str(odd / 'plain.mp4'), str(odd / 'twin.mp4')
  content = (odd / 'plain.mp4').read_bytes()
  splits = {
    'train': [
      Example(plain, 0, 'a'),
      Example(plain, 0, 'a again'),
      Example(twin, 0, 'b'),
      Example(twin, 1, 'c'),
      Example(plain, 0, 'part', (0, 1)),
    ],
    'test': [Example(twin, 1, 'd')],
  }
  _, findings = _inspect(splits)
  assert _found(findings, 'duplicate') == {
    ('d', 'other_split'): 'as a in train, labelled otherwise',
    ('c', 'other_label'): 'as a, labelled otherwise',
    ('b', 'same_content'): 'as a',
    ('a again', 'listed_twice'): 'as a',
  }
  # A prepared dataset has no files.
  rows, findings = _inspect(
    {'train': [Example(content, 0, 'a'), Example(content, 0, 'b')]}
  )
  assert _found(findings, 'duplicate') == {('b', 'same_content'): 'as a'}
  assert [row.place for row in rows] == ['', '']


def test_damage_inside_is_found_by_decoding(tmp_path):
  content = bytearray(clips.encode(n=70))
  start = content.index(b'mdat') + 2000
  content[start : start + 2000] = os.urandom(2000)
  path = tmp_path / 'a.mp4'
  path.write_bytes(content)
  splits = {'train': [Example(str(path), -1, 'a.mp4')]}
  assert _inspect(splits)[1] == []
  _, (finding,) = _inspect(splits, full=True)
  assert (finding.group, finding.kind) == ('broken', 'corrupt')
  assert 'faults in 70 frames' in finding.reason


def _unsafe(job):
  """Reads, if its process lives to do it."""
  if 'plain' in job.name:
    os.kill(os.getpid(), signal.SIGKILL)
  if 'short' in job.name:
    time.sleep(60)
  return tuple(Failure('empty', '') for _ in job.segments)


def test_a_crash_and_a_hang_are_broken_videos(odd):
  names = ('one.mp4', 'plain.mp4', 'short.mp4', 'slow.mp4')
  examples = [Example(str(odd / name), -1, name) for name in names]
  _, findings = _inspect({'train': examples}, probe=_unsafe, timeout=0.2)
  assert _found(findings, 'broken') == {
    ('plain.mp4', 'crashed'): 'its process was ended by SIGKILL',
    ('short.mp4', 'timeout'): 'not done within 0.2 s',
    ('one.mp4', 'empty'): '',
    ('slow.mp4', 'empty'): '',
  }


def test_awkward_videos(shared_videos):
  splits = lists.read_folder(shared_videos / 'awkward').splits
  _, findings = _inspect(splits, num_workers=2)
  assert set(_found(findings, 'broken')) == {
    ('derived/audio_only.mp4', 'no_video'),
    ('derived/truncated_60pct_faststart.mp4', 'truncated'),
    ('derived/zero_bytes.mp4', 'empty'),
    ('mdx_10byte_broken.gif', 'truncated'),
  }
  assert set(_found(findings, 'suspicious')) == {
    ('imageio_newtonscradle.gif', 'variable_frame_rate'),
    ('sense_test_video.mp4', 'small'),
    ('torchcodec_nasa_13013.mp4', 'streams'),
  }
  assert {name for name, _ in _found(findings, 'rotated')} == {
    'decord_video_90.mov',
    'decord_video_180.mov',
  }
  assert _found(findings, 'duplicate') == {}
