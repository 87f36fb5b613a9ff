"""Videos that can't be read are replaced, counted, and in the end too many."""

import csv

import numpy as np
import pytest

from tests.data import tiny_videos
from tests.data.streams import Fake, assert_same, evaluate, take, train
from vivit_mae.data import datasets, pipeline


def test_bad_videos_are_replaced_and_nothing_shifts(without_decoding):
  good = take(train(Fake(30), repeats=1), 15)
  iterator = train(Fake(30, bad=(3, 8)), repeats=1)
  found = take(iterator, 15)
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
  assert_same(found, take(iterator, 15))
  assert len(iterator.bad) == 2


def test_bad_videos_are_told_by_workers(ten_videos, tmp_path, caplog):
  for path in ten_videos.glob('*/*'):
    (tmp_path / path.name).write_bytes(path.read_bytes())
  tiny_videos.broken(tmp_path / 'broken.mp4')
  source = datasets.open_source('folder', str(tmp_path))
  iterator = train(source, num_workers=1)
  batches = take(iterator, 9)
  iterator.close()
  assert [name for name, _ in iterator.bad] == ['broken.mp4']
  assert caplog.text.count('broken.mp4') == 1
  assert_same(batches, take(train(source), 9))
  assert 'label' not in batches[0]


def test_too_many_bad_videos_stop(without_decoding):
  iterator = train(Fake(200, bad=range(0, 200, 3)))
  with pytest.raises(
    pipeline.BadVideosError, match=r'max_bad_fraction allows 0.25:\n  id \d+'
  ):
    take(iterator, 100)
  # Not before fifty videos were tried.
  assert iterator.get_state()['row'] >= 36
  iterator = train(Fake(200, bad=range(0, 200, 3)), max_bad_fraction=0.5)
  assert len(take(iterator, 100)) == 100


def test_a_fifth_of_bad_videos_is_borne_with_and_said(
  without_decoding, tmp_path, caplog
):
  bad = range(0, 200, 5)
  iterator = train(Fake(200, bad=bad), repeats=1, report_dir=tmp_path / 'run')
  batches = take(iterator, 50)  # an epoch
  iterator.close()
  index = np.concatenate([batch['index'] for batch in batches])
  assert not np.isin(index, bad).any()
  assert all(batch['valid'].all() for batch in batches)
  # Ten are named; the others only counted, now and then.
  said = [m for m in caplog.messages if m.startswith('Video left out')]
  assert len(said) == 10
  counts = [m for m in caplog.messages if 'videos tried so far' in m]
  assert 2 <= len(counts) <= 6
  report = tmp_path / 'run' / 'bad_videos.csv'
  assert counts[-1] == (
    '40 of the 200 videos tried so far can not be read and are left out '
    f'(all of them: {report})'
  )
  with report.open() as file:
    listed = list(csv.DictReader(file))
  assert {row['id'] for row in listed} == {f'id {i}' for i in bad}
  assert all('corrupt' in row['reason'] for row in listed)


def test_the_list_of_too_many_is_written(without_decoding, tmp_path):
  source = Fake(200, bad=range(0, 200, 3))
  alone = train(source, report_dir=tmp_path)
  with pytest.raises(
    pipeline.BadVideosError, match=r'\(all of them: (.*csv)\)'
  ):
    take(alone, 100)
  lines = (tmp_path / 'bad_videos.csv').read_text().splitlines()
  assert lines[0] == 'id,reason'
  assert len(lines) == 1 + len(alone.bad) > 13
  # Each of several processes has its own.
  second = train(source, processes=(1, 2), report_dir=tmp_path)
  with pytest.raises(pipeline.BadVideosError, match=r'bad_videos-1\.csv'):
    take(second, 100)


def test_a_list_that_can_not_be_written_stops_nothing(
  without_decoding, tmp_path, caplog
):
  (tmp_path / 'run').write_text('a file')
  iterator = train(Fake(30, bad=(3, 8)), report_dir=tmp_path / 'run')
  take(iterator, 15)
  iterator.close()
  assert 'The list of bad videos is not written: ' in caplog.text


def test_few_videos_are_all_tried_first(without_decoding):
  iterator = train(Fake(4, bad=(0, 1)), batch_size=1)
  with pytest.raises(pipeline.BadVideosError, match='2 of 4 videos tried'):
    take(iterator, 50)


def test_no_readable_video_at_all(without_decoding):
  with pytest.raises(pipeline.BadVideosError, match='2 of 2 videos tried'):
    next(train(Fake(2, bad=(0, 1)), max_bad_fraction=1.0))


def test_evaluation_leaves_bad_videos_out(without_decoding):
  batches = evaluate(Fake(10, bad=(2,)), batch_size=5)
  valid = np.concatenate([batch['valid'] for batch in batches])
  assert np.flatnonzero(~valid).tolist() == [2]
  with pytest.raises(pipeline.BadVideosError, match='3 of 10'):
    evaluate(Fake(10, bad=(2, 5, 7)), batch_size=5)


def test_awkward_videos_straight_from_the_folder(shared_videos):
  source = datasets.open_source('folder', str(shared_videos / 'awkward'))
  iterator = train(source, batch_size=6, repeats=1)
  read = np.concatenate([batch['index'] for batch in take(iterator, 5)])
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
