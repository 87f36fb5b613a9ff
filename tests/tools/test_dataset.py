import os
import signal
import subprocess
import sys
import time

import pytest

from tests.data import tiny_videos
from vivit_mae.data import datasets
from vivit_mae.tools import dataset


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
  root = tmp_path_factory.mktemp('videos')
  tiny_videos.folder(root, ['a/1.mp4', 'a/2.mp4', 'b c/3.mp4', 'free/4.mp4'])
  tiny_videos.broken(root / 'a' / 'broken.mp4')
  (root / 'notes.txt').write_text('')
  return root


def _run(*arguments):
  return dataset.main(['prepare', *map(str, arguments)])


def test_prepares_a_folder(videos, tmp_path, capsys):
  assert _run(videos, '--out', tmp_path / 'o', '--unlabelled', 'free') == 0
  output = capsys.readouterr().out
  assert '4 videos (train 4)' in output
  assert '1 left out; all are in' in output
  assert 'unreadable: 1\n    a/broken.mp4' in output
  assert '1 other files are left out: notes.txt' in output
  source = datasets.open_source('tfds', str(tmp_path / 'o'))
  assert source.class_names == ('a', 'b c')
  assert [source[i].label for i in range(4)] == [0, 0, 1, -1]
  assert _run(videos, '--out', tmp_path / 'o', '--unlabelled', 'free') == 0
  assert _run(videos, '--out', tmp_path / 'o') == 1
  assert 'class_names was' in capsys.readouterr().err


def test_prepares_a_list(videos, tmp_path, capsys):
  (tmp_path / 'l.csv').write_text('a/1.mp4 x\nb c/3.mp4 y\ngone.mp4 y\n')
  out = tmp_path / 'o'
  assert _run(videos, '--csv', tmp_path / 'l.csv', '--out', out) == 0
  assert 'missing: 1\n    gone.mp4' in capsys.readouterr().out
  source = datasets.open_source('tfds', str(out))
  assert [source[i].id for i in range(2)] == ['a/1.mp4', 'b c/3.mp4']
  (videos / 'own.csv').write_text('a/1.mp4\n')
  assert _run(videos / 'own.csv', '--out', tmp_path / 'p') == 0
  (videos / 'own.csv').unlink()
  assert datasets.open_source('tfds', str(tmp_path / 'p')).class_names == ()


def test_splits(videos, tmp_path, capsys):
  share = ('--eval_fraction', 0.5)
  assert _run(videos, '--out', tmp_path / 'o', *share) == 0
  for split in ('train', 'validation'):
    folder = datasets.open_source(
      'folder', str(videos), split, eval_fraction=0.5
    )
    prepared = datasets.open_source('tfds', str(tmp_path / 'o'), split)
    assert [prepared[i] for i in range(len(prepared))] == [
      datasets.Example((videos / e.id).read_bytes(), e.label, e.id)
      for e in map(folder.__getitem__, range(len(folder)))
      if e.id != 'a/broken.mp4'
    ]
  only = ('--split', 'val', *share)
  assert _run(videos, '--out', tmp_path / 'p', *only) == 0
  with pytest.raises(ValueError, match='no videos in the split'):
    datasets.open_source('tfds', str(tmp_path / 'p'), 'train')
  capsys.readouterr()
  assert _run(videos, '--out', tmp_path / 'q', '--split', 'test') == 1
  assert 'has no split test; it has train' in capsys.readouterr().err


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--shard', '3'], 'no such option: --shard. Did you mean --shards?'),
    (['--check', 'half'], "invalid choice: 'half'"),
  ],
)
def test_wrong_options(videos, tmp_path, capsys, arguments, message):
  with pytest.raises(SystemExit):
    _run(videos, '--out', tmp_path / 'o', *arguments)
  assert message in capsys.readouterr().err


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['nowhere'], "error: No such folder of videos: 'nowhere'"),
    (['.', '--threads', 0], 'error: --threads is 0'),
    (['.', '--csv', 'nowhere.csv'], 'error: No list of videos'),
  ],
)
def test_mistakes_are_one_clear_line(tmp_path, capsys, arguments, message):
  assert _run(*arguments, '--out', tmp_path / 'o') == 1
  error = capsys.readouterr().err
  assert error.startswith(message)
  assert 'Traceback' not in error


def test_killed_and_started_again(tmp_path):
  source = tmp_path / 'videos'
  for i in range(60):
    tiny_videos.write(source / f'{i:02}.mp4', i, num_frames=60)
  command = [
    *(sys.executable, '-m', 'vivit_mae.tools.dataset', 'prepare', str(source)),
    *('--out', str(tmp_path / 'o'), '--shards', '20', '--threads', '1'),
  ]
  process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
  first = tmp_path / 'o' / 'videos-train.array_record-00002-of-00020'
  while not first.exists() and process.poll() is None:
    time.sleep(0.01)
  os.kill(process.pid, signal.SIGKILL)
  assert process.wait() == -signal.SIGKILL
  with pytest.raises(ValueError, match='no finished dataset'):
    datasets.open_source('tfds', str(tmp_path / 'o'))
  written = first.stat().st_mtime_ns
  subprocess.run(command, check=True, capture_output=True)
  assert first.stat().st_mtime_ns == written
  opened = datasets.open_source('tfds', str(tmp_path / 'o'))
  assert [opened[i].id for i in range(60)] == [f'{i:02}.mp4' for i in range(60)]


def test_awkward_videos(shared_videos, tmp_path, capsys):
  assert _run(shared_videos / 'awkward', '--out', tmp_path / 'o') == 0
  assert '26 videos' in capsys.readouterr().out
  report = (tmp_path / 'o' / 'rejected.csv').read_text().splitlines()
  kinds = {line.split(',')[1]: line.split(',')[2] for line in report[1:]}
  assert kinds['derived/truncated_60pct_faststart.mp4'] == 'truncated'
  assert kinds['derived/audio_only.mp4'] == 'no_video'
  assert kinds['derived/zero_bytes.mp4'] == 'empty'
  assert 'mdx_10byte_broken.gif' in kinds
  assert len(kinds) == 4
