"""What a batch holds: rows, clips, repeats, options."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from tests.data import records
from tests.data.streams import SHAPE, Fake, assert_same, evaluate, take, train
from vivit_mae.data import datasets, decode, lists, loading, sampling, writer
from vivit_mae.data.clip_options import ClipOptions

_POLICY = 'rand-m7-n4-mstd0.5-inc1'


def test_batch(ten):
  batch = next(train(ten))
  assert set(batch) == {'video', 'index', 'label', 'valid'}
  assert batch['video'].shape == (8, 3, 16, 24, 3)
  assert batch['video'].dtype == np.uint8
  assert batch['index'].dtype == batch['label'].dtype == np.int32
  assert batch['valid'].all()
  np.testing.assert_array_equal(batch['index'][::2], batch['index'][1::2])
  labels = [ten[i].label for i in batch['index']]
  assert batch['label'].tolist() == labels


def test_rows_are_the_videos_they_say(ten_videos, ten):
  """The clip's still background is that of the file at `index`."""
  batch = next(train(ten, crop='center', flip=False))
  for video, index in zip(batch['video'], batch['index'], strict=True):
    whole = decode.read_clips(
      str(ten_videos / ten[index].id),
      lambda info: [decode.Clip(np.arange(info.num_frames), (16, 24))],
    )[0]
    ours = video.astype(float).mean((1, 2, 3))
    theirs = whole.astype(float).mean((1, 2, 3))
    # Shades rise by 8 a frame and frames lie 2 apart.
    np.testing.assert_allclose(np.diff(ours), 16, atol=2)
    assert np.abs(theirs - ours[0]).min() < 12


def test_seeds_give_other_streams(ten):
  one, other = next(train(ten, seed=1)), next(train(ten, seed=2))
  assert (one['index'] != other['index']).any()


def test_pictures_are_videos_too(tmp_path):
  for number in range(3):
    folder = tmp_path / f'{number}'
    folder.mkdir()
    for i, encoded in enumerate(records.pictures(number, 6)):
      (folder / f'{i}.png').write_bytes(encoded)
  source = datasets.open_source('frames', str(tmp_path), fps=10)
  iterator = train(source, num_workers=1)
  batches = take(iterator, 2)
  iterator.close()
  assert all(batch['video'].any((1, 2, 3, 4)).all() for batch in batches)
  assert_same(batches, take(train(source), 2))


def test_of_a_segment_nothing_else_is_seen(ten):
  segment = (0.4, 0.9)  # frames 4 to 8 of twelve
  parts = [dataclasses.replace(ten[i], segment=segment) for i in range(4)]
  source = datasets.FileSource('parts', parts, ten.class_names)
  fields: dict[str, Any] = dict(crop='center', flip=False, repeats=1, stride=1)
  for batch in (next(train(source, **fields)), *evaluate(source, stride=1)):
    assert batch['valid'].all()
    for clip, index in zip(batch['video'], batch['index'], strict=True):
      (whole,) = decode.read_clips(
        ten[index].video, lambda info: [decode.Clip(np.arange(12), (16, 24))]
      )
      frames = {
        int(np.abs(whole.astype(int) - frame).mean((1, 2, 3)).argmin())
        for frame in clip
      }
      assert frames <= {4, 5, 6, 7, 8}
      assert len(frames) > 1


def test_folder_and_prepared_dataset_give_the_same_stream(
  ten_videos, ten, tmp_path
):
  listed = lists.read_folder(ten_videos)
  assert isinstance(listed.class_names, tuple)
  writer.write_dataset(
    tmp_path / 'out',
    listed.splits,
    class_names=listed.class_names,
    shards=3,
    progress=False,
  )
  prepared = datasets.open_source('tfds', str(tmp_path / 'out'))
  iterator = train(prepared, num_workers=1)
  assert_same(take(train(ten), 4), take(iterator, 4))
  iterator.close()


def _plans(monkeypatch, **data: Any):
  """The clips that are cut out of forty videos, straight from the loader."""
  plans = []
  read_clips = decode.read_clips

  def spy(video, plan, name, **segment):
    def plan_and_note(info):
      plans.append(plan(info))
      return plans[-1]

    return read_clips(video, plan_and_note, name, **segment)

  monkeypatch.setattr(decode, 'read_clips', spy)
  options = ClipOptions(**data)
  load = loading.Loader(Fake(40), options, **SHAPE, seed=0)
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


def test_rand_augment_changes_clips_and_nothing_else(ten):
  plain = take(train(ten), 5)
  changed = take(train(ten, rand_augment=_POLICY), 5)
  assert_same(changed, take(train(ten, rand_augment=_POLICY), 5))
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


def test_stride_in_seconds(ten):
  """At 10 frames a second, 0.2 s are two frames."""
  data: dict[str, Any] = dict(stride_seconds=0.2, crop='center', flip=False)
  batch = next(train(ten, **data))
  shades = batch['video'].astype(float).mean((2, 3, 4))
  np.testing.assert_allclose(np.diff(shades), 16, atol=2)


def test_evaluation_is_one_pass_in_order(ten):
  batches = evaluate(ten)
  assert [batch['valid'].tolist() for batch in batches] == [
    [True] * 4,
    [True] * 4,
    [True, True, False, False],
  ]
  index = np.concatenate([batch['index'] for batch in batches])
  assert index.tolist() == [*range(10), -1, -1]
  assert (batches[-1]['video'][2:] == 0).all()
  assert (batches[-1]['label'][2:] == -1).all()
  assert_same(batches, evaluate(ten, num_workers=2, flip=True, repeats=3))
  halves = [evaluate(ten, processes=(p, 2)) for p in (0, 1)]
  joined = [
    {key: np.concatenate([a[key], b[key]]) for key in a}
    for a, b in zip(*halves, strict=True)
  ]
  assert_same(batches, joined)


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
def test_wrong_fields(ten, data, message):
  with pytest.raises(ValueError, match=message):
    train(ten, **data)


@pytest.mark.parametrize('seed', [-1, 2**32])
def test_impossible_seed(ten, seed):
  with pytest.raises(ValueError, match=f'seed is {seed}'):
    train(ten, seed=seed)


def test_row_randomness_is_its_own():
  draws = {
    loading.row_rng(*key).random()
    for key in [(0, 0), (0, 1), (1, 0), (0, 0, 1), (0, 1, 1)]
  }
  assert len(draws) == 5
  assert loading.row_rng(0, 1).random() in draws
