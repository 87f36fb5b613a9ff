"""Videos that are stored as pictures: found, read; faults are named."""

import io
import pickle
import tarfile
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.data import records
from vivit_mae.data import (
  datasets,
  decode,
  frames,
  picture_files,
  transforms,
  video,
)


def _folder(path, number=0, count=6, name='img_{:05}.png', first=1, step=1):
  path.mkdir(parents=True, exist_ok=True)
  for i, encoded in enumerate(records.pictures(number, count)):
    (path / name.format(first + i * step)).write_bytes(encoded)
  return path


def _tar(path, number=0, count=6, folder=''):
  path.parent.mkdir(parents=True, exist_ok=True)
  with tarfile.open(path, 'w') as archive:
    # Out of order, as tar files mostly are.
    for i, encoded in reversed(
      list(enumerate(records.pictures(number, count), 1))
    ):
      info = tarfile.TarInfo(f'{folder}img_{i:05}.png')
      info.size = len(encoded)
      archive.addfile(info, io.BytesIO(encoded))
  return path


def _read(source, indices, segment=None, **clip):
  infos = []

  def plan(info):
    infos.append(info)
    size = clip.get('size', (info.height, info.width))
    return [video.Clip(np.asarray(indices), **{**clip, 'size': size})]

  read = decode.read_clips(source, plan, 'name', segment)[0]
  assert len(infos) == 1
  return read


class _Counting(frames.EncodedFrames):
  """Says which pictures were read."""

  asked: list[int] = []  # noqa: RUF012

  def read(self, i):
    self.asked.append(i)
    return super().read(i)


@pytest.mark.parametrize('kind', ['folder', 'tar', 'tar with folder', 'memory'])
def test_frames_are_exact(tmp_path, kind):
  source = {
    'folder': lambda: picture_files.FolderFrames(
      str(_folder(tmp_path / 'v')), 25
    ),
    'tar': lambda: picture_files.TarFrames(str(_tar(tmp_path / 'v.tar')), 25),
    'tar with folder': lambda: picture_files.TarFrames(
      str(_tar(tmp_path / 'v.tar', folder='v/')), 25
    ),
    'memory': lambda: frames.EncodedFrames(records.pictures(0, 6), 25),
  }[kind]()
  assert isinstance(source, frames.Frames)
  assert len(source) == 6
  source = pickle.loads(pickle.dumps(source))
  want = records.pixels(0, 6)
  np.testing.assert_array_equal(_read(source, [5, 0, 3, 3]), want[[5, 0, 3, 3]])
  info = decode.probe(source)
  assert (info.num_frames, info.height, info.width) == (6, 24, 32)
  assert (info.codec, info.fps, info.duration) == ('png', 25.0, 6 / 25)
  np.testing.assert_allclose(info.timestamps, np.arange(6) / 25)
  assert not info.variable_frame_rate


def test_only_what_is_asked_is_read_and_once():
  source = _Counting(records.pictures(0, 9))
  source.asked.clear()
  _read(source, [7, 0, 4, 4])
  assert source.asked == [0, 4, 7]


def test_crop_resize_and_flip_are_those_of_videos():
  source = frames.EncodedFrames(records.pictures(3, 4))
  box = transforms.Box(2, 3, 20, 18)
  got = _read(source, [1, 3], size=(8, 10), box=box, flip=True)
  for pixels, i in zip(got, (1, 3), strict=True):
    want = transforms.crop_and_resize(
      records.pixels(3, 4)[i], box, (8, 10), flip=True
    )
    np.testing.assert_array_equal(pixels, want)


def test_planes():
  got = _read(
    frames.EncodedFrames(records.pictures(3, 2)), [1], pixels='yuv420'
  )
  assert got.shape == (1, 36, 32)


def test_segments():
  source = frames.EncodedFrames(records.pictures(0, 10), 5)
  info = decode.probe(source, segment=(0.4, 1.2))
  assert (info.num_frames, info.duration) == (4, pytest.approx(0.8))
  np.testing.assert_allclose(info.timestamps, np.arange(4) / 5)
  got = _read(source, [0, 3], segment=(0.4, 1.2))
  np.testing.assert_array_equal(got, records.pixels(0, 10)[[2, 5]])
  assert decode.probe(source, segment=(1.5, 99)).num_frames == 2
  with pytest.raises(video.VideoError, match=r'10 pictures, none in 2 to 3 s'):
    decode.probe(source, segment=(2, 3))


@pytest.mark.parametrize('extension', ['.jpg', '.webp', '.bmp'])
def test_formats(extension):
  source = frames.EncodedFrames(records.pictures(0, 3, extension))
  got = _read(source, [2]).astype(int)
  assert np.abs(got - records.pixels(0, 3)[2]).mean() < 12
  kind = {'.jpg': 'jpeg'}.get(extension, extension[1:])
  assert decode.probe(source).codec == kind


