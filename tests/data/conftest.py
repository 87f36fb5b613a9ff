"""Videos and streams of them, for many tests."""

import numpy as np
import pytest

from tests.data import streams, tiny_videos
from vivit_mae.data import datasets, decode


@pytest.fixture(scope='session')
def ten_videos(tmp_path_factory):
  """Ten videos in two classes."""
  root = tmp_path_factory.mktemp('videos')
  names = [f'{"run" if i % 3 else "walk"}/{i}.mp4' for i in range(10)]
  return tiny_videos.folder(root, names)


@pytest.fixture(scope='session')
def ten(ten_videos):
  """The source of them."""
  return datasets.open_source('folder', str(ten_videos))


@pytest.fixture
def without_decoding(monkeypatch):
  """Videos are black, but those of `streams.Fake.bad` fail."""

  def read_clips(video, plan, name, **segment):
    del segment
    if video[0]:
      raise decode.VideoError('corrupt', name)
    info = decode.VideoInfo(
      num_frames=9,
      duration=9.0,
      fps=1.0,
      width=32,
      height=24,
      rotation=0,
      codec='',
      pixel_format='',
      variable_frame_rate=False,
      timestamps=np.arange(9.0),
    )
    return [np.zeros((len(c.frames), *c.size, 3), np.uint8) for c in plan(info)]

  monkeypatch.setattr(decode, 'read_clips', read_clips)


@pytest.fixture(autouse=True)
def _stop_iterators():
  """Nothing reads ahead any more when the next test begins."""
  yield
  streams.close_all()
