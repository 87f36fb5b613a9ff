import subprocess
import sys

import pytest

HEAVY = ('tensorflow', 'torch', 'av', 'grain', 'orbax')


@pytest.mark.parametrize('name', ['vivit_mae', 'vivit_mae.models'])
def test_importing_the_models_pulls_in_nothing_heavy(name):
  code = (
    f'import sys, {name}; print(*sorted(set({HEAVY!r}) & set(sys.modules)))'
  )
  found = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert found.stdout.split() == []


def test_the_command_is_light_until_it_trains():
  # Data workers are spawned, and import the main module again.
  code = (
    'import sys, vivit_mae.main; '
    f'print(*sorted(set({(*HEAVY, "jax")!r}) & set(sys.modules)))'
  )
  found = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert found.stdout.split() == []
