import csv
import json
import os
import pathlib
import signal
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tests.data import tiny_videos
from vivit_mae.data import datasets, lists, opening, writer
from vivit_mae.data.listing import Example


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
  """Seven good videos in two classes and one without, and two broken."""
  root = tmp_path_factory.mktemp('videos')
  tiny_videos.folder(root, [f'run/{i}.mp4' for i in range(4)])
  tiny_videos.folder(root, ['jump/é x.mp4', 'jump/1.mp4', 'loose.mp4'])
  tiny_videos.broken(root / 'jump' / 'broken.mp4')
  (root / 'run' / 'empty.mp4').write_bytes(b'')
  return root


def _write(videos, out, **arguments):
  listed = lists.read_folder(videos)
  assert isinstance(listed.class_names, tuple)
  return writer.write_dataset(
    out,
    listed.splits,
    class_names=listed.class_names,
    progress=False,
    **arguments,
  )


def _content(folder):
  return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.parametrize('shards', [1, 3, 20])
def test_round_trip_through_tfds(videos, tmp_path, shards):
  prepared = _write(videos, tmp_path / 'out', shards=shards)
  assert prepared.counts == {'train': 7}
  builder: Any = tfds.builder_from_directory(str(tmp_path / 'out'))
  assert builder.info.features['label'].names == ['jump', 'run']
  rows = list(builder.as_data_source('train'))
  assert [row['id'].decode() for row in rows] == [
    *('jump/1.mp4', 'jump/é x.mp4', 'loose.mp4'),
    *(f'run/{i}.mp4' for i in range(4)),
  ]
  assert [row['label'] for row in rows] == [0, 0, -1, 1, 1, 1, 1]
  for row in rows:
    assert row['video'] == (videos / row['id'].decode()).read_bytes()
    assert row['num_frames'] == 12
    np.testing.assert_allclose(row['duration'], 1.2, rtol=1e-6)
  assert builder.info.splits['train'].num_bytes == prepared.num_bytes


def test_report_of_rejected_videos(videos, tmp_path):
  prepared = _write(videos, tmp_path / 'out', shards=4)
  found = [(r.split, r.id, r.kind) for r in prepared.rejected]
  assert found == [
    ('train', 'jump/broken.mp4', 'unreadable'),
    ('train', 'run/empty.mp4', 'empty'),
  ]
  with (tmp_path / 'out' / 'rejected.csv').open(newline='') as file:
    rows = list(csv.reader(file))
  assert rows[0] == ['split', 'id', 'kind', 'reason']
  assert [tuple(row[:3]) for row in rows[1:]] == found
  assert 'jump/broken.mp4' in rows[1][3]


def _crash_at_one(job: opening.Job) -> opening.Record | opening.Refusal:
  """As a fault in FFmpeg would."""
  if job.example.id == 'run/2.mp4':
    os.kill(os.getpid(), signal.SIGSEGV)
  return _open_video(job)


def _crash_once(job: opening.Job) -> opening.Record | opening.Refusal:
  """As when the system runs out of memory."""
  mark = pathlib.Path(f'{job.draft}.mark')
  if job.example.id == 'run/2.mp4' and not mark.exists():
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()
    os.kill(os.getpid(), signal.SIGKILL)
  return _open_video(job)


def _fail_at_one(job: opening.Job) -> opening.Record | opening.Refusal:
  if job.example.id == 'run/2.mp4':
    raise OSError('no space left')
  return _open_video(job)


_open_video = opening.open_video


@pytest.mark.parametrize('num_threads', [1, 2])
def test_a_video_that_crashes_ffmpeg_is_left_out(
  videos, tmp_path, num_threads, monkeypatch
):
  monkeypatch.setattr(opening, 'open_video', _crash_at_one)
  prepared = _write(
    videos, tmp_path / 'out', isolated=True, num_threads=num_threads
  )
  assert prepared.counts == {'train': 6}
  (crashed,) = (r for r in prepared.rejected if r.kind == 'crashed')
  assert crashed.id == 'run/2.mp4'
  assert 'SIGSEGV' in crashed.reason


def test_a_video_whose_process_is_killed_once_is_opened_again(
  videos, tmp_path, monkeypatch
):
  monkeypatch.setattr(opening, 'open_video', _crash_once)
  prepared = _write(videos, tmp_path / 'out', isolated=True)
  assert prepared.counts == {'train': 7}


def test_what_is_no_fault_of_a_video_is_raised(videos, tmp_path, monkeypatch):
  monkeypatch.setattr(opening, 'open_video', _fail_at_one)
  with pytest.raises(OSError, match='no space left'):
    _write(videos, tmp_path / 'out', isolated=True)
  monkeypatch.undo()
  assert _write(videos, tmp_path / 'out').counts == {'train': 7}


def test_processes_of_their_own_change_nothing(videos, tmp_path):
  _write(videos, tmp_path / 'a')
  _write(videos, tmp_path / 'b', isolated=True, num_threads=2)
  assert _content(tmp_path / 'a') == _content(tmp_path / 'b')


