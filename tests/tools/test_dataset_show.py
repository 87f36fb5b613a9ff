import numpy as np
import pytest
from PIL import Image

from tests.data import tiny_videos
from vivit_mae.data import datasets, decode, pipeline
from vivit_mae.data.listing import Example
from vivit_mae.tools import contact_sheet, dataset, dataset_show

_SIZE = (
  '--config.model.num_frames=4',
  '--config.model.image_size=32,40',
  '--config.data.stride=2',
)


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
  """Seven videos in two classes, one without a label, and a broken one."""
  root = tmp_path_factory.mktemp('videos')
  names = [f'{"run" if i % 2 else "walk"}/{i}.mp4' for i in range(6)]
  tiny_videos.folder(root, [*names, 'loose.mp4'])
  tiny_videos.broken(root / 'run' / 'broken.mp4')
  return root


@pytest.fixture
def drawn(monkeypatch):
  """What sheets are drawn of: pairs of heading and strips."""
  found = []
  draw = contact_sheet.draw

  def spy(heading, strips):
    found.append((heading, strips))
    return draw(heading, strips)

  monkeypatch.setattr(contact_sheet, 'draw', spy)
  return found


def _run(*arguments):
  return dataset.main(['show', *map(str, arguments), *_SIZE])


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('repeat', ['crops', 'windows'])
def test_shows_what_training_sees(videos, tmp_path, drawn, seed, repeat):
  data = {
    'source': 'folder',
    'path': str(videos),
    'stride': 2,
    'crop': 'center',
    'repeats': 2,
    'repeat': repeat,
  }
  options = [f'--config.data.{k}={v}' for k, v in data.items() if k != 'path']
  out = tmp_path / 'new' / 'a.png'
  arguments = (videos, '--out', out, '--seed', seed, '--frames=2', *options)
  assert _run(*arguments) == 0
  with Image.open(out) as picture:
    assert picture.width == 1600
  ((heading, strips),) = drawn
  assert heading[0] == f'{videos} (train): 8 of 8 videos, seed {seed}'
  for part in ('2 of 4 frames', 'stride 2', 'center crop to 40x32'):
    assert part in heading[1]
  assert len(strips) == 16
  source = datasets.open_source('folder', str(videos))
  batch = next(
    pipeline.train_iterator(
      source, data, num_frames=4, image_size=(32, 40), batch_size=8, seed=seed
    )
  )
  for row, strip in enumerate(strips):
    example = source[int(batch['index'][row])]
    name, label, about = strip.caption.split(dataset_show._SEPARATOR)
    assert name == example.id
    assert label == ('no label' if name == 'loose.mp4' else name.split('/')[0])
    assert about == '40x32, 12 frames, 10 a second'
    np.testing.assert_array_equal(strip.frames, batch['video'][row][[0, 3]])
    # The numbers below are those of the frames.
    numbers = [int(note.split()[0][1:]) for note in strip.notes]
    assert [note.split()[1] for note in strip.notes] == [
      f'{number / 10:.2f}' for number in numbers
    ]
    plan = [decode.Clip(np.array(numbers), (32, 40))]
    (clip,) = decode.read_clips(example.video, lambda _, plan=plan: plan)
    np.testing.assert_array_equal(strip.frames, clip)


def test_planes_are_shown_in_colour(videos, tmp_path, drawn):
  for pixels in ('rgb', 'yuv420'):
    out = tmp_path / f'{pixels}.png'
    options = ('--config.data.crop=center', f'--config.data.pixels={pixels}')
    assert _run(videos, '--out', out, *options) == 0
  (_, plain), (_, planar) = drawn
  for one, other in zip(plain, planar, strict=True):
    assert one.caption == other.caption
    assert one.notes == other.notes
    difference = one.frames.astype(int) - other.frames
    assert np.abs(difference).mean() < 3


def test_parts_of_videos(videos, tmp_path, drawn):
  file = videos / 'run' / '1.mp4'
  (tmp_path / 'l.csv').write_text(
    f'path,label,start,end\n{file},x,0.3,0.8\n{file},y,0.8,1.2\n'
  )
  options = ('--config.data.crop=center', '--config.data.stride=1')
  out = tmp_path / 'a.png'
  assert _run(tmp_path / 'l.csv', '--out', out, *options) == 0
  ((_, strips),) = drawn
  for strip in strips:
    first, count = {'x': (3, 5), 'y': (8, 4)}[
      strip.caption.split(dataset_show._SEPARATOR)[1]
    ]
    assert f', {count} frames' in strip.caption
    numbers = [first + int(note.split()[0][1:]) for note in strip.notes]
    plan = [decode.Clip(np.array(numbers), (32, 40))]
    (clip,) = decode.read_clips(str(file), lambda _, plan=plan: plan)
    np.testing.assert_array_equal(strip.frames, clip)


