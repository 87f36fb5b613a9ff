"""Datasets of videos that are encoded anew, and of several labels."""

import dataclasses
import json

import pytest

from tests.data import tiny_videos
from vivit_mae.data import datasets, decode, frames, lists, reencode, writer
from vivit_mae.data.listing import Box, Example

SETTINGS = reencode.Settings(short_side=16, preset='ultrafast')


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
  """Five good videos in two classes, and a broken one."""
  root = tmp_path_factory.mktemp('videos')
  tiny_videos.folder(root, [f'run/{i}.mp4' for i in range(4)])
  tiny_videos.folder(root, ['jump/1.mp4'])
  tiny_videos.broken(root / 'jump' / 'broken.mp4')
  return root


def _write(
  out, videos, encoding: reencode.Settings | None = SETTINGS, **arguments
):
  listed = lists.read_folder(videos)
  return writer.write_dataset(
    out,
    listed.splits,
    class_names=listed.class_names,
    encoding=encoding,
    progress=False,
    **arguments,
  )


class _KilledError(Exception):
  pass


def _content(folder):
  return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_every_video_is_encoded(videos, tmp_path):
  prepared = _write(tmp_path / 'out', videos, shards=2, num_threads=2)
  assert prepared.counts == {'train': 5}
  source = datasets.TfdsSource(str(tmp_path / 'out'))
  total = 0
  for i in range(5):
    example = source[i]
    assert isinstance(example.video, bytes)
    expected = reencode.reencode(videos / example.id, SETTINGS)
    assert example.video == expected.video
    info = decode.probe(example.video, decode=True)
    assert (info.height, info.width, info.num_frames) == (16, 20, 12)
    total += len(example.video)
  assert [(r.id, r.kind) for r in prepared.rejected] == [
    ('jump/broken.mp4', 'unreadable')
  ]
  loss = prepared.loss
  assert loss is not None
  assert loss.bytes_after == total
  assert loss.bytes_before == sum(
    (videos / source[i].id).stat().st_size for i in range(5)
  )
  assert 20 < loss.psnr()[1] <= loss.psnr()[0] < 60
  again = _write(tmp_path / 'out', videos, shards=2)
  assert again == prepared
  _write(tmp_path / 'other', videos, shards=2)
  assert _content(tmp_path / 'other') == _content(tmp_path / 'out')


def test_other_settings_are_refused(videos, tmp_path):
  _write(tmp_path / 'out', videos)
  before = _content(tmp_path / 'out')
  finer = dataclasses.replace(SETTINGS, crf=20)
  with pytest.raises(ValueError, match=r'\(crf was 23, is 20\)'):
    _write(tmp_path / 'out', videos, finer)
  with pytest.raises(ValueError, match='encoded was true, is none'):
    _write(tmp_path / 'out', videos, None)
  assert _content(tmp_path / 'out') == before
  _write(tmp_path / 'copy', videos, None)
  with pytest.raises(ValueError, match='encoded was none, is true'):
    _write(tmp_path / 'copy', videos)


def test_videos_of_an_unfinished_shard_are_not_encoded_again(
  videos, tmp_path, monkeypatch
):
  encode, done, lives = reencode.reencode, [], 3

  def dying(source, settings, name, segment):
    if len(done) == lives:
      raise _KilledError
    done.append(name)
    return encode(source, settings, name, segment)

  monkeypatch.setattr(reencode, 'reencode', dying)
  with pytest.raises(_KilledError):
    _write(tmp_path / 'out', videos)
  assert not (tmp_path / 'out' / 'dataset_info.json').exists()
  assert done == ['jump/1.mp4', 'jump/broken.mp4', 'run/0.mp4']
  lives = 10
  prepared = _write(tmp_path / 'out', videos)
  # What is broken is tried again: it may have been mended.
  assert done[3:] == ['jump/broken.mp4', *(f'run/{i}.mp4' for i in (1, 2, 3))]
  assert prepared.counts == {'train': 5}
  monkeypatch.undo()
  assert prepared.loss == _write(tmp_path / 'other', videos).loss
  hidden = [p.name for p in (tmp_path / 'out').iterdir() if p.is_dir()]
  assert hidden == []
  assert {
    k: v for k, v in _content(tmp_path / 'out').items() if k[0] != '.'
  } == _content(tmp_path / 'other')