def test_a_file_that_no_record_holds(videos, tmp_path, monkeypatch):
  monkeypatch.setattr(opening, 'MAX_BYTES', 0)
  with pytest.raises(ValueError, match=r'loose.mp4: too_large \(\d+ bytes'):
    _write(videos, tmp_path)


def test_same_videos_same_shards_whatever_the_threads(videos, tmp_path):
  _write(videos, tmp_path / 'a', shards=2, num_threads=1)
  _write(videos, tmp_path / 'b', shards=2, num_threads=3)
  assert _content(tmp_path / 'a') == _content(tmp_path / 'b')


class _KilledError(Exception):
  pass


class _Dying:
  """Examples that can be asked for only so many times."""

  def __init__(self, examples, lives):
    self.examples, self.lives, self.asked = examples, lives, []

  def __len__(self):
    return len(self.examples)

  def __getitem__(self, i):
    self.asked.append(i)
    self.lives -= 1
    if self.lives < 0:
      raise _KilledError
    return self.examples[i]


@pytest.mark.parametrize('lives', [0, 3, 4, 8])
def test_resumes_at_the_first_missing_shard(videos, tmp_path, lives):
  examples = lists.read_folder(videos).splits['train']

  def write(name, examples):
    return writer.write_dataset(
      tmp_path / name,
      {'train': examples},
      class_names=('jump', 'run'),
      shards=3,
      fingerprint='x',
      progress=False,
    )

  write('a', examples)
  dying = _Dying(examples, lives)
  with pytest.raises(_KilledError):
    write('b', dying)
  with pytest.raises(ValueError, match='no finished dataset'):
    datasets.TfdsSource(str(tmp_path / 'b'))
  again = _Dying(examples, 100)
  prepared = write('b', again)
  # Shards hold three candidates each; complete ones are not read again.
  assert again.asked == list(range(lives // 3 * 3, 9))
  parts = {p.name for p in (tmp_path / 'b').iterdir() if '.part' in p.name}
  content = _content(tmp_path / 'b')
  assert {k: v for k, v in content.items() if k not in parts} == _content(
    tmp_path / 'a'
  )
  assert len(prepared.rejected) == 2
  assert prepared == write('b', _Dying(examples, 0))


def test_never_overwrites_something_else(videos, tmp_path):
  _write(videos, tmp_path / 'out')
  before = _content(tmp_path / 'out')
  with pytest.raises(ValueError, match=r'made from other videos .*shards was'):
    _write(videos, tmp_path / 'out', shards=2)
  with pytest.raises(ValueError, match='is not empty and was not begun'):
    _write(videos, videos)
  assert _content(tmp_path / 'out') == before


def test_nothing_readable_makes_no_dataset(tmp_path):
  tiny_videos.broken(tmp_path / 'in' / 'a.mp4')
  with pytest.raises(ValueError, match='None of the 1 videos can be read'):
    _write(tmp_path / 'in', tmp_path / 'out')
  assert not (tmp_path / 'out' / 'dataset_info.json').exists()


def test_no_labels_at_all(tmp_path):
  tiny_videos.folder(tmp_path / 'in', ['a.mp4', 'b.mp4'])
  _write(tmp_path / 'in', tmp_path / 'out')
  source = datasets.TfdsSource(str(tmp_path / 'out'))
  assert source.class_names == ()
  assert [source[i].label for i in range(2)] == [-1, -1]


def test_source_of_a_prepared_dataset(videos, tmp_path):
  out = str(tmp_path / 'out')
  _write(videos, out, shards=3)
  source = datasets.TfdsSource(out)
  assert (len(source), source.class_names) == (7, ('jump', 'run'))
  assert source[3] == Example(
    (videos / 'run/0.mp4').read_bytes(), 1, 'run/0.mp4'
  )
  source = datasets.TfdsSource(out, 'train[:3]', unlabelled=('jump',))
  assert (len(source), source.class_names) == (3, ('run',))
  assert source[0].label == -1
  with pytest.raises(ValueError, match=r"split 'test'. There are: train \(7\)"):
    datasets.TfdsSource(out, 'test')
  with pytest.raises(ValueError, match='names walk, which fits no class'):
    datasets.TfdsSource(out, unlabelled=('walk',))


def test_dataset_by_name(videos, tmp_path):
  _write(videos, tmp_path / 'videos' / writer.directory.VERSION)
  source = datasets.open_source('tfds', 'videos', cache_dir=str(tmp_path))
  assert (len(source), source.class_names) == (7, ('jump', 'run'))


def test_dataset_without_encoded_videos(videos, tmp_path):
  _write(videos, tmp_path)
  features = json.loads((tmp_path / 'features.json').read_text())
  table = features['featuresDict']['features']
  table['film'] = table.pop('video')
  (tmp_path / 'features.json').write_text(json.dumps(features))
  with pytest.raises(ValueError, match='holds no videos'):
    datasets.TfdsSource(str(tmp_path))


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'check': 'half'}, 'known are packets, full'),
    ({'name': 'My-Data'}, "'My-Data' can not name a dataset"),
  ],
)
def test_impossible_arguments(videos, tmp_path, arguments, message):
  with pytest.raises(ValueError, match=message):
    _write(videos, tmp_path / 'out', **arguments)
  assert not (tmp_path / 'out').exists()
