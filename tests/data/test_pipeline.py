from typing import Any

import numpy as np
import pytest

from tests.data import tiny_videos
from vivit_mae.data import (
  datasets,
  decode,
  labels,
  lists,
  loading,
  pipeline,
  sampling,
  writer,
)
from vivit_mae.data.listing import Example

_SHAPE: dict[str, Any] = dict(num_frames=3, image_size=(16, 24))
_POLICY = 'rand-m7-n4-mstd0.5-inc1'
_DATA: dict[str, Any] = dict(stride=2, repeats=2, flip=True)


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
  """Ten videos in two classes."""
  root = tmp_path_factory.mktemp('videos')
  names = [f'{"run" if i % 3 else "walk"}/{i}.mp4' for i in range(10)]
  return tiny_videos.folder(root, names)


@pytest.fixture(scope='module')
def source(videos):
  return datasets.open_source('folder', str(videos))


class _Fake:
  """Videos without content; some can not be read."""

  def __init__(self, count, bad=()):
    self.name, self.multi_label = 'fake', False
    self.class_names: labels.ClassNames = ()
    self.count, self.bad = count, frozenset(bad)

  def __len__(self):
    return self.count

  def __getitem__(self, index):
    return Example(bytes([index in self.bad, index]), -1, f'id {index}')


@pytest.fixture
def without_decoding(monkeypatch):
  """Videos are black, but those of `_Fake.bad` fail."""

  def read_clips(video, plan, name):
    if video[0]:
      raise decode.VideoError('corrupt', name)
    info = decode.VideoInfo(
      num_frames=9,
      duration=9.0,
      fps=1.0,
      width=32,
      height=24,
      rotation=0,
      codec='',
      pixel_format='',
      variable_frame_rate=False,
      timestamps=np.arange(9.0),
    )
    return [np.zeros((len(c.frames), *c.size, 3), np.uint8) for c in plan(info)]

  monkeypatch.setattr(decode, 'read_clips', read_clips)


_started = []


@pytest.fixture(autouse=True)
def _stop_iterators():
  """Nothing reads ahead any more when the next test begins."""
  yield
  while _started:
    _started.pop().close()


def _train(source, batch_size=4, seed=7, processes=(0, 1), **data: Any):
  iterator = pipeline.train_iterator(
    source,
    _DATA | data,
    batch_size=batch_size,
    seed=seed,
    process_index=processes[0],
    process_count=processes[1],
    **_SHAPE,
  )
  _started.append(iterator)
  return iterator


def _take(iterator, count):
  return [next(iterator) for _ in range(count)]


def _assert_same(batches, others):
  assert len(batches) == len(others)
  for batch, other in zip(batches, others, strict=True):
    assert batch.keys() == other.keys()
    for key in batch:
      np.testing.assert_array_equal(batch[key], other[key])


def test_batch(source):
  batch = next(_train(source))
  assert set(batch) == {'video', 'index', 'label', 'valid'}
  assert batch['video'].shape == (8, 3, 16, 24, 3)
  assert batch['video'].dtype == np.uint8
  assert batch['index'].dtype == batch['label'].dtype == np.int32
  assert batch['valid'].all()
  np.testing.assert_array_equal(batch['index'][::2], batch['index'][1::2])
  labels = [source[i].label for i in batch['index']]
  assert batch['label'].tolist() == labels


def test_rows_are_the_videos_they_say(videos, source):
  """The clip's still background is that of the file at `index`."""
  batch = next(_train(source, crop='center', flip=False))
  for video, index in zip(batch['video'], batch['index'], strict=True):
    whole = decode.read_clips(
      str(videos / source[index].id),
      lambda info: [decode.Clip(np.arange(info.num_frames), (16, 24))],
    )[0]
    ours = video.astype(float).mean((1, 2, 3))
    theirs = whole.astype(float).mean((1, 2, 3))
    # Shades rise by 8 a frame and frames lie 2 apart.
    np.testing.assert_allclose(np.diff(ours), 16, atol=2)
    assert np.abs(theirs - ours[0]).min() < 12


def test_stream_does_not_depend_on_workers(source):
  iterators = [_train(source, num_workers=n) for n in (0, 1, 2)]
  streams = [_take(iterator, 5) for iterator in iterators]
  for iterator in iterators:
    iterator.close()
  _assert_same(streams[0], streams[1])
  _assert_same(streams[0], streams[2])
  # Nothing is left in the workers' memory.
  arrays = [array for batch in streams[2] for array in batch.values()]
  assert all(type(array) is np.ndarray for array in arrays)


