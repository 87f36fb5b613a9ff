"""Two hosts see what one host sees, learn the same, and one can go on."""

import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest

_STEPS = 6  # two epochs of twelve videos


def _free_port() -> int:
  with socket.socket() as found:
    found.bind(('localhost', 0))
    return found.getsockname()[1]


def _run(experiment, workdir, hosts, **fields):
  """Starts all hosts of a run and returns what each reports."""
  fields = dict(batch_size=4, total_steps=_STEPS) | fields
  address = f'localhost:{_free_port()}'
  processes, reports = [], []
  for host in range(hosts):
    reports.append(workdir.with_name(f'{workdir.name}-{hosts}-{host}.npz'))
    env = {}
    if hosts > 1:
      env = dict(
        JAX_COORDINATOR_ADDRESS=address,
        JAX_NUM_PROCESSES=str(hosts),
        JAX_PROCESS_ID=str(host),
      )
    processes.append(
      subprocess.Popen(
        [
          *(sys.executable, '-m', 'tests.training.hosts', str(reports[-1])),
          *(f'--config={experiment}', f'--workdir={workdir}'),
          *(['--multihost'] if hosts > 1 else []),
          *(f'--config.{name}={value}' for name, value in fields.items()),
        ],
        cwd=pathlib.Path(__file__).parents[2],
        env=os.environ | env,
        stderr=subprocess.PIPE,
        text=True,
      )
    )
  for process in processes:
    _, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors
  return [dict(np.load(report)) for report in reports]


@pytest.mark.slow
def test_two_hosts_see_each_video_once_in_an_epoch(experiment, tmp_path):
  """They are processes joined by JAX; what they save, a single one goes on."""
  hosts = _run(experiment, tmp_path / 'two', 2)
  (alone,) = _run(experiment, tmp_path / 'one', 1)
  first, second = hosts
  assert first['steps'].tolist() == list(range(1, _STEPS + 1))
  np.testing.assert_array_equal(first['losses'], second['losses'])
  np.testing.assert_allclose(first['losses'], alone['losses'], rtol=1e-4)
  both = np.concatenate([host['videos'] for host in hosts], axis=1)
  for epoch in np.split(both, 2):
    assert sorted(epoch.ravel()) == list(range(12))
  np.testing.assert_array_equal(both, alone['videos'])
  # From the checkpoint of the second last step, with one host.
  saved = tmp_path / 'two' / 'checkpoints' / str(_STEPS - 2)
  (rest,) = _run(experiment, tmp_path / 'rest', 1, resume=saved)
  assert rest['steps'].tolist() == [_STEPS - 1, _STEPS]
  np.testing.assert_allclose(rest['losses'], alone['losses'][-2:], rtol=1e-4)
  np.testing.assert_array_equal(rest['videos'], both[-2:])
