"""Frame indices follow the published rules, at any length."""

from typing import Any

import numpy as np
import pytest

from vivit_mae.data import sampling

_LENGTHS = (1, 2, 5, 16, 63, 64, 65, 300)


def _reference_walk(num_frames, length, stride, start):
  """VideoMAE's walk, spelt as it is described: counted from 1."""
  frames, at = [], start + 1
  for _ in range(length):
    frames.append(at - 1)
    if at + stride < num_frames:
      at += stride
  return frames


@pytest.mark.parametrize('stride', [1, 2, 4])
@pytest.mark.parametrize('num_frames', _LENGTHS)
def test_videomae_clips_follow_the_rule(num_frames, stride):
  room = num_frames - 16 * stride + 1
  starts = range(room) if room > 0 else [0]
  for start in starts:
    position = (start + 0.5) / room if room > 0 else 0.7
    frames = sampling.videomae_frames(num_frames, 16, stride, position)
    expected = _reference_walk(num_frames, 16, stride, start)
    assert frames.tolist() == expected
    assert frames.dtype == np.int64


@pytest.mark.parametrize(
  ('num_frames', 'expected'),
  [
    (1, [0] * 16),
    (5, [0] * 16),
    (16, [0, 4, 8] + [12] * 13),
    (63, [*range(0, 60, 4), 60]),
    (64, [*range(0, 64, 4)]),
  ],
)
def test_videomae_short_clips_repeat_the_last_frame_reached(
  num_frames, expected
):
  frames = sampling.videomae_frames(num_frames, 16, 4, 0)
  assert frames.tolist() == expected


def test_videomae_starts_are_uniform():
  rng = np.random.default_rng(0)
  clips = sampling.sample_clips(66, 16, stride=4, count=6000, rng=rng)
  starts, counts = np.unique([c[0] for c in clips], return_counts=True)
  assert starts.tolist() == [0, 1, 2]
  assert np.all(np.abs(counts - 2000) < 150)


@pytest.mark.parametrize('fps', [15.0, 30.0, 60.0])
@pytest.mark.parametrize('num_frames', _LENGTHS)
def test_mae_st_clips_span_time(num_frames, fps):
  for position in (0.0, 0.3, 0.999):
    frames = sampling.mae_st_frames(num_frames, 16, 4, position, fps)
    assert frames.min() >= 0
    assert frames.max() < num_frames
    assert np.all(np.diff(frames) >= 0)
    span = 64 * fps / 30
    if num_frames > span:
      assert abs((frames[-1] - frames[0]) - (span - 1)) <= 1


def test_mae_st_spacing_at_30_fps():
  frames = sampling.mae_st_frames(300, 16, 4, 0, 30)
  assert frames.tolist() == [int(4.2 * k + 1e-9) for k in range(16)]


def test_seconds_follow_the_timestamps_of_variable_rates():
  # 10 frames per second at first, then 40.
  times = np.concatenate([np.arange(10) / 10, 1 + np.arange(40) / 40])
  frames = sampling.timed_frames(times, 2.0, 8, 0.25, 0.0)
  assert frames.tolist() == [0, 2, 5, 7, 10, 20, 30, 40]


def test_seconds_are_strides_where_the_rate_is_even():
  times = np.arange(300) / 25
  timed = sampling.timed_frames(times, 12.0, 16, 0.16, 0.0)
  assert timed.tolist() == list(range(0, 64, 4))


@pytest.mark.parametrize('num_frames', _LENGTHS)
@pytest.mark.parametrize('rng', [None, 0])
def test_clips_of_any_length_stay_inside(num_frames, rng):
  times = np.arange(num_frames) / 30
  wishes: tuple[dict[str, Any], ...] = (
    {'stride': 4},
    *(
      {'stride': 4, 'sampling': name, 'fps': 30.0}
      for name in sampling.SAMPLINGS
    ),
    {
      'stride_seconds': 0.1,
      'timestamps': times,
      'duration': num_frames / 30,
    },
  )
  for asked in wishes:
    clips = sampling.sample_clips(
      num_frames,
      16,
      count=3,
      rng=None if rng is None else np.random.default_rng(rng),
      **asked,
    )
    assert len(clips) == 3
    for frames in clips:
      assert frames.shape == (16,)
      assert frames.min() >= 0
      assert frames.max() < num_frames
      # ViViT's clips of short videos start over again.
      assert asked.get('sampling') == 'vivit' or np.all(np.diff(frames) >= 0)


def test_the_middle_clip_is_in_the_middle():
  (frames,) = sampling.sample_clips(300, 16, stride=4)
  assert frames[0] == (300 - 64 + 1) // 2
  first, second = sampling.sample_clips(300, 16, stride=4, count=2)
  assert first[0] < frames[0] < second[0]


@pytest.mark.parametrize(
  ('asked', 'message'),
  [
    ({}, 'exactly one of stride'),
    ({'stride': 4, 'stride_seconds': 0.1}, 'exactly one of stride'),
    ({'stride': 0}, 'stride=0'),
    ({'stride_seconds': 0.0}, r'stride_seconds=0\.0'),
    ({'stride_seconds': 0.1}, 'timestamps'),
    ({'stride': 4, 'count': 0}, 'count=0'),
    ({'stride': 4, 'sampling': 'strid'}, "'strid' is unknown.*mae_st"),
    (
      {'stride_seconds': 0.1, 'sampling': 'dense'},
      "goes with sampling 'stride', not 'dense'",
    ),
  ],
)
def test_impossible_wishes_are_named(asked, message):
  with pytest.raises(ValueError, match=message):
    sampling.sample_clips(30, 16, **asked)


