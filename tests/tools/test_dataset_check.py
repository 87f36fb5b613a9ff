import csv
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.data import records, tiny_videos
from vivit_mae.data import layouts, listing
from vivit_mae.tools import check_text, dataset


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
  """Five videos in two classes, one of them twice, and two that are broken."""
  root = tmp_path_factory.mktemp('videos')
  tiny_videos.folder(
    root, ['run/1.mp4', 'run/2.mp4', 'run/3.mp4', 'walk/4.mp4']
  )
  shutil.copy(root / 'run' / '1.mp4', root / 'walk' / 'as_1.mp4')
  tiny_videos.broken(root / 'run' / 'broken.mp4')
  (root / 'walk' / 'empty.mp4').write_bytes(b'')
  (root / 'notes.txt').write_text('')
  return root


def _run(*arguments):
  return dataset.main(['check', *map(str, arguments)])


def test_prints_one_table_and_the_findings(videos, tmp_path, capsys):
  report = tmp_path / 'new' / 'report.csv'
  assert _run(videos, '--report', report, '--num_frames=4', '--stride=1') == 0
  output = capsys.readouterr().out
  lines = [line.strip() for line in output.splitlines()]
  assert lines[0] == f'{videos}: 7 videos'
  for line in (
    'videos           train (7)',
    'classes          2, of 3 to 4 videos (median 3.5)',
    'fewest videos  walk (3), run (4)',
    'without a label  0',
    'can not be read  2',
    'containers       mp4/mov (5)',
    'codecs           h264 (5)',
    'pixel formats    yuv420p (5)',
    'sizes            40x32 (5)',
    'frames a second  10 (5)',
    'seconds          1.2 to 1.2, median 1.2; 0.00167 hours in all',
    'frames           12 to 12, median 12; 60 in all',
    'left out         1 file: notes.txt (.txt: not known as a video)',
    'broken: 2, which prepare leaves out',
    'empty, the file holds no bytes: 1',
    'walk/empty.mp4',
    'unreadable, it cannot be opened: 1',
    'suspicious: 5',
    'short: none',
    'rotated: none',
    'duplicate: 1',
    'other_label, the same video has another label elsewhere: 1',
    'walk/as_1.mp4: as run/1.mp4, labelled otherwise',
    f'All are in {report}.',
  ):
    assert line in lines
  assert 'and 2 more' in lines  # of the small ones
  with report.open(newline='') as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == 8
  assert rows[-1] == {
    'split': 'train',
    'id': 'walk/as_1.mp4',
    'finding': 'duplicate',
    'kind': 'other_label',
    'reason': (
      'the same video has another label elsewhere: as run/1.mp4, labelled '
      'otherwise'
    ),
  }
  before = report.read_text()
  assert _run(videos, '--report', report) == 1
  assert 'exists; give another name, or --overwrite' in capsys.readouterr().err
  assert report.read_text() == before
  assert _run(videos, '--report', report, '--overwrite', '--strict') == 2
  assert _run(videos, '--report', videos / 'run' / '1.mp4' / 'a.csv') == 1
  captured = capsys.readouterr()
  assert '1.mp4/a.csv can not be written: ' in captured.err
  assert captured.out.count('short: 5') == 2
  assert captured.out.count('All are in') == 1
  # By default a clip spans 64 frames.
  assert 'short: 5, of fewer than 64' in captured.out
  assert len(report.read_text().splitlines()) == 1 + 8 + 5


def test_json(videos, capsys):
  assert _run(videos, '--json', '--unlabelled', 'walk') == 0
  found = json.loads(capsys.readouterr().out)
  assert found['splits'] == {'train': 7}
  assert found['classes'] == {'': {'run': 4}}
  assert found['unlabelled'] == 3
  assert found['frames'] == {'least': 12, 'median': 12, 'most': 12, 'total': 60}
  assert found['left_out'] == ['notes.txt']
  assert found['findings'][0] == {
    'group': 'broken',
    'kind': 'empty',
    'split': 'train',
    'id': 'walk/empty.mp4',
    'reason': '',
  }


def test_a_prepared_dataset(videos, tmp_path, capsys):
  out = tmp_path / 'o'
  prepare = [
    'prepare',
    str(videos),
    '--out',
    str(out),
    '--eval_fraction',
    '0.5',
  ]
  assert dataset.main(prepare) == 0
  capsys.readouterr()
  assert _run(out, '--strict') == 0
  output = capsys.readouterr().out
  assert f'{out}: 5 videos' in output
  assert 'validation (' in output
  assert 'broken: none' in output
  assert 'duplicate: 1' in output
  assert 'labelled otherwise' in output