def test_what_has_no_bytes_of_its_own_must_be_encoded(videos, tmp_path):
  path = str(videos / 'run' / '0.mp4')
  pictures = frames.EncodedFrames([b''], 10)
  for example in (
    Example(path, -1, 'part', (0.0, 0.5)),
    Example(pictures, -1, 'pictures'),
  ):
    with pytest.raises(ValueError, match=f'^{example.id} is'):
      writer.write_dataset(
        tmp_path / example.id, {'train': [example]}, progress=False
      )
  part = Example(path, -1, 'part', (0.2, 0.7))
  prepared = writer.write_dataset(
    tmp_path / 'out', {'train': [part]}, encoding=SETTINGS, progress=False
  )
  found = datasets.TfdsSource(str(tmp_path / 'out'))[0]
  assert found.segment is None
  assert decode.probe(found.video).num_frames == 5
  assert prepared.loss is not None
  assert prepared.loss.bytes_before is None


def test_too_few_frames_are_a_reason_to_leave_out(
  videos, tmp_path, monkeypatch
):
  def fail(source, settings, name, segment):
    raise reencode.EncodingError(f'{name}: of 12 frames, 11 are in it')

  monkeypatch.setattr(reencode, 'reencode', fail)
  with pytest.raises(ValueError, match='of 12 frames, 11 are in it'):
    _write(tmp_path / 'out', videos)
  report = (tmp_path / 'out' / 'rejected.csv').read_text()
  assert 'train,run/0.mp4,encoding,"run/0.mp4: of 12 frames' in report


def _read(out, examples, **arguments):
  writer.write_dataset(out, {'train': examples}, progress=False, **arguments)
  source = datasets.TfdsSource(str(out))
  return source, [source[i] for i in range(len(source))]


def test_several_labels_come_back(videos, tmp_path):
  path = str(videos / 'run' / '0.mp4')
  wanted = [(0, 2), (), (-1,), (1,)]
  names = ('run', 'jump', 'a b')
  source, found = _read(
    tmp_path,
    [Example(path, label, str(i)) for i, label in enumerate(wanted)],
    class_names=names,
    multi_label=True,
  )
  assert source.multi_label
  assert source.class_names == names
  assert [example.label for example in found] == wanted


def test_heads_come_back(videos, tmp_path):
  path = str(videos / 'run' / '0.mp4')
  names = {'verb': ('take', 'put'), 'noun': ('cup', 'pan', 'lid')}
  wanted = [(0, 2), (1, -1), (-1, -1)]
  source, found = _read(
    tmp_path,
    [Example(path, label, str(i)) for i, label in enumerate(wanted)],
    class_names=names,
  )
  assert not source.multi_label
  assert source.class_names == names
  order = [list(source.class_names).index(head) for head in names]
  assert [
    tuple(example.label[i] for i in order)
    for example in found
    if isinstance(example.label, tuple)
  ] == wanted


def test_boxes_come_back(videos, tmp_path):
  path = str(videos / 'run' / '0.mp4')
  boxes = (
    Box(0.1, 0.2, 0.30000000000000004, 1.0, 3, (0, 2)),
    Box(0.0, 0.0, 1.0, 1.0, -1, ()),
  )
  _, found = _read(
    tmp_path,
    [Example(path, -1, 'a', boxes=boxes), Example(path, -1, 'b')],
    boxes=True,
  )
  assert [example.boxes for example in found] == [boxes, None]


def test_names_of_heads_are_checked(tmp_path):
  with pytest.raises(ValueError, match="'Main verb' can not name a label"):
    writer.write_dataset(
      tmp_path / 'out', {}, class_names={'Main verb': ('a',)}
    )


def test_older_directories_are_still_known(videos, tmp_path):
  _write(tmp_path, videos, None)
  path = tmp_path / 'prepare.json'
  manifest = json.loads(path.read_text())
  for key in ('multi_label', 'boxes', 'encoded'):
    del manifest[key]
  path.write_text(json.dumps(manifest))
  assert _write(tmp_path, videos, None).counts == {'train': 5}