@pytest.mark.parametrize('num_frames', [65, 80, 300])
def test_dense_clips_end_with_their_window(num_frames):
  """The published formula: linspace, then cut to the window."""
  for start in {0, 7, num_frames - 65} & set(range(num_frames - 64)):
    position = (start + 0.5) / (num_frames - 64)
    frames = sampling.spread_frames(num_frames, 16, 4, position)
    points = np.linspace(start, start + 64, 16)
    expected = np.clip(points, start, start + 63).astype(np.int64)
    np.testing.assert_array_equal(frames, expected)
    assert (frames[0], frames[-1]) == (start, start + 63)


@pytest.mark.parametrize(
  ('num_frames', 'expected'),
  [
    (3, [2] * 16),
    (8, [0] + [7] * 15),
    (17, [0, 5, 11] + [16] * 13),
    (64, np.linspace(0, 64, 16).clip(0, 63).astype(int).tolist()),
  ],
)
def test_dense_clips_of_short_videos(num_frames, expected):
  for position in (0.0, 0.9):
    frames = sampling.spread_frames(num_frames, 16, 4, position)
    assert frames.tolist() == expected


def test_dense_clips_start_anywhere():
  rng = np.random.default_rng(0)
  clips = sampling.sample_clips(
    67, 16, stride=4, sampling='dense', count=3000, rng=rng
  )
  starts, counts = np.unique([c[0] for c in clips], return_counts=True)
  assert starts.tolist() == [0, 1, 2]
  assert np.all(np.abs(counts - 1000) < 100)


@pytest.mark.parametrize('name', ['stride', 'dense'])
@pytest.mark.parametrize('num_frames', [5, 64, 65, 120, 300])
def test_dense_views_are_those_of_the_published_test(name, num_frames):
  """Every fourth frame is read, then windows of 16 of these are taken."""
  read = list(range(0, num_frames, 4))
  while len(read) < 16:
    read.append(read[-1])
  step = max((len(read) - 16) / 4, 0)
  expected = [read[int(k * step) : int(k * step) + 16] for k in range(5)]
  views = sampling.sample_clips(
    num_frames, 16, stride=4, sampling=name, count=5
  )
  assert [view.tolist() for view in views] == expected


@pytest.mark.parametrize('num_frames', [16, 40, 117])
def test_segments_give_one_frame_each(num_frames):
  rng = np.random.default_rng(0)
  clips = sampling.sample_clips(
    num_frames, 8, stride=1, sampling='segments', count=500, rng=rng
  )
  ends = np.arange(9) * num_frames / 8
  drawn = np.stack(clips)
  for k in range(8):
    inside = range(int(ends[k]), int(np.ceil(ends[k + 1])))
    assert set(drawn[:, k]) == set(inside)
  # Each frame of a clip has a draw of its own.
  places = drawn - ends[:-1]
  assert np.abs(np.corrcoef(places.T)[0, 1:]).max() < 0.15


@pytest.mark.parametrize('num_frames', [9, 16, 40, 117])
def test_segment_views_are_those_of_the_published_test(num_frames):
  tick = num_frames / 16
  ticks = [int(tick * x) for x in range(16)]
  halves = [int(tick / 2 + tick * x) for x in range(16)]
  both = sorted(ticks + halves)
  views = sampling.sample_clips(
    num_frames, 16, stride=1, sampling='segments', count=2
  )
  assert [view.tolist() for view in views] == [both[::2], both[1::2]]
  (middle,) = sampling.sample_clips(
    num_frames, 16, stride=1, sampling='segments'
  )
  assert middle.tolist() == halves
  views = sampling.sample_clips(160, 16, stride=1, sampling='segments', count=5)
  assert np.stack(views).T.ravel().tolist() == list(range(0, 160, 2))


def test_mae_st_views_are_whole_frames_apart():
  views = sampling.sample_clips(
    300, 16, stride=4, sampling='mae_st', count=10, fps=30.0
  )
  assert [view[0] for view in views] == [26 * k for k in range(10)]


def test_vivit_clips_start_over_again():
  assert sampling.looped_frames(5, 4, 2, 0).tolist() == [0, 2, 4, 1]
  rng = np.random.default_rng(0)
  clips = sampling.sample_clips(
    67, 32, stride=2, sampling='vivit', count=2000, rng=rng
  )
  starts = np.unique([clip[0] for clip in clips])
  assert starts.tolist() == [0, 1, 2, 3, 4]
  assert all(np.all(np.diff(clip) == 2) for clip in clips)
  views = sampling.sample_clips(300, 32, stride=2, sampling='vivit', count=4)
  assert [view[0] for view in views] == [0, 78, 157, 236]
  (middle,) = sampling.sample_clips(300, 32, stride=2, sampling='vivit')
  assert middle[0] == 118
