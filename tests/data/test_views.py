"""Every view of every video comes once, whoever loads it."""

import itertools
from typing import Any

import numpy as np
import pytest

from tests.data import tiny_videos
from vivit_mae.data import (
  datasets,
  decode,
  encode,
  pipeline,
  sampling,
  transforms,
)

_FRAMES, _SIZE = 3, (16, 16)
_VIDEOS, _SEGMENTS, _CROPS = 7, 5, 3


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
  """Seven videos of several lengths and shapes, in two classes."""
  root = tmp_path_factory.mktemp('views')
  for number in range(_VIDEOS):
    frames = tiny_videos.frames(number, 7 + 4 * number)
    if number % 3 == 0:
      frames = frames.transpose(0, 2, 1, 3)  # upright
    path = root / ('walk' if number % 2 else 'run') / f'{number}.mp4'
    path.parent.mkdir(exist_ok=True)
    encode.write_video(path, np.ascontiguousarray(frames), fps=10.0)
  return root


@pytest.fixture(scope='module')
def source(videos):
  return datasets.open_source('folder', str(videos))


def _batches(source, batch_size=4, processes=(0, 1), views=None, **data: Any):
  segments, crops = views or (_SEGMENTS, _CROPS)
  return list(
    pipeline.multiview_iterator(
      source,
      {'stride': 2} | data,
      num_frames=_FRAMES,
      image_size=_SIZE,
      batch_size=batch_size,
      num_segments=segments,
      num_crops=crops,
      process_index=processes[0],
      process_count=processes[1],
    )
  )


def _views(batches):
  """(video, view) -> clip, of all rows that count."""
  found = {}
  for batch in batches:
    for row in np.flatnonzero(batch['valid']):
      key = int(batch['index'][row]), int(batch['view'][row])
      assert key not in found
      found[key] = batch['video'][row]
  return found


def _plain_loop(source, name, segments=_SEGMENTS, crops=_CROPS):
  """The same by decoding one view at a time."""
  found = {}
  for index in range(len(source)):
    info = decode.probe(source[index].video)
    times = sampling.sample_clips(
      info.num_frames,
      _FRAMES,
      stride=2,
      sampling=name,
      count=segments,
      fps=info.fps,
    )
    for segment, crop in itertools.product(range(segments), range(crops)):
      box = transforms.spread_crop(info.height, info.width, _SIZE, crop, crops)
      whole = decode.read_clips(
        source[index].video,
        lambda info: [
          decode.Clip(np.arange(info.num_frames), (info.height, info.width))
        ],
      )[0]
      found[index, segment * crops + crop] = np.stack(
        [
          transforms.crop_and_resize(frame, box, _SIZE)
          for frame in whole[times[segment]]
        ]
      )
  return found


def _assert_same(found, expected):
  assert found.keys() == expected.keys()
  for key in found:
    np.testing.assert_array_equal(found[key], expected[key])


@pytest.mark.parametrize('name', sampling.SAMPLINGS)
def test_views_are_those_of_a_plain_loop(source, name):
  found = _views(_batches(source, sampling=name))
  assert len(found) == _VIDEOS * _SEGMENTS * _CROPS
  _assert_same(found, _plain_loop(source, name))


@pytest.mark.parametrize(('count', 'batch_size'), [(2, 4), (8, 8), (2, 38)])
@pytest.mark.parametrize('name', ['dense', 'segments'])
def test_processes_share_the_views(source, name, count, batch_size):
  whole = _batches(source, sampling=name)
  parts = [
    _batches(source, batch_size, (p, count), sampling=name)
    for p in range(count)
  ]
  assert len({len(part) for part in parts}) == 1
  rows = {len(batch['valid']) for part in parts for batch in part}
  assert rows == {batch_size // count}
  _assert_same(_views(itertools.chain(*parts)), _views(whole))


def test_batches(source):
  batches = _batches(source)
  assert len(batches) == 27  # 105 views
  for batch in batches:
    assert set(batch) == {'video', 'index', 'view', 'label', 'valid'}
    assert batch['video'].shape == (4, _FRAMES, *_SIZE, 3)
    assert batch['view'].dtype == batch['index'].dtype == np.int32
  index, view, valid, label = (
    np.concatenate([batch[key] for batch in batches])
    for key in ('index', 'view', 'valid', 'label')
  )
  assert index.tolist() == [*np.arange(7).repeat(15), -1, -1, -1]
  assert view.tolist() == [*range(15)] * 7 + [-1] * 3
  assert valid.tolist() == [True] * 105 + [False] * 3
  assert label[:105].tolist() == [source[i].label for i in index[:105]]
  assert (batches[-1]['video'][1:] == 0).all()


def test_workers_change_nothing(source):
  _assert_same(
    _views(_batches(source, num_workers=2)), _views(_batches(source))
  )


def test_videos_are_decoded_once_in_a_batch(source, monkeypatch):
  read_clips, count = decode.read_clips, []
  monkeypatch.setattr(
    decode,
    'read_clips',
    lambda *asked, **more: count.append(0) or read_clips(*asked, **more),
  )
  _batches(source, 15)
  assert len(count) == _VIDEOS


@pytest.mark.parametrize('name', sampling.SAMPLINGS)
def test_one_view_is_the_centre(source, name):
  found = _views(_batches(source, views=(1, 1), sampling=name))
  _assert_same(found, _plain_loop(source, name, 1, 1))
  batches = pipeline.eval_iterator(
    source,
    {'stride': 2, 'sampling': name},
    num_frames=_FRAMES,
    image_size=_SIZE,
    batch_size=4,
  )
  for batch in batches:
    for index, video in zip(batch['index'], batch['video'], strict=True):
      if index >= 0:
        np.testing.assert_array_equal(video, found[int(index), 0])


def test_views_differ(source):
  found = _views(_batches(source, views=(2, 3)))
  for index in range(_VIDEOS):
    shown = {found[index, view].tobytes() for view in range(6)}
    assert len(shown) == 6 if index else 3 <= len(shown) <= 6


def test_short_side(source):
  near = _views(_batches(source, views=(1, 1)))
  zoomed = _views(_batches(source, views=(1, 1), short_side=24))
  assert all((near[key] != zoomed[key]).any() for key in near)
  with pytest.raises(ValueError, match='short_side=15 leaves no room for'):
    _batches(source, short_side=15)


def test_bad_videos_leave_all_their_views_out(videos, tmp_path):
  for path in videos.glob('*/*'):
    (tmp_path / path.name).write_bytes(path.read_bytes())
  tiny_videos.broken(tmp_path / '3b.mp4')
  source = datasets.open_source('folder', str(tmp_path))
  batches = _batches(source, views=(2, 2))
  valid = np.concatenate([batch['valid'] for batch in batches])
  assert np.flatnonzero(~valid).tolist() == [16, 17, 18, 19]
  assert len(_views(batches)) == 28
  with pytest.raises(pipeline.BadVideosError, match='1 of 8 videos tried'):
    _batches(source, max_bad_fraction=0.1)


@pytest.mark.parametrize(
  ('views', 'field'), [((0, 1), 'num_segments'), ((1, 0), 'num_crops')]
)
def test_impossible_numbers_of_views(source, views, field):
  with pytest.raises(ValueError, match=f'{field} is 0; it is at least 1'):
    _batches(source, views=views)