def test_grey_deep_and_transparent_pictures_become_rgb():
  grey = np.full((24, 32), 100, np.uint8)
  deep = np.full((24, 32, 3), 100 * 257, np.uint16)
  clear = np.full((24, 32, 4), 100, np.uint8)
  encoded = [cv2.imencode('.png', p)[1].tobytes() for p in (grey, deep, clear)]
  got = _read(frames.EncodedFrames(encoded), [0, 1, 2])
  assert got.shape == (3, 24, 32, 3)
  assert (got == 100).all()


def test_exif_rotation_is_not_applied():
  buffer = io.BytesIO()
  exif = Image.Exif()
  exif[0x0112] = 6  # Orientation: to be turned by 90 degrees.
  Image.new('RGB', (32, 24)).save(buffer, 'JPEG', exif=exif)
  source = frames.EncodedFrames([buffer.getvalue()] * 2)
  assert _read(source, [0, 1]).shape == (2, 24, 32, 3)


def test_pictures_of_another_size_take_that_of_the_first():
  small = cv2.imencode('.png', np.full((12, 16, 3), 9, np.uint8))[1].tobytes()
  source = frames.EncodedFrames([records.pictures(0, 1)[0], small])
  got = _read(source, [0, 1])
  np.testing.assert_array_equal(got[0], records.pixels(0, 1)[0])
  assert (got[1] == 9).all()


def _huge():
  """A png that says it has 30,000 x 30,000 pixels."""
  buffer = io.BytesIO()
  Image.new('1', (30_000, 1)).save(buffer, 'PNG')
  data = bytearray(buffer.getvalue())
  data[20:24] = (30_000).to_bytes(4, 'big')
  data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, 'big')
  return bytes(data)


@pytest.mark.parametrize(
  ('damaged', 'kind'),
  [
    (b'', 'corrupt'),
    (b'no picture', 'corrupt'),
    (records.pictures(1, 1)[0][:-40], 'corrupt'),
    (records.pictures(1, 1, '.jpg')[0][:-200], 'corrupt'),
    (_huge(), 'too_large'),
  ],
)
@pytest.mark.parametrize('place', [0, 2])
def test_broken_pictures_are_named(tmp_path, damaged, kind, place):
  path = _folder(tmp_path / 'v')
  (path / f'img_{place + 1:05}.png').write_bytes(damaged)
  source = picture_files.FolderFrames(str(path))
  with pytest.raises(
    video.VideoError, match=f'name: {kind} .*img_{place + 1:05}.png: '
  ) as caught:
    _read(source, [1, place])
  assert caught.value.kind == kind
  # It is no failure to read that might pass.
  assert caught.value.__context__ is None
  if place:
    assert _read(source, [1, 4]).shape == (2, 24, 32, 3)


def test_frames_beyond_the_end():
  with pytest.raises(ValueError, match='frame 3 is asked of a video of 3'):
    _read(frames.EncodedFrames(records.pictures(0, 3)), [3])


def test_order_is_that_of_the_numbers(tmp_path):
  path = _folder(tmp_path / 'v', count=12, name='frame {}.png', first=95)
  source = picture_files.FolderFrames(str(path))
  titles = [source.title(i) for i in range(12)]
  assert titles == [f'frame {i}.png' for i in range(95, 107)]
  np.testing.assert_array_equal(_read(source, range(12)), records.pixels(0, 12))


def test_every_other_file_is_left_out(tmp_path):
  path = _folder(tmp_path / 'v', name='img_{:05}.PNG', first=0, step=5)
  for name in ('.img_00001.png', 'thumb.jpg', 'flow_x_00001.jpg', 'a1.txt'):
    (path / name).write_bytes(b'x')
  assert len(picture_files.FolderFrames(str(path))) == 6


@pytest.mark.parametrize(
  ('names', 'message'),
  [
    (
      ['a_1.jpg', 'a_2.jpg', 'a_4.jpg', 'a_5.jpg', 'a_8.jpg'],
      r'no picture of number 3, which should follow a_2.jpg; 2 gaps',
    ),
    (['a_1.jpg', 'a_2.png'], r'several kinds of pictures: a_\*.jpg \(1\), a_'),
    (['a_1.jpg', 'a_01.jpg', 'a_2.jpg'], 'two pictures of number 1'),
    (['a.jpg', 'b.txt'], 'no_frames .*no numbered pictures'),
    ([], 'no_frames'),
  ],
)
def test_folders_that_are_not_clear(tmp_path, names, message):
  for name in names:
    (tmp_path / name).write_bytes(b'x')
  with pytest.raises(video.VideoError, match=message):
    decode.probe(picture_files.FolderFrames(str(tmp_path)))


def test_files_that_cannot_be_read(tmp_path):
  with pytest.raises(video.VideoError) as caught:
    len(picture_files.FolderFrames(str(tmp_path / 'v')))
  assert caught.value.kind == 'missing'
  path = _folder(tmp_path / 'w')
  source = picture_files.FolderFrames(str(path))
  assert len(source) == 6
  (path / 'img_00003.png').unlink()
  with pytest.raises(
    video.VideoError, match=r'w: missing .*img_00003'
  ) as caught:
    _read(source, [2])
  with pytest.raises(video.VideoError) as caught:
    len(picture_files.TarFrames(str(tmp_path / 'v.tar')))
  assert caught.value.kind == 'missing'


