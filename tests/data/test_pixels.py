"""Clips as planes are the clips as RGB, once the device has converted them."""

import io
from typing import Any, cast

import av
import jax.numpy as jnp
import numpy as np
import pytest

from vivit_mae import preprocess
from vivit_mae.data import (
  colour,
  datasets,
  decode,
  pipeline,
  pixels,
  transforms,
)
from vivit_mae.training import sharding

_MATRICES = {'bt709': 1, 'smpte170m': 6, 'bt470bg': 5, 'bt2020nc': 9}


def _smooth(height=64, width=80, n=4):
  """Frames whose colours change slowly, as conversions share them."""
  y, x = np.mgrid[:height, :width]
  waves = [
    128 + 100 * np.sin(x / 17 + i / 5 + c) * np.cos(y / 23 - c)
    for i in range(n)
    for c in range(3)
  ]
  return np.stack(waves, -1).reshape(height, width, n, 3).transpose(2, 0, 1, 3)


def _encode(frames, full_range=False, pixel_format='yuv420p', **tags):
  """Near-lossless H.264 with the tags in its stream."""
  buffer = io.BytesIO()
  named = [f'{k}={v}' for k, v in tags.items()]
  named.append(f'fullrange={"on" if full_range else "off"}')
  with av.open(buffer, 'w', format='mp4') as opened:
    stream = cast(
      av.VideoStream,
      opened.add_stream(
        'libx264',
        rate=25,
        options={'crf': '1', 'x264-params': ':'.join(named)},
      ),
    )
    stream.height, stream.width = frames.shape[1:3]
    stream.pix_fmt = pixel_format
    if full_range:
      stream.codec_context.color_range = 2
    for picture in frames:
      frame = av.VideoFrame.from_ndarray(
        np.clip(picture, 0, 255).astype(np.uint8), format='rgb24'
      )
      opened.mux(stream.encode(frame.reformat(format=pixel_format)))
    opened.mux(stream.encode(None))
  return buffer.getvalue()


def _read(video, **clip):
  """A clip as planes, its matrix, and the same clip as RGB."""
  infos: list[decode.VideoInfo] = []

  def plan(info):
    infos.append(info)
    frames = np.arange(info.num_frames)
    asked: dict[str, Any] = {'size': (info.height, info.width), **clip}
    return [decode.Clip(frames, pixels=p, **asked) for p in decode.PIXELS]

  rgb, planes = decode.read_clips(video, plan)
  return planes, infos[0].to_rgb, rgb


def _on_device(planes, to_rgb):
  return np.asarray(
    preprocess.rgb_of_planes(
      jnp.asarray(planes[None]), jnp.asarray(to_rgb[None])
    )
  )[0]


def _assert_close(ours, theirs, most, mean):
  difference = np.abs(ours.astype(int) - theirs)
  assert difference.max() <= most
  assert difference.mean() < mean


@pytest.mark.parametrize('full_range', [False, True])
@pytest.mark.parametrize('matrix', [None, *_MATRICES])
def test_planes_and_rgb_agree_to_rounding(matrix, full_range):
  tags = {'colormatrix': matrix} if matrix else {}
  video = _encode(_smooth(), full_range, **tags)
  planes, to_rgb, rgb = _read(video)
  assert planes.shape == (4, 96, 80)
  np.testing.assert_array_equal(
    to_rgb, colour.yuv_to_rgb(_MATRICES.get(str(matrix), 2), 2 * full_range)
  )
  # FFmpeg's conversion cuts off what ours rounds, and is darker by one.
  _assert_close(_on_device(planes, to_rgb), rgb, most=3, mean=1.3)


def test_a_wrong_matrix_or_range_would_be_seen():
  planes, _, rgb = _read(_encode(_smooth(), colormatrix='bt709'))
  for wrong in (colour.yuv_to_rgb(), colour.yuv_to_rgb(1, 2)):
    assert np.abs(_on_device(planes, wrong).astype(int) - rgb).max() > 8


@pytest.mark.parametrize('antialias', [False, True])
@pytest.mark.parametrize('flip', [False, True])
@pytest.mark.parametrize('size', [(32, 40), (96, 120), (48, 30)])
def test_cut_and_resized_planes_are_those_pixels(size, flip, antialias):
  box = transforms.Box(6, 10, 52, 64)
  planes, to_rgb, rgb = _read(
    _encode(_smooth()), size=size, box=box, flip=flip, antialias=antialias
  )
  # Colours have been resized at half the resolution.
  _assert_close(_on_device(planes, to_rgb), rgb, most=12, mean=3.0)


