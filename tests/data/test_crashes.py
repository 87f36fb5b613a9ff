"""Workers that end in the middle of a video are replaced, and the video too."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
from typing import Any

import pytest

from tests.data import streams
from tests.data.streams import Broken, Deadly, Stuck, assert_same, take, train
from vivit_mae.data import video, workers

# More of two bad videos in ten are borne with.
_DATA: dict[str, Any] = dict(batch_size=2, repeats=1, max_bad_fraction=0.5)


class _Killed(Deadly):
  signal = signal.SIGKILL


@pytest.mark.slow
def test_a_crash_costs_one_video_and_the_stream_stays(ten, caplog):
  iterator = train(Deadly(ten, 3), num_workers=2, **_DATA)
  batches = take(iterator, 10)  # two epochs
  assert_same(batches, take(train(Broken(ten, 3), **_DATA), 10))
  assert iterator.get_state() == {'row': 20}
  ((name, reason),) = iterator.bad
  assert name == f'video 3 of {ten.name}'
  assert reason == f'{name}: crashed (reading it ends its process: SIGSEGV)'
  assert caplog.text.count('the workers start again without') == 1
  iterator.close()
  assert not multiprocessing.active_children()


def test_a_stuck_video_is_given_up(ten):
  iterator = train(Stuck(ten, 3), num_workers=1, video_timeout=0.5, **_DATA)
  assert_same(take(iterator, 5), take(train(Broken(ten, 3), **_DATA), 5))
  ((_, reason),) = iterator.bad
  assert 'timeout' in reason
  assert 'over 0.5 s' in reason


def test_an_evaluation_goes_on_and_who_is_killed_is_spared_once(ten, caplog):
  batches = streams.evaluate(_Killed(ten, 3), num_workers=1)
  assert_same(batches, streams.evaluate(Broken(ten, 3)))
  assert [batch['valid'].sum() for batch in batches] == [3, 4, 2]
  spared, blamed, counted = caplog.messages[:3]
  assert spared == 'A data worker has ended (SIGKILL) and starts again'
  assert 'start again without video 3' in blamed
  assert counted.endswith('SIGKILL)')


def test_deaths_that_nothing_explains_stop_the_run():
  blame = workers.Blame('here', timeout=60)
  idle = workers.Death(-signal.SIGKILL, 0.0, (workers.Entry(7),))
  for _ in range(3):
    blame.add(idle)
  with pytest.raises(workers.WorkersError, match=r'4 times .* by SIGKILL'):
    blame.add(idle)
  assert not blame.videos


def test_deaths_are_forgotten_when_all_goes_well():
  blame = workers.Blame('here', timeout=60)
  idle = workers.Death(1, 0.0, (workers.Entry(7),))
  for _ in range(6):
    blame.add(idle)
    for _ in range(100):
      blame.calm()


def test_a_worker_that_never_starts_stops_the_run_at_once():
  with pytest.raises(workers.WorkersError, match=r"if __name__ == '__main__'"):
    workers.Blame('here', timeout=60).add(workers.Death(1, 0.0, ()))


def test_a_video_that_was_blamed_explains_nothing_more():
  blame = workers.Blame('here', timeout=60)
  death = workers.Death(-signal.SIGSEGV, 0.0, (workers.Entry(7, 2),))
  for _ in range(4):
    blame.add(death)
  assert str(blame.videos[2]).startswith('video 2 of here: crashed')
  with pytest.raises(workers.WorkersError):
    blame.add(death)


@pytest.mark.parametrize(
  ('code', 'took', 'kind'),
  [(1, 61, 'timeout'), (1, 59, 'crashed'), (-11, 61, 'crashed')],
)
def test_only_what_took_long_has_timed_out(code, took, kind):
  blame = workers.Blame('here', timeout=60)
  entry = workers.Entry(7, 2, 1000.0, 'a.mp4')
  blame.add(workers.Death(code, 1000.0 + took, (entry,)))
  assert blame.videos[2].kind == kind
  assert kind in video.KINDS


def test_who_forgets_to_close_leaves_nothing(ten_videos):
  """Neither workers nor memory, of which Python would warn."""
  script = (
    'from vivit_mae.data import datasets, pipeline\n'
    "if __name__ == '__main__':\n"
    f"  source = datasets.open_source('folder', {str(ten_videos)!r})\n"
    '  iterator = pipeline.train_iterator(source, dict(num_workers=1),\n'
    '    num_frames=2, image_size=(16, 16), batch_size=2, seed=0)\n'
    '  next(iterator)\n'
  )
  ended = subprocess.run(
    [sys.executable, '-c', script], capture_output=True, text=True, check=False
  )
  assert (ended.returncode, ended.stderr) == (0, '')


def test_a_board_tells_what_was_put_on_it():
  board = workers.Board(3)
  try:
    assert board.entries() == [workers.Entry()] * 3
    board.put(1, workers.Entry(17, 4, 2.5, 'ä' * 200))
    _, entry, _ = board.entries()
    assert (entry.process, entry.index, entry.since) == (17, 4, 2.5)
    assert entry.name.startswith('ä' * 127)
  finally:
    board.close()


@pytest.mark.skipif(
  not os.path.exists('/proc/self/statm'), reason='memory is read from /proc'
)
def test_memory_is_said_once(ten, caplog):
  caplog.set_level('INFO')
  iterator = train(ten, batch_size=2, num_workers=1)
  take(iterator, 14)
  (said,) = [m for m in caplog.messages if m.startswith('data: ')]
  assert re.match(r'data: 1 x \d+ MB in workers, \d+ MB here; ', said)
  assert 'up to 3 batches ahead' in said
  used = workers.memory(os.getpid())
  assert used is not None
  assert 1e7 < used < 1e11
  assert workers.memory(2**31 - 7) is None