def test_damaged_tar_files(tmp_path):
  path = _tar(tmp_path / 'v.tar')
  data = path.read_bytes()
  (tmp_path / 'cut.tar').write_bytes(data[:900])
  with pytest.raises(video.VideoError) as caught:
    decode.probe(picture_files.TarFrames(str(tmp_path / 'cut.tar')))
  assert caught.value.kind == 'truncated'
  for name, other in (('text.tar', b'no tar' * 500), ('zip.tar', b'\x1f\x8b1')):
    (tmp_path / name).write_bytes(other)
    with pytest.raises(video.VideoError, match='as an uncompressed tar'):
      decode.probe(picture_files.TarFrames(str(tmp_path / name)))


def test_no_picture_of_a_damaged_tar_is_lost_in_silence(tmp_path):
  data = _tar(tmp_path / 'v.tar').read_bytes()
  whole = picture_files.TarFrames(str(tmp_path / 'v.tar'))
  headers = [k for k in range(0, len(data), 512) if data[k : k + 4] == b'img_']
  assert len(headers) == len(whole) == 6
  path = tmp_path / 'damaged.tar'
  for k in headers:
    for damaged in (data[:k], data[: k + 3] + b'!' + data[k + 4 :]):
      picture_files._list_tar.cache_clear()
      path.write_bytes(damaged)
      with pytest.raises(video.VideoError):
        len(picture_files.TarFrames(str(path)))


def _tree(root):
  _folder(root / 'run' / 'a', 0)
  _tar(root / 'run' / 'b.tar', 1)
  _folder(root / 'jump' / 'far' / 'c.avi', 2, name='{:03}.png')
  (root / 'notes.txt').write_text('x')
  return root


def test_source_of_folders_and_tar_files(tmp_path):
  source = datasets.open_source('frames', str(_tree(tmp_path)), fps=12.5)
  assert source.class_names == ('jump', 'run')
  source = pickle.loads(pickle.dumps(source))
  found = [source[i] for i in range(len(source))]
  assert [(e.id, e.label) for e in found] == [
    ('jump/far/c.avi', 0),
    ('run/a', 1),
    ('run/b.tar', 1),
  ]
  for example, number in zip(found, (2, 0, 1), strict=True):
    assert isinstance(example.video, frames.Frames)
    assert example.video.fps == 12.5
    np.testing.assert_array_equal(
      _read(example.video, [4]), records.pixels(number, 6)[[4]]
    )


def test_source_with_splits(tmp_path):
  _folder(tmp_path / 'train' / 'run' / 'a')
  _folder(tmp_path / 'val' / 'run' / 'b')
  source = datasets.open_source('frames', str(tmp_path), 'val')
  assert [source[i].id for i in range(len(source))] == ['val/run/b']


def test_folders_that_hold_no_videos(tmp_path):
  with pytest.raises(ValueError, match='No such folder of videos'):
    datasets.open_source('frames', str(tmp_path / 'x'))
  with pytest.raises(ValueError, match='holds no folder of numbered pictures'):
    datasets.open_source('frames', str(tmp_path))
  _folder(tmp_path / 'a' / 'b')
  with pytest.raises(ValueError, match=r'b. holds pictures itself\. One'):
    datasets.open_source('frames', str(tmp_path / 'a' / 'b'))
  _folder(tmp_path / 'a', count=1)
  with pytest.raises(ValueError, match=r'below it are other videos.*a/b'):
    datasets.open_source('frames', str(tmp_path))


def test_lists_may_name_folders_and_tar_files(tmp_path):
  tree = _tree(tmp_path)
  (tree / 'x.mp4').write_bytes(b'x')
  (tree / 'l.csv').write_text('run/a run\nrun/b.tar playing chess\nx.mp4 run\n')
  source = datasets.open_source('csv', str(tree / 'l.csv'), fps=10)
  assert source.class_names == ('playing chess', 'run')
  assert [source[i].video for i in range(3)] == [
    picture_files.FolderFrames(str(tree / 'run' / 'a'), 10),
    picture_files.TarFrames(str(tree / 'run' / 'b.tar'), 10),
    str(tree / 'x.mp4'),
  ]


def test_lists_of_raw_frames(tmp_path):
  tree = _tree(tmp_path)
  (tree / 'l.txt').write_text('path frames label\nrun/a 6 1\nrun/b.tar 6 0\n')
  source = datasets.open_source('csv', str(tree / 'l.txt'))
  found = [(source[i].id, source[i].label) for i in range(2)]
  assert found == [('run/a', 1), ('run/b.tar', 0)]
  assert isinstance(source[0].video, picture_files.FolderFrames)


@pytest.mark.parametrize('fps', [0, -1.0, float('inf'), float('nan')])
def test_rates_that_are_none(tmp_path, fps):
  with pytest.raises(ValueError, match=r'data\.fps is'):
    datasets.open_source('frames', str(tmp_path), fps=fps)
