"""A tiny experiment on real, tiny video files."""

import pathlib
from collections.abc import Callable

import ml_collections
import numpy as np
import pytest

from vivit_mae import command
from vivit_mae.data import encode

CONFIG = """
from vivit_mae import config as config_lib

def get_config(arg=''):
  del arg
  config = config_lib.defaults()
  config.batch_size = 8
  config.total_steps = 8
  model = config.model
  model.variant = 'Ti/8x2'
  model.num_frames = 4
  model.image_size = (32, 32)
  model.width = model.decoder_width = 24
  model.depth = 2
  model.decoder_depth = 1
  model.heads = model.decoder_heads = 2
  model.mlp_dim = model.decoder_mlp_dim = 32
  model.drop_path = 0.1
  config.mask.ratio = 0.5
  config.data.source = 'folder'
  config.data.path = {path!r}
  config.data.stride = 1
  config.optimizer.learning_rate = 0.03
  config.optimizer.warmup_steps = 2
  config.log.every_steps = 1
  config.log.tensorboard = False
  config.checkpoint.every_steps = 2
  return config
"""


@pytest.fixture(scope='session', autouse=True)
def _compile_once(compile_once):
  del compile_once


@pytest.fixture(scope='session')
def experiment(tmp_path_factory) -> pathlib.Path:
  """A config file whose data are a dozen small videos."""
  folder = tmp_path_factory.mktemp('experiment')
  videos = folder / 'videos'
  videos.mkdir()
  rng = np.random.default_rng(0)
  for number in range(12):
    frames = rng.integers(0, 256, (10, 2, 2, 3), np.uint8)
    frames = frames.repeat(24, 1).repeat(24, 2)
    encode.write_video(videos / f'{number}.mp4', list(frames), 10)
  path = folder / 'tiny.py'
  path.write_text(CONFIG.format(path=str(videos)))
  return path


@pytest.fixture
def tiny(experiment) -> Callable[..., ml_collections.ConfigDict]:
  """Loads the config with overrides by dotted path."""

  def load(**overrides: object) -> ml_collections.ConfigDict:
    config = command.load(str(experiment))
    for field, value in overrides.items():
      section, _, key = field.rpartition('__')
      (config[section] if section else config)[key] = value
    return config

  return load