def test_a_list_and_a_single_video(videos, tmp_path, capsys):
  (tmp_path / 'l.csv').write_text('run/1.mp4 x\ngone.mp4 y\nrun/1.mp4 x\n')
  assert _run(videos, '--csv', tmp_path / 'l.csv') == 0
  output = capsys.readouterr().out
  assert 'missing, there is no such file: 1\n    gone.mp4' in output
  assert 'listed_twice' in output
  assert _run(videos / 'run' / '1.mp4', '--full') == 0
  assert '1.mp4: 1 video\n' in capsys.readouterr().out
  assert _run(videos / 'walk' / 'empty.mp4') == 1
  assert 'error: none of the 1 videos' in capsys.readouterr().err


def test_what_a_layout_reports(videos, capsys, monkeypatch):
  example = listing.Example(str(videos / 'run' / '1.mp4'), 0, '1')
  asked = []

  def read(*arguments):
    asked.append(arguments)
    return listing.Listing(
      {'train': (example,)},
      ('run', 'walk'),
      skipped=(('x.mp4', 'in no list'),),
      missing=(('2', 'there is no 2.mp4'),),
      duplicates=(('1', 'named in lines 1 and 2'),),
    )

  monkeypatch.setattr(layouts, 'read', read)
  options = ('--layout', 'ucf101', '--official_split', '2')
  assert _run(videos, *options, '--strict') == 2
  assert asked == [('ucf101', str(videos), (), 2)]
  output = capsys.readouterr().out
  assert 'left out         1 file: x.mp4 (in no list)' in output
  assert 'can not be read  1' in output
  assert 'there is no such file: 1\n    2: there is no 2.mp4' in output
  assert 'once: 1\n    1: named in lines 1 and 2' in output
  assert _run(videos, *options, '--csv', 'a.csv') == 1
  assert 'each says what there is' in capsys.readouterr().err


def test_videos_that_are_pictures(tmp_path, capsys):
  rng = np.random.default_rng(0)
  for video in ('run/a', 'run/b', 'walk/c'):
    folder = tmp_path / 'v' / video
    folder.mkdir(parents=True)
    for k in range(1, 6):
      picture = Image.fromarray(rng.integers(0, 256, (64, 80, 3), np.uint8))
      picture.save(folder / f'img_{k:05}.jpg')
  (folder / 'img_00002.jpg').write_bytes(b'no picture')
  options = ('--fps=5', '--num_frames=3', '--stride=2')
  assert _run(tmp_path / 'v', '--source=frames', '--full', *options) == 0
  output = capsys.readouterr().out
  for line in (
    'classes          2, of 1 to 2 videos (median 1.5)',
    'containers       pictures (2)',
    'sizes            80x64 (2)',
    'frames a second  5 (2)',
    'short: 2, of fewer than 6 frames',
    'broken: 1',
    'walk/c: ',
    'duplicate: none',
  ):
    assert line in output
  (tmp_path / 'l.csv').write_text('v/run/a x\nv/run/b y\n')
  assert _run(tmp_path / 'l.csv', *options) == 0
  assert 'containers       pictures (2)' in capsys.readouterr().out
  assert _run(tmp_path / 'l.csv', '--source=dmvr', '--csv=x') == 1
  assert 'leave out --csv' in capsys.readouterr().err


def test_records_of_pictures(tmp_path, capsys):
  for split, count in (('train', 2), ('test', 1)):
    rows = [
      records.sequence_example(
        records.pictures(number, 5),
        clip__label__index=[number],
        clip__label__text=[b'run', b'walk'][number : number + 1],
      )
      for number in range(count)
    ]
    records.write(tmp_path / f'{split}.tfrecord', rows)
  assert _run(tmp_path, '--source=dmvr', '--fps=10') == 0
  output = capsys.readouterr().out
  assert 'videos           train (2), test (1)' in output
  assert 'containers       pictures (3)' in output
  assert 'frames a second  10 (3)' in output


def test_a_reader_that_has_enough():
  script = (
    'from vivit_mae.tools import check_text\n'
    "check_text.say(1000 * ['a line that is not short'])\n"
  )
  with subprocess.Popen(
    [sys.executable, '-c', script],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
  ) as process:
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b''
  assert process.returncode == 0


def test_the_most_frequent_of_many_values():
  counts = {f'v{i}': 20 - i for i in range(6)}
  assert check_text._counts(counts).endswith('v5 (15)')
  counts['v6'] = 1
  assert check_text._counts(counts).endswith('v4 (16), 2 others (16)')


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['nowhere'], "error: No such folder of videos: 'nowhere'"),
    (['nowhere', '--source=tfds'], "error: No prepared dataset at 'nowhere'"),
    (['.', '--workers', '0'], 'error: --workers is 0; it is above 0'),
    (['.', '--timeout', '-1'], 'error: --timeout is -1; it is above 0'),
  ],
)
def test_mistakes_are_one_clear_line(capsys, arguments, message):
  assert _run(*arguments) == 1
  error = capsys.readouterr().err
  assert error.startswith(message)
  assert 'Traceback' not in error


def test_a_misspelt_option(videos, capsys):
  with pytest.raises(SystemExit):
    _run(videos, '--strid=3')
  error = capsys.readouterr().err
  assert 'no such option: --strid. Did you mean --stride?' in error