def test_boxes_move_to_even_pixels():
  video = _encode(_smooth())
  odd, _, _ = _read(video, size=(40, 40), box=transforms.Box(3, 7, 41, 41))
  even, _, _ = _read(video, size=(40, 40), box=transforms.Box(2, 6, 40, 40))
  np.testing.assert_array_equal(odd, even)
  last = _read(video, size=(2, 2), box=transforms.Box(63, 79, 1, 1))[0]
  whole = _read(video)[0]
  np.testing.assert_array_equal(last[:, :2], whole[:, 62:64, 78:])


@pytest.mark.parametrize(
  'options',
  [
    {'pixel_format': 'yuv444p'},
    {'pixel_format': 'yuv420p10le'},
    {'pixel_format': 'yuv444p', 'colormatrix': 'bt709'},
  ],
  ids=str,
)
def test_other_formats_go_through_rgb(options):
  video = _encode(_smooth(), **options)
  planes, to_rgb, rgb = _read(video, size=(32, 48))
  np.testing.assert_array_equal(to_rgb, colour.yuv_to_rgb())
  _assert_close(_on_device(planes, to_rgb), rgb, most=10, mean=2.5)


def test_odd_frames_and_turned_frames(shared_videos):
  awkward = shared_videos / 'awkward'
  for name in (
    'derived/odd_227x127_nobframes_yuv444.mp4',
    'derived/vp9_228x128.webm',
    'decord_video_90.mov',
    'decord_video_180.mov',
    'imageio_newtonscradle.gif',
    'torchcodec_h264_10bits.mp4',
  ):
    planes, to_rgb, rgb = _read(awkward / name, size=(112, 112))
    # Edges of colours are sharper in RGB; those of brightness are not.
    grey = (_on_device(planes, to_rgb) - rgb.astype(float)) @ [0.3, 0.59, 0.11]
    assert np.abs(grey).mean() < 3, name


def test_what_cannot_be_planar_is_refused():
  frames = np.arange(2)
  with pytest.raises(ValueError, match="'yuv420' needs even sides"):
    decode.Clip(frames, (31, 32), pixels='yuv420')
  with pytest.raises(ValueError, match="'yuv'; known are"):
    decode.Clip(frames, (32, 32), pixels='yuv')
  with pytest.raises(ValueError, match='does not lie in a frame'):
    _read(_encode(_smooth()), box=transforms.Box(60, 0, 10, 10))


def test_the_matrix_is_that_of_the_standard():
  # BT.709, limited: ITU-R BT.709-6, items 3 and 4.
  white, black, red = (
    colour.yuv_to_rgb(1) @ np.array([*yuv, 1.0])
    for yuv in ((235, 128, 128), (16, 128, 128), (63, 102, 240))
  )
  np.testing.assert_allclose(white, 255, atol=0.01)
  np.testing.assert_allclose(black, 0, atol=0.01)
  np.testing.assert_allclose(red, [255, 0, 0], atol=1.5)
  assert pixels.is_planar('yuv420p', 64, 48)
  assert not pixels.is_planar('yuv444p', 64, 48)
  assert not pixels.is_planar('yuv420p', 64, 1)


@pytest.fixture(scope='module')
def source(tmp_path_factory):
  root = tmp_path_factory.mktemp('videos')
  for number in range(4):
    (root / f'{number}.mp4').write_bytes(_encode(_smooth(n=6 + number)))
  return datasets.open_source('folder', str(root))


def _batches(source, name, **data: Any):
  shape: dict[str, Any] = dict(num_frames=2, image_size=(32, 40))
  if name == 'train':
    iterator = pipeline.train_iterator(
      source, dict(stride=1, **data), batch_size=8, seed=3, **shape
    )
    yield next(iterator)
    iterator.close()
  else:
    yield from pipeline.multiview_iterator(
      source, dict(stride=1, **data), batch_size=8, num_crops=3, **shape
    )


@pytest.mark.parametrize('name', ['train', 'views'])
def test_batches_are_the_same_on_the_device(source, name):
  placement = sharding.batch_sharding(sharding.make_mesh())
  pairs = zip(
    _batches(source, name),
    _batches(source, name, pixels='yuv420'),
    strict=True,
  )
  for rgb, planar in pairs:
    assert planar['video'].shape == (len(rgb['video']), 2, 48, 40)
    placed = sharding.put_batch(planar, placement)
    assert placed.keys() == rgb.keys()
    video = np.asarray(placed['video'])
    assert (video.dtype, video.shape) == (np.uint8, rgb['video'].shape)
    _assert_close(video, rgb['video'], most=20, mean=3.0)
    np.testing.assert_array_equal(placed['index'], rgb['index'])


def test_augmentation_of_colours_needs_rgb(source):
  data: dict[str, Any] = dict(
    pixels='yuv420', rand_augment='rand-m7-n4-mstd0.5-inc1'
  )
  with pytest.raises(ValueError, match="has to be 'rgb'"):
    next(_batches(source, 'train', **data))