def test_never_overwrites_by_itself(videos, tmp_path, capsys):
  out = tmp_path / 'a.png'
  out.write_bytes(b'mine')
  assert _run(videos, '--out', out) == 1
  assert 'exists; give another name, or --overwrite' in capsys.readouterr().err
  assert out.read_bytes() == b'mine'
  assert _run(videos, '--out', out, '--overwrite', '--videos=1') == 0
  assert f'Wrote {out}' in capsys.readouterr().out
  Image.open(out).close()


def test_a_classifier_sees_labelled_videos_only(videos, tmp_path, drawn):
  config = tmp_path / 'finetune.py'
  config.write_text(
    'from vivit_mae import config as config_lib\n'
    'def get_config(arg=""):\n'
    '  config = config_lib.defaults("classify")\n'
    '  config.total_epochs = 1.0\n'
    '  config.seed = 7\n'
    '  return config\n'
  )
  arguments = (videos, '--out', tmp_path / 'a.png', '--config', config)
  assert _run(*arguments) == 0
  ((heading, strips),) = drawn
  assert '7 of 7 videos, seed 7' in heading[0]
  assert not any('no label' in strip.caption for strip in strips)


def test_lists_prepared_datasets_and_the_data_of_the_config(
  videos, tmp_path, drawn
):
  (videos / 'val.csv').write_text('run/1.mp4,x\nloose.mp4,x\nrun/3.mp4,y\n')
  try:
    assert dataset_show.kind_of(str(videos)) == 'csv'
    assert _run(videos, '--split=val', '--out', tmp_path / 'a.png') == 0
  finally:
    (videos / 'val.csv').unlink()
  prepare = ['prepare', str(videos), '--out', str(tmp_path / 'o')]
  assert dataset.main(prepare) == 0
  assert _run(tmp_path / 'o', '--videos=2', '--out', tmp_path / 'b.png') == 0
  own = ('--config.data.source=folder', f'--config.data.path={videos}')
  assert _run(*own, '--videos=3', '--out', tmp_path / 'c.png') == 0
  headings = [heading[0].split(': ')[1] for heading, _ in drawn]
  assert headings == [
    '3 of 3 videos, seed 0',
    '2 of 7 videos, seed 0',
    '3 of 8 videos, seed 0',
  ]


def test_names_of_labels():
  def name(label, names, multi_label=False):
    example = Example('', label, '')
    source = datasets.FileSource('x', (example,), names, multi_label)
    return dataset_show._label_name(source, label)

  assert name(-1, ()) == name(-1, ('a',)) == 'no label'
  assert name(1, ('a', 'b')) == 'b'
  assert name((0, 1), ('a', 'b'), True) == 'a, b'
  assert name((), ('a', 'b'), True) == 'no class applies'
  assert name((-1,), ('a', 'b'), True) == 'no label'
  heads = {'verb': ('cut', 'mix'), 'noun': ('pan',)}
  assert name((1, -1), heads) == 'verb mix, noun -'


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['nowhere', '--out=a.png'], "No such folder of videos: 'nowhere'"),
    (['.', '--out=a.jpg'], '--out=a.jpg is no name of a picture'),
    (['.', '--out=a.png', '--videos=0'], '--videos is 0; 1 is the least'),
    (['--out=a.png', '--layout=ssv2'], 'there is no path'),
    (['.', '--out=a.png', '--config=no.py'], "no config file 'no.py'"),
    (['.', '--out=a.png', '--config.data.flop=1'], 'config.data.flip?'),
  ],
)
def test_mistakes_are_one_clear_line(capsys, arguments, message):
  assert _run(*arguments) == 1
  error = capsys.readouterr().err
  assert error.startswith('error: ')
  assert message in error


def test_only_show_takes_fields_of_a_config(videos, capsys):
  with pytest.raises(SystemExit):
    dataset.main(['check', str(videos), '--config.data.flip=true'])
  assert 'no such option: --config.data.flip' in capsys.readouterr().err
