"""Eight CPU devices for every test, and what is made once for many."""

import os

# Most of a test's time is the compiler's: it is told to hurry.
os.environ['XLA_FLAGS'] = (
  os.environ.get('XLA_FLAGS', '')
  + ' --xla_force_host_platform_device_count=8'
  + ' --xla_backend_optimization_level=0'
  + ' --xla_llvm_disable_expensive_passes=true'
)
os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import pathlib
from collections.abc import Iterator

import jax
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


@pytest.fixture(scope='session')
def compile_once(tmp_path_factory) -> Iterator[None]:
  """Runs of the same experiment, in other processes too, compile it once."""
  names = {
    'jax_compilation_cache_dir': str(tmp_path_factory.mktemp('compiled')),
    'jax_persistent_cache_min_compile_time_secs': 0.0,
  }
  before = {name: getattr(jax.config, name) for name in names}
  with pytest.MonkeyPatch.context() as patch:
    for name, value in names.items():
      jax.config.update(name, value)
      patch.setenv(name.upper(), str(value))
    yield
  for name, value in before.items():
    jax.config.update(name, value)


@pytest.fixture(scope='session')
def _cache(tmp_path_factory) -> pathlib.Path:
  return tmp_path_factory.mktemp('cache')


@pytest.fixture
def built_in_videos(_cache, monkeypatch) -> pathlib.Path:
  """A cache of the tests' own, where the built-in videos are written once."""
  monkeypatch.setenv('VIVIT_MAE_CACHE', str(_cache))
  return _cache
