import json
import logging
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from tests.training import fakes
from vivit_mae.training import monitor, sharding
from vivit_mae.training import state as state_lib


def build(workdir, **values):
  known = dict(
    start_step=0,
    total_steps=10,
    every_steps=2,
    tensorboard=False,
    clips_per_step=8,
    flops_per_clip=1e9,
  )
  return monitor.Monitor(epath.Path(workdir), **{**known, **values})


def read(workdir):
  text = (workdir / 'metrics.jsonl').read_text()
  return [json.loads(line) for line in text.splitlines()]


VALUES = {'loss': 0.5, 'learning_rate': 1e-3}


def test_reports_are_due_by_the_step_and_the_line_is_readable(tmp_path, caplog):
  caplog.set_level(logging.INFO)
  with build(tmp_path) as reports:
    for step in range(1, 6):
      reports.train(step, VALUES)
  assert [line['step'] for line in read(tmp_path)] == [2, 4]
  said = [m for m in caplog.messages if m.startswith('step')]
  assert [m.split()[1] for m in said] == ['1/10', '2/10', '4/10']
  assert said[1].startswith('step 2/10 20.0% | loss 0.5000 | lr 1.00e-03 | ')
  for part in ('clips/s', 'data wait', '%', 'ETA '):
    assert part in said[1]


def test_a_resumed_run_continues_the_file(tmp_path):
  with build(tmp_path) as reports:
    for step in (2, 4, 6):
      reports.scalars(step, {'loss': float(step)})
    reports.scalars(4, {'e/x': 1.0})
  with (tmp_path / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 8, "lo')
  with build(tmp_path, start_step=4) as reports:
    # Evaluated once more at the step that was resumed from: said already.
    reports.scalars(4, {'e/x': 1.0})
    reports.scalars(4, {'e/x': 1.0, 'e/y': 2.0})
    reports.scalars(6, {'loss': 7.0})
  assert read(tmp_path) == [
    {'step': 2, 'loss': 2.0},
    {'step': 4, 'loss': 4.0},
    {'step': 4, 'e/x': 1.0},
    {'step': 4, 'e/y': 2.0},
    {'step': 6, 'loss': 7.0},
  ]
  assert [p.name for p in tmp_path.iterdir()] == ['metrics.jsonl']


def test_rates_leave_pauses_out_and_share_waiting(tmp_path, monkeypatch):
  now = [100.0]
  monkeypatch.setattr(monitor.time, 'monotonic', lambda: now[0])
  with build(tmp_path) as reports:
    for step in (1, 2):
      with reports.waiting(lambda: False):
        now[0] += 1
      with reports.waiting(lambda: True):
        now[0] += 3  # the devices were at work meanwhile
      reports.train(step, VALUES)
      with reports.paused():
        now[0] += 100
    with reports.waiting(lambda: False):
      now[0] += 4
    reports.train(4, VALUES)
  first, second = read(tmp_path)
  assert first['clips_per_second'] == pytest.approx(8 / 4)
  assert first['data_wait'] == pytest.approx(1 / 4)
  assert second['clips_per_second'] == pytest.approx(2 * 8 / 4)
  assert second['data_wait'] == pytest.approx(1)


def test_much_waiting_is_warned_of_once_and_when_it_doubles(
  tmp_path, monkeypatch, caplog
):
  now = [100.0]
  monkeypatch.setattr(monitor.time, 'monotonic', lambda: now[0])
  warned = []
  with build(tmp_path, every_steps=1) as reports:
    # Percent of each step: the first is not judged.
    for step, share in enumerate((90, 10, 11, 22, 23, 20, 60), 1):
      with reports.waiting(lambda: False):
        now[0] += share
      now[0] += 100 - share
      reports.train(step, VALUES)
      if any('waited for data' in message for message in caplog.messages):
        warned.append(step)
        caplog.clear()
  assert warned == [3, 5, 7]


def test_mfu_is_three_forward_passes_over_the_peak(tmp_path, monkeypatch):
  now = [0.0]
  monkeypatch.setattr(monitor.time, 'monotonic', lambda: now[0])
  monkeypatch.setattr(monitor, 'peak_flops', lambda kind: 1e12)
  with build(tmp_path, flops_per_clip=1e11) as reports:
    now[0] = 1.0
    reports.train(2, VALUES)
  assert read(tmp_path)[0]['mfu'] == pytest.approx(
    16 * 3e11 / (1e12 * jax.device_count())
  )


def test_peaks_by_device():
  assert monitor.peak_flops('NVIDIA H100 80GB HBM3') == 989e12
  assert monitor.peak_flops('NVIDIA L40S') == 362e12
  assert monitor.peak_flops('TPU v5 lite') == 197e12
  assert monitor.peak_flops('TPU v5p') == 459e12
  assert monitor.peak_flops('cpu') is None


def test_tensorboard_holds_numbers_and_pictures(tmp_path):
  with build(tmp_path, tensorboard=True) as reports:
    reports.scalars(2, {'loss': 1.0})
    reports.picture(2, 'e/strip', np.zeros((8, 8, 3), np.uint8))
  (events,) = tmp_path.glob('events.out.tfevents*')
  content = events.read_bytes()
  assert b'loss' in content
  assert b'e/strip' in content


def test_memory_counts_what_lies_on_one_device():
  abstract, _ = state_lib.build(
    lambda key: {'params': {'a': jnp.zeros((16, 4)), 'b': jnp.zeros((3,))}},
    fakes.optimizer(),
    seed=0,
    mesh=sharding.make_mesh(1, 8),
    fsdp_min_bytes=0,
  )
  assert monitor.per_device_bytes(abstract.params) == 16 * 4 * 4 / 8 + 12
  assert monitor.size(0) == '0 B'
  assert monitor.size(1536) == '1.5 KiB'
  assert monitor.size(5 * 2**40) == '5.12e+03 GiB'


def test_a_terminal_gets_a_bar(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(monitor.sys.stderr, 'isatty', lambda: True, raising=False)
  with build(tmp_path) as reports:
    reports.train(2, VALUES)
  assert '2/10' in capsys.readouterr().err


def test_only_the_first_process_writes(tmp_path, monkeypatch):
  monkeypatch.setattr(monitor, 'jax', types.SimpleNamespace(**vars(jax)))
  monkeypatch.setattr(monitor.jax, 'process_index', lambda: 1)
  with build(tmp_path, tensorboard=True) as reports:
    reports.train(2, VALUES)
    reports.picture(2, 'x', np.zeros((8, 8, 3), np.uint8))
  assert list(tmp_path.iterdir()) == []
