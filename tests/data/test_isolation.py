import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from vivit_mae.data import isolation


def _act(job):
  """Does as it is told."""
  match job:
    case 'kill':
      os.kill(os.getpid(), signal.SIGKILL)
    case 'exit':
      os._exit(3)
    case 'hang':
      time.sleep(60)
    case 'raise':
      raise KeyError('x')
  return job, os.getpid()


@pytest.mark.parametrize('num_workers', [1, 2])
def test_what_fails_is_named_and_the_rest_is_done(num_workers):
  jobs = ['a', 'kill', 'b', 'hang', 'raise', 'c', 'exit', 'd']
  taken = []

  def hand_out():
    for job in jobs:
      taken.append(job)
      yield job

  with isolation.Pool(_act, num_workers, timeout=0.2) as pool:
    steps = []
    for number, result in pool.run(hand_out()):
      steps.append(len(taken))
      match jobs[number]:
        case 'kill':
          assert result == isolation.Failure(
            'crashed', 'its process was ended by SIGKILL'
          )
        case 'exit':
          assert result == isolation.Failure(
            'crashed', 'its process ended with exit status 3'
          )
        case 'hang':
          assert result == isolation.Failure('timeout', 'not done within 0.2 s')
        case 'raise':
          assert result == isolation.Failure('crashed', "KeyError: 'x'")
        case job:
          assert result[0] == job
          assert result[1] != os.getpid()
    processes = [worker.process for worker in pool._workers]
  assert len(steps) == len(taken) == len(jobs)
  # Jobs are taken as there is room, not all at once.
  assert steps[0] <= num_workers
  assert len(processes) <= num_workers
  for process in processes:
    with pytest.raises(ValueError, match='closed'):
      process.is_alive()


def test_workers_serve_again_and_none_is_started_for_nothing():
  with isolation.Pool(_act, 3, timeout=60) as pool:
    assert list(pool.run([])) == []
    assert pool._workers == []
    ((_, (_, first)),) = pool.run(['a'])
    ((_, (_, second)),) = pool.run(['b'])
    assert first == second


def test_no_job_is_to_blame_for_a_worker_that_does_not_start(capfd):
  with (
    isolation.Pool(_Unloadable(), 1, timeout=60) as pool,
    pytest.raises(RuntimeError, match='before it began to work'),
  ):
    list(pool.run(['a']))
  assert 'not to be loaded' in capfd.readouterr().err


class _Unloadable:
  """A function that no process can load."""

  def __call__(self, job):
    raise AssertionError(job)

  def __reduce__(self):
    return _refuse, ()


def _refuse():
  raise ImportError('not to be loaded')


_PARENT = """
import sys, time
from tests.data import test_isolation
from vivit_mae.data import isolation
if __name__ == '__main__':
  with isolation.Pool(test_isolation._act, 1, 60) as pool:
    for _, (_, process) in pool.run(['a']):
      print(process, flush=True)
    list(pool.run(['hang']))
"""


@pytest.mark.skipif(
  not pathlib.Path('/proc').is_dir(), reason='finds processes in /proc'
)
def test_no_worker_outlives_its_parent():
  command = [sys.executable, '-c', _PARENT]
  with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    parent.kill()
  for _ in range(600):
    try:
      state = pathlib.Path(f'/proc/{worker}/stat').read_text().split()[2]
    except OSError:
      return
    if state == 'Z':  # dead, and nobody asked how
      return
    time.sleep(0.05)
  raise AssertionError('The worker lives on.')


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [((0, 1), 'There are 0 workers'), ((1, 0.0), 'The time limit is 0.0 s')],
)
def test_impossible_arguments(arguments, message):
  with pytest.raises(ValueError, match=message):
    isolation.Pool(_act, *arguments)
