"""What `dataset prepare` encodes, and what it refuses."""

import pytest
from PIL import Image

from tests.data import tiny_videos
from vivit_mae.data import datasets, decode, reencode
from vivit_mae.tools import dataset

QUICK = ('--preset', 'ultrafast')


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
  root = tmp_path_factory.mktemp('videos')
  return tiny_videos.folder(root, ['a/1.mp4', 'a/2.mp4', 'b/3.mp4'])


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
  root = tmp_path_factory.mktemp('pictures')
  for number, name in enumerate(('a/1', 'b/2')):
    (root / name).mkdir(parents=True)
    for i, frame in enumerate(tiny_videos.frames(number)):
      Image.fromarray(frame).save(root / name / f'img_{i:05}.png')
  return root


def _run(*arguments):
  return dataset.main(['prepare', *map(str, arguments)])


def _infos(out, split='train'):
  source = datasets.open_source('tfds', str(out), split)
  return [decode.probe(source[i].video) for i in range(len(source))]


def test_encodes_anew(videos, tmp_path, capsys):
  out = tmp_path / 'o'
  arguments = (videos, '--out', out, '--short_side=16', *QUICK)
  assert _run(*arguments) == 0
  output = capsys.readouterr().out
  assert '3 videos (train 3)' in output
  assert 'Encoded anew, without sound: ' in output
  assert 'kB before, ' in output
  assert 'dB, in the worst frame ' in output
  assert [(i.height, i.width, i.num_frames) for i in _infos(out)] == [
    (16, 20, 12)
  ] * 3
  source = datasets.open_source('tfds', str(out))
  settings = reencode.Settings(short_side=16, preset='ultrafast')
  expected = reencode.reencode(videos / 'a' / '1.mp4', settings)
  assert source[0].video == expected.video
  assert _run(*arguments, '--crf=30') == 1
  assert '(crf was 23, is 30)' in capsys.readouterr().err


def test_lossless(videos, tmp_path, capsys):
  assert _run(videos, '--out', tmp_path / 'o', '--crf=0', *QUICK) == 0
  assert 'Luma is as in the scaled source' in capsys.readouterr().out


def test_pictures_are_encoded_at_their_rate(pictures, tmp_path, capsys):
  out = tmp_path / 'o'
  assert _run(pictures, '--source=frames', '--fps=8', '--out', out) == 0
  output = capsys.readouterr().out
  assert "Videos such as 'a/1' are stored as pictures: all are enc" in output
  assert [(i.num_frames, i.fps) for i in _infos(out)] == [(12, 8.0)] * 2
  again = tmp_path / 'p'
  command = (out, '--source=tfds', '--split', 'train', '--out', again)
  assert _run(*command, '--gop=4', *QUICK) == 0
  assert [i.num_frames for i in _infos(again)] == [12, 12]
  assert _run(*command[:-1], tmp_path / 'q') == 0
  copied = datasets.open_source('tfds', str(tmp_path / 'q'))
  assert copied[1] == datasets.open_source('tfds', str(out))[1]


def test_segments_are_encoded(videos, tmp_path, capsys):
  (videos / 'parts.csv').write_text(
    'path,label,start,end\na/1.mp4,x,0.2,0.7\nb/3.mp4,y,,\n'
  )
  command = (videos / 'parts.csv', '--out', tmp_path / 'o')
  assert _run(*command) == 1
  error = capsys.readouterr().err
  assert 'are parts of longer videos: there are no bytes of their own' in error
  assert 'have each part encoded: --short_side=256' in error
  assert not (tmp_path / 'o').exists()
  assert _run(*command, '--crf=23', *QUICK) == 0
  (videos / 'parts.csv').unlink()
  assert [i.num_frames for i in _infos(tmp_path / 'o')] == [5, 12]


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--copy', '--crf=20'], '--copy keeps the bytes; leave it out, or --crf'),
    (['--gop=8', '--check=packets'], '--check=packets looks at packets only'),
    (['--short_side=15'], 'short_side is 15; it is even'),
    (['--beam_options=--a=1'], '--beam_options belong to a --beam_runner'),
    (['--official_split=2'], '--official_split belongs to a --layout'),
    (['--layout=ucf101', '--csv=x'], '--csv and --layout=ucf101: each says'),
    (['--layout=ucf101', '--official_split=4'], 'official_split is 4'),
    (['--source=tfds'], '--source=tfds needs --split'),
    (['--source=dmvr', '--csv=x'], '--source=dmvr and --csv=x do not go'),
    (['--source=frames', '--layout=ava'], '--source=frames and --layout=ava'),
    (['--fps=0'], '--fps is 0; it is above 0'),
  ],
)
def test_what_does_not_go_together(
  videos, tmp_path, capsys, arguments, message
):
  assert _run(videos, '--out', tmp_path / 'o', *arguments) == 1
  assert message in capsys.readouterr().err
  assert not (tmp_path / 'o').exists()


def test_pictures_have_no_bytes_to_copy(pictures, tmp_path, capsys):
  command = (pictures, '--source=frames', '--copy', '--out', tmp_path / 'o')
  assert _run(*command) == 1
  assert '--copy can not turn into a video' in capsys.readouterr().err


def test_misspelt_options_of_the_encoding(videos, tmp_path, capsys):
  for wrong, message in (
    ('--short_size=256', 'Did you mean --short_side?'),
    ('--tune=fast', "invalid choice: 'fast' (choose from 'fastdecode'"),
  ):
    with pytest.raises(SystemExit):
      _run(videos, '--out', tmp_path / 'o', wrong)
    assert message in capsys.readouterr().err


def test_official_layouts(tmp_path, capsys):
  for name in ('Run/v_Run_g01_c01.avi', 'Walk/v_Walk_g01_c01.avi'):
    tiny_videos.write(tmp_path / 'u' / 'UCF-101' / name)
  lists = tmp_path / 'u' / 'ucfTrainTestlist'
  lists.mkdir()
  (lists / 'classInd.txt').write_text('1 Walk\n2 Run\n')
  gone = 'Run/v_Run_g09_c01.avi'
  (lists / 'trainlist02.txt').write_text(f'Run/v_Run_g01_c01.avi 2\n{gone} 2\n')
  (lists / 'testlist02.txt').write_text('Walk/v_Walk_g01_c01.avi\n')
  command = (tmp_path / 'u', '--layout=ucf101', '--official_split=2')
  assert _run(*command, '--out', tmp_path / 'o') == 0
  output = capsys.readouterr().out
  assert '1 videos are in the lists and not in the folders: ' in output
  assert gone.rsplit('/')[1][:-4] in output
  train = datasets.open_source('tfds', str(tmp_path / 'o'), 'train')
  test = datasets.open_source('tfds', str(tmp_path / 'o'), 'test')
  assert train.class_names == ('Walk', 'Run')
  assert (train[0].label, test[0].label) == (1, 0)