def test_state_is_one_row_and_goes_on_with_other_workers(source):
  straight = _take(_train(source), 7)
  first = _train(source, num_workers=2)
  _assert_same(_take(first, 3), straight[:3])
  state = first.get_state()
  first.close()
  assert state == {'row': 12}
  for workers in (0, 1):
    second = _train(source, num_workers=workers)
    second.set_state(state)
    _assert_same(_take(second, 4), straight[3:])
    assert second.get_state() == {'row': 28}
    second.close()


def test_state_may_be_set_at_any_time(source):
  iterator = _train(source)
  straight = _take(iterator, 6)
  for start in (5, 0, 2):
    iterator.set_state({'row': 4 * start})
    _assert_same(_take(iterator, 6 - start), straight[start:])


def test_state_goes_on_with_another_batch_size(source):
  straight = _take(_train(source, batch_size=2), 4)
  iterator = _train(source, batch_size=6)
  iterator.set_state({'row': 2})
  batch = next(iterator)
  for key in batch:
    joined = np.concatenate([other[key] for other in straight[1:]])
    np.testing.assert_array_equal(batch[key], joined)


@pytest.mark.parametrize('state', [{}, {'row': -1}, {'next_index': 3}])
def test_wrong_state(source, state):
  with pytest.raises(ValueError, match='state of the data'):
    _train(source).set_state(state)


def test_seeds_give_other_streams(source):
  one, other = next(_train(source, seed=1)), next(_train(source, seed=2))
  assert (one['index'] != other['index']).any()


@pytest.mark.parametrize('processes', [1, 2, 4])
@pytest.mark.parametrize('count', [1, 13, 40])
def test_every_video_once_in_an_epoch(without_decoding, count, processes):
  source = _Fake(count)
  parts = [
    _train(source, 4, repeats=1, processes=(p, processes))
    for p in range(processes)
  ]
  batches = [
    np.concatenate([next(part)['index'] for part in parts]) for _ in range(30)
  ]
  stream = np.concatenate(batches)
  epochs = [
    stream[i : i + count] for i in range(0, len(stream) - count + 1, count)
  ]
  for epoch in epochs:
    assert sorted(epoch) == list(range(count))
  if count == 40:
    assert any((epochs[0] != epoch).any() for epoch in epochs[1:])
  whole = _take(_train(source, 4, repeats=1), 30)
  np.testing.assert_array_equal(
    stream, np.concatenate([batch['index'] for batch in whole])
  )


def test_batch_must_split_evenly(source):
  with pytest.raises(ValueError, match='batch_size is 4; it must be a mult'):
    _train(source, processes=(0, 3))


def test_folder_and_prepared_dataset_give_the_same_stream(
  videos, source, tmp_path
):
  listed = lists.read_folder(videos)
  assert isinstance(listed.class_names, tuple)
  writer.write_dataset(
    tmp_path / 'out',
    listed.splits,
    class_names=listed.class_names,
    shards=3,
    progress=False,
  )
  prepared = datasets.open_source('tfds', str(tmp_path / 'out'))
  iterator = _train(prepared, num_workers=1)
  _assert_same(_take(_train(source), 4), _take(iterator, 4))
  iterator.close()


def _plans(monkeypatch, **data: Any):
  """The clips that are cut out of forty videos, straight from the loader."""
  plans = []
  read_clips = decode.read_clips

  def spy(video, plan, name):
    def plan_and_note(info):
      plans.append(plan(info))
      return plans[-1]

    return read_clips(video, plan_and_note, name)

  monkeypatch.setattr(decode, 'read_clips', spy)
  options = loading.ClipOptions(**data)
  load = loading.Loader(_Fake(40), options, **_SHAPE, seed=0)
  load(np.arange(40)[:, None].repeat(2, 1))
  return plans


@pytest.mark.parametrize('repeat', ['crops', 'windows'])
def test_repeats(without_decoding, monkeypatch, repeat):
  plans = _plans(
    monkeypatch, stride=1, repeats=4, repeat=repeat, crop='random_resized'
  )
  assert [len(clips) for clips in plans] == [4] * 40
  same_frames = [len({tuple(c.frames) for c in clips}) == 1 for clips in plans]
  assert all(same_frames) if repeat == 'crops' else not any(same_frames[:5])
  assert all(len({c.box for c in clips}) > 1 for clips in plans)


