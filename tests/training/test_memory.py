import subprocess
import sys

import pytest

# Steps that each need 64 MiB anew, and the page faults of the last of them.
_SCRIPT = """
import resource
import sys

import jax
import jax.numpy as jnp

from vivit_mae.training import memory

if sys.argv[1] == 'keep':
  assert memory.keep_freed()
x = jnp.ones((4096, 4096))
step = jax.jit(lambda x: jnp.sum(jnp.sort(x.T + x, axis=0)))
for _ in range(8):
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  step(x).block_until_ready()
  faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults)
"""


def _faults(mode):
  command = [sys.executable, '-c', _SCRIPT, mode]
  environment = {'JAX_PLATFORMS': 'cpu', 'PATH': '/usr/bin:/bin'}
  done = subprocess.run(
    command, env=environment, capture_output=True, text=True, check=True
  )
  return int(done.stdout)


@pytest.mark.skipif(
  not sys.platform.startswith('linux'), reason='only glibc is told'
)
def test_steps_no_longer_fetch_their_memory_from_the_kernel():
  usual, kept = _faults('default'), _faults('keep')
  assert usual > 10_000
  assert kept < usual / 4
