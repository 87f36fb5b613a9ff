import collections
import os
import pathlib
import select
import signal
import subprocess
import sys
import time

import pytest

finds_processes = pytest.mark.skipif(
  not pathlib.Path('/proc').is_dir(), reason='finds processes in /proc'
)

_PARENT = """
import sys, time
from absl import flags
from vivit_mae.data import datasets, pipeline
if __name__ == '__main__':
  source = datasets.open_source('folder', sys.argv[1])
  iterator = pipeline.train_iterator(
    source, dict(num_workers=2), num_frames=2, image_size=(16, 16),
    batch_size=2, seed=0)
  next(iterator)
  if sys.argv[2] == 'close':
    iterator.close()
    import multiprocessing
    print(len(multiprocessing.active_children()), flush=True)
  else:
    try:
      print('ready', flush=True)
      time.sleep(60)
    except KeyboardInterrupt:
      next(iterator)  # the workers go on
      iterator.close()
"""


def _descendants(pid):
  """Processes below `pid`, from /proc."""
  children = collections.defaultdict(list)
  for stat in pathlib.Path('/proc').glob('[0-9]*/stat'):
    try:
      text = stat.read_text()
    except OSError:
      continue  # it ended meanwhile
    children[int(text.rsplit(')', 1)[1].split()[1])].append(
      int(stat.parent.name)
    )
  found = list(children[pid])
  for child in found:
    found += children[child]
  return found


def _start_parent(videos, tmp_path, what):
  script = tmp_path / 'parent.py'
  script.write_text(_PARENT)
  return subprocess.Popen(
    [sys.executable, str(script), str(videos), what],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    start_new_session=True,
  )


def test_only_the_parent_heeds_ctrl_c(ten_videos, tmp_path):
  # The first batch comes from the first worker: the second may be starting.
  parent = _start_parent(ten_videos, tmp_path, 'wait')
  assert parent.stdout is not None
  assert parent.stdout.readline() == 'ready\n'
  os.killpg(parent.pid, signal.SIGINT)
  output, errors = parent.communicate(timeout=60)
  assert parent.returncode == 0, errors
  assert (output, errors) == ('', '')


def _heeds_ctrl_c(pid):
  """Whether a process has SIGINT neither blocked nor ignored."""
  masks = [
    int(line.split()[1], 16)
    for line in pathlib.Path(f'/proc/{pid}/status').read_text().splitlines()
    if line.startswith(('SigBlk:', 'SigIgn:'))
  ]
  assert len(masks) == 2
  return not any(mask >> (signal.SIGINT - 1) & 1 for mask in masks)


@finds_processes
def test_a_worker_that_is_starting_does_not_heed_ctrl_c(ten_videos, tmp_path):
  parent = _start_parent(ten_videos, tmp_path, 'wait')
  assert parent.stdout is not None
  seen = set()
  try:
    while not select.select([parent.stdout], [], [], 0.01)[0]:
      for pid in _descendants(parent.pid):
        try:
          command = pathlib.Path(f'/proc/{pid}/cmdline').read_text()
          if 'spawn_main' in command:
            seen.add(pid)
            assert not _heeds_ctrl_c(pid), command
        except (FileNotFoundError, ProcessLookupError):
          continue  # it ended meanwhile
    assert parent.stdout.readline() == 'ready\n'
  finally:
    parent.kill()
    parent.communicate()
  assert len(seen) == 2


@finds_processes
def test_workers_do_not_outlive_a_killed_parent(ten_videos, tmp_path):
  parent = _start_parent(ten_videos, tmp_path, 'wait')
  assert parent.stdout is not None
  assert parent.stdout.readline() == 'ready\n'
  workers = _descendants(parent.pid)
  assert len(workers) >= 2
  os.kill(parent.pid, signal.SIGKILL)
  parent.wait()
  deadline = time.time() + 10
  alive = workers
  while alive and time.time() < deadline:
    time.sleep(0.1)
    alive = [w for w in workers if pathlib.Path(f'/proc/{w}').exists()]
  assert not alive


def test_close_stops_the_workers(ten_videos, tmp_path):
  parent = _start_parent(ten_videos, tmp_path, 'close')
  output, _ = parent.communicate(timeout=60)
  assert (parent.returncode, output) == (0, '0\n')
