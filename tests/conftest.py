"""Eight CPU devices for every test, and the folder of shared videos."""

import os

os.environ['XLA_FLAGS'] = (
  os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=8'
)
os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import pathlib

import pytest
from absl import flags

# Grain refuses to start worker processes before the flags are parsed.
flags.FLAGS.mark_as_parsed()


@pytest.fixture(scope='session')
def shared_videos() -> pathlib.Path:
  """The folder of real and awkward videos beside the repository."""
  path = pathlib.Path(__file__).parents[2] / 'shared' / 'videos'
  if not path.is_dir():
    pytest.skip(f'the shared videos are not here: {path}')
  return path