@pytest.mark.parametrize('flip', [False, True])
def test_flip_switch(without_decoding, monkeypatch, flip):
  plans = _plans(monkeypatch, stride=2, repeats=2, flip=flip)
  flips = [clip.flip for clips in plans for clip in clips]
  assert len(flips) == 80
  assert 0.3 < np.mean(flips) < 0.7 if flip else not any(flips)


def test_rand_augment_changes_clips_and_nothing_else(source):
  plain = _take(_train(source), 5)
  changed = _take(_train(source, rand_augment=_POLICY), 5)
  _assert_same(changed, _take(_train(source, rand_augment=_POLICY), 5))
  same = 0
  for batch, other in zip(plain, changed, strict=True):
    for key in ('index', 'label', 'valid'):
      np.testing.assert_array_equal(batch[key], other[key])
    same += (batch['video'] == other['video']).all((1, 2, 3, 4)).sum()
  # Each of 40 clips escapes all four operations once in 16.
  assert same < 10
  clips = np.concatenate([batch['video'] for batch in changed])
  assert len({clip.tobytes() for clip in clips}) == len(clips)


@pytest.mark.parametrize('name', sampling.SAMPLINGS)
def test_samplings(without_decoding, monkeypatch, name):
  plans = _plans(monkeypatch, stride=2, sampling=name)
  frames = {tuple(clip.frames.tolist()) for clips in plans for clip in clips}
  assert len(frames) > 1
  most = {'stride': 4, 'mae_st': 0, 'vivit': 4, 'dense': 5}.get(name, 8)
  assert max(clip[-1] - clip[0] for clip in frames) == most


def test_jittered_crops(without_decoding, monkeypatch):
  plans = _plans(
    monkeypatch,
    stride=1,
    crop='jittered',
    short_side=32,
    crop_jitter=(1.0, 1.5),
  )
  # The frames are 24x32; the crop is 16x24.
  heights = {clip.box.height for clips in plans for clip in clips}
  assert heights == {8, 9, 10, 11, 12}


def test_stride_in_seconds(source):
  """At 10 frames a second, 0.2 s are two frames."""
  data: dict[str, Any] = dict(stride_seconds=0.2, crop='center', flip=False)
  batch = next(_train(source, **data))
  shades = batch['video'].astype(float).mean((2, 3, 4))
  np.testing.assert_allclose(np.diff(shades), 16, atol=2)


def test_bad_videos_are_replaced_and_nothing_shifts(without_decoding):
  good = _take(_train(_Fake(30), repeats=1), 15)
  iterator = _train(_Fake(30, bad=(3, 8)), repeats=1)
  found = _take(iterator, 15)
  replaced = 0
  for batch, other in zip(good, found, strict=True):
    bad = np.isin(batch['index'], (3, 8))
    np.testing.assert_array_equal(batch['index'][~bad], other['index'][~bad])
    assert not np.isin(other['index'], (3, 8)).any()
    assert other['valid'].all()
    replaced += bad.sum()
  assert replaced == 4  # two epochs
  assert iterator.get_state() == {'row': 60}
  assert sorted(iterator.bad) == [
    ('id 3', 'id 3: corrupt (frames in it do not decode)'),
    ('id 8', 'id 8: corrupt (frames in it do not decode)'),
  ]
  iterator.set_state({'row': 0})
  _assert_same(found, _take(iterator, 15))
  assert len(iterator.bad) == 2


def test_bad_videos_are_told_by_workers(videos, tmp_path, caplog):
  for path in videos.glob('*/*'):
    (tmp_path / path.name).write_bytes(path.read_bytes())
  tiny_videos.broken(tmp_path / 'broken.mp4')
  source = datasets.open_source('folder', str(tmp_path))
  iterator = _train(source, num_workers=1)
  batches = _take(iterator, 9)
  iterator.close()
  assert [name for name, _ in iterator.bad] == ['broken.mp4']
  assert caplog.text.count('broken.mp4') == 1
  _assert_same(batches, _take(_train(source), 9))
  assert 'label' not in batches[0]


def test_too_many_bad_videos_stop(without_decoding):
  iterator = _train(_Fake(200, bad=range(0, 200, 3)))
  with pytest.raises(
    pipeline.BadVideosError, match=r'max_bad_fraction allows 0.25:\n  id \d+'
  ):
    _take(iterator, 100)
  # Not before fifty videos were tried.
  assert iterator.get_state()['row'] >= 36
  iterator = _train(_Fake(200, bad=range(0, 200, 3)), max_bad_fraction=0.5)
  assert len(_take(iterator, 100)) == 100


