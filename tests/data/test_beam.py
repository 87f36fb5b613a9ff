"""Beam writes what we write by ourselves."""

import sys

import pytest

from tests.data import tiny_videos
from vivit_mae.data import beam, datasets, lists, reencode, writer


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
  root = tmp_path_factory.mktemp('videos')
  tiny_videos.folder(root, [f'run/{i}.mp4' for i in range(3)])
  tiny_videos.folder(root, ['jump/1.mp4', 'jump/2.mp4'])
  tiny_videos.broken(root / 'jump' / 'broken.mp4')
  return root


def _write(out, videos, **arguments):
  listed = lists.read_folder(videos)
  return writer.write_dataset(
    out,
    listed.splits,
    class_names=listed.class_names,
    shards=3,
    progress=False,
    **arguments,
  )


def _content(folder):
  return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.parametrize(
  'encoding', [None, reencode.Settings(16, preset='ultrafast')]
)
def test_the_same_files(videos, tmp_path, encoding):
  pytest.importorskip('apache_beam', reason='the extra [beam] is not installed')
  alone = _write(tmp_path / 'alone', videos, encoding=encoding)
  spread = _write(
    tmp_path / 'beam',
    videos,
    encoding=encoding,
    write_shards=beam.BeamWriter(),
  )
  assert _content(tmp_path / 'beam') == _content(tmp_path / 'alone')
  assert spread.counts == alone.counts == {'train': 5}
  assert spread.rejected == alone.rejected


def test_goes_on_where_it_was(videos, tmp_path):
  pytest.importorskip('apache_beam', reason='the extra [beam] is not installed')
  asked = []

  class Counting(beam.BeamWriter):
    def __call__(self, shards, recipe):
      asked.append(len(shards))
      super().__call__(shards[len(asked) % 2 :], recipe)

  writer_of_some = Counting()
  with pytest.raises(ValueError, match='00000-of-00003 was written, and is no'):
    _write(tmp_path / 'out', videos, write_shards=writer_of_some)
  _write(tmp_path / 'out', videos, write_shards=writer_of_some)
  assert asked == [3, 1]
  _write(tmp_path / 'alone', videos)
  assert _content(tmp_path / 'out') == _content(tmp_path / 'alone')


def test_records_are_read_by_the_workers(videos, tmp_path):
  pytest.importorskip('apache_beam', reason='the extra [beam] is not installed')
  _write(tmp_path / 'first', videos)
  source = datasets.open_source('tfds', str(tmp_path / 'first'))

  def write(out, **arguments):
    writer.write_dataset(
      out,
      {'train': source},
      class_names=source.class_names,
      fingerprint='x',
      progress=False,
      **arguments,
    )

  write(tmp_path / 'alone')
  write(tmp_path / 'beam', write_shards=beam.BeamWriter())
  assert _content(tmp_path / 'beam') == _content(tmp_path / 'alone')


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (('DirectRuner',), 'Unexpected pipeline runner: DirectRuner'),
    (('DirectRunner', ['num=2']), "'num=2' is no option of Beam"),
    (('DirectRunner', ['--direct_num_worker=2']), 'no option direct_num_work'),
    (('DirectRunner', ['--direct_num_workers=x']), "invalid int value: 'x'"),
  ],
)
def test_mistakes(arguments, message):
  pytest.importorskip('apache_beam', reason='the extra [beam] is not installed')
  with pytest.raises(ValueError, match=message):
    beam.BeamWriter(*arguments)


def test_without_beam(monkeypatch):
  monkeypatch.setitem(sys.modules, 'apache_beam', None)
  with pytest.raises(ValueError, match=r"pip install 'vivit_mae\[beam\]'"):
    beam.BeamWriter()