def test_few_videos_are_all_tried_first(without_decoding):
  iterator = _train(_Fake(4, bad=(0, 1)), batch_size=1)
  with pytest.raises(pipeline.BadVideosError, match='2 of 4 videos tried'):
    _take(iterator, 50)


def test_no_readable_video_at_all(without_decoding):
  with pytest.raises(pipeline.BadVideosError, match='2 of 2 videos tried'):
    next(_train(_Fake(2, bad=(0, 1)), max_bad_fraction=1.0))


def _evaluate(source, batch_size=4, processes=(0, 1), **data):
  return list(
    pipeline.eval_iterator(
      source,
      data,
      batch_size=batch_size,
      process_index=processes[0],
      process_count=processes[1],
      **_SHAPE,
    )
  )


def test_evaluation_is_one_pass_in_order(source):
  batches = _evaluate(source)
  assert [batch['valid'].tolist() for batch in batches] == [
    [True] * 4,
    [True] * 4,
    [True, True, False, False],
  ]
  index = np.concatenate([batch['index'] for batch in batches])
  assert index.tolist() == [*range(10), -1, -1]
  assert (batches[-1]['video'][2:] == 0).all()
  assert (batches[-1]['label'][2:] == -1).all()
  _assert_same(batches, _evaluate(source, num_workers=2, flip=True, repeats=3))
  halves = [_evaluate(source, processes=(p, 2)) for p in (0, 1)]
  joined = [
    {key: np.concatenate([a[key], b[key]]) for key in a}
    for a, b in zip(*halves, strict=True)
  ]
  _assert_same(batches, joined)


def test_evaluation_leaves_bad_videos_out(without_decoding):
  batches = _evaluate(_Fake(10, bad=(2,)), batch_size=5)
  valid = np.concatenate([batch['valid'] for batch in batches])
  assert np.flatnonzero(~valid).tolist() == [2]
  with pytest.raises(pipeline.BadVideosError, match='3 of 10'):
    _evaluate(_Fake(10, bad=(2, 5, 7)), batch_size=5)


@pytest.mark.parametrize(
  ('data', 'message'),
  [
    ({'strid': 3}, r'Unknown field data\.strid\. Did you mean data\.stride\?'),
    (
      {'crop': 'centre'},
      "known are 'multi_scale', 'random_resized', 'jittered'",
    ),
    ({'repeat': 'frames'}, "known are 'crops', 'windows'"),
    (
      {'sampling': 'sparse'},
      "known are 'stride', 'dense', 'segments', 'mae_st'",
    ),
    (
      {'sampling': 'dense', 'stride_seconds': 0.1},
      "'dense' it is None: it goes with 'stride'",
    ),
    (
      {'rand_augment': 'rand-7'},
      "data.rand_augment is 'rand-7', which has an odd part",
    ),
    (
      {'rand_augment': _POLICY, 'rand_augment_interpolation': 'cubic'},
      "known are 'bicubic', 'bilinear'",
    ),
    ({'repeats': 0}, 'it is at least 1'),
    ({'stride_seconds': 0.0}, 'it is above 0'),
    ({'max_bad_fraction': 2.0}, 'from 0 to 1'),
  ],
)
def test_wrong_fields(source, data, message):
  with pytest.raises(ValueError, match=message):
    _train(source, **data)


@pytest.mark.parametrize('seed', [-1, 2**32])
def test_impossible_seed(source, seed):
  with pytest.raises(ValueError, match=f'seed is {seed}'):
    _train(source, seed=seed)


def test_row_randomness_is_its_own():
  draws = {
    loading.row_rng(*key).random()
    for key in [(0, 0), (0, 1), (1, 0), (0, 0, 1), (0, 1, 1)]
  }
  assert len(draws) == 5
  assert loading.row_rng(0, 1).random() in draws


def test_awkward_videos_straight_from_the_folder(shared_videos):
  source = datasets.open_source('folder', str(shared_videos / 'awkward'))
  iterator = _train(source, batch_size=6, repeats=1)
  read = np.concatenate([batch['index'] for batch in _take(iterator, 5)])
  bad = dict(iterator.bad)
  assert set(bad) == {
    'mdx_10byte_broken.gif',
    'derived/audio_only.mp4',
    'derived/truncated_60pct_faststart.mp4',
    'derived/zero_bytes.mp4',
  }
  assert all(name in reason for name, reason in bad.items())
  assert {source[i].id for i in read} | set(bad) == {
    source[i].id for i in range(len(source))
  }
