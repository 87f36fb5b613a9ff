"""The experiments' runs are possible, and what is made of their numbers."""

import importlib
import json
import pathlib

import numpy as np
import pytest

from vivit_mae import config_checks, tasks
from vivit_mae.data import encode

BENCHMARKS = pathlib.Path(__file__).parents[1] / 'benchmarks'
STAGES = [
  ('motions_config', 'pretrain'),
  ('motions_config', 'classify'),
  ('egogestar_config', 'pretrain'),
  ('egogestar_config', 'classify'),
  ('egogestar_config', 'probe'),
]


@pytest.fixture(autouse=True)
def beside_the_scripts(monkeypatch):
  monkeypatch.syspath_prepend(str(BENCHMARKS))


def config_of(module, stage):
  return importlib.import_module(module).get_config(stage)


@pytest.mark.parametrize(('module', 'stage'), STAGES)
def test_the_runs_can_be_built(module, stage):
  config = config_of(module, stage)
  config_checks.check(config)
  tasks.build(config, class_names=('a', 'b'))


@pytest.mark.parametrize('module', ['motions_config', 'egogestar_config'])
def test_the_classifier_has_the_pretrained_encoder(module):
  models = [config_of(module, s).model for s in ('pretrain', 'classify')]
  for field in ('variant', 'num_frames', 'image_size', 'width', 'depth'):
    assert models[0][field] == models[1][field]


def test_both_experiments_have_one_encoder():
  models = [
    config_of(module, 'pretrain').model
    for module in ('motions_config', 'egogestar_config')
  ]
  for field in ('variant', 'image_size', 'width', 'depth', 'heads', 'mlp_dim'):
    assert models[0][field] == models[1][field]


def test_regression_tells_place_and_time_from_nothing(tmp_path):
  regressions = importlib.import_module('egogestar_regressions')
  rng = np.random.default_rng(0)
  rows = []
  for i in range(60):
    # Something flickers on the left or the right, early or late.
    right, late = i % 2, i // 2 % 2
    frames = np.full((16, 24, 24, 3), 128, np.uint8)
    columns = slice(12 + 2, 22) if right else slice(2, 10)
    for t in range(8 * late, 8 * late + 8):
      frames[t, 4:20, columns] = rng.integers(0, 256)
    encode.write_video(tmp_path / f'{i}.mp4', list(frames), 10, crf=12)
    split = 'train' if i < 40 else 'test'
    rows.append({'path': f'{i}.mp4', 'label': f'{right}{late}', 'split': split})
  numbers = regressions.by_eye(rows, tmp_path)
  assert numbers['chance'] == 0.25
  assert numbers['motion energy 24x24, time and place'] > 0.9
  assert numbers['motion energy 24x24, time'] < 0.8
  assert numbers['motion energy 24x24, no time, no place'] < 0.6


def test_a_finished_run_is_not_run_again(tmp_path, capsys):
  experiments = importlib.import_module('experiments')
  run = experiments.Run('done', 'no_such_config.py', {'seed': 1})
  assert run.command(tmp_path)[-2:] == [
    f'--workdir={tmp_path / "done"}',
    '--config.seed=1',
  ]
  (tmp_path / 'done').mkdir()
  (tmp_path / 'done' / 'outcome.json').write_text(json.dumps({'a/b': 0.5}))
  assert experiments.run_all([run], tmp_path, 1) == {'done': {'a/b': 0.5}}
  assert capsys.readouterr().out == 'done: a/b 0.5\n'


def test_a_failed_run_names_its_log(tmp_path):
  experiments = importlib.import_module('experiments')
  run = experiments.Run('failed', 'no_such_config.py', {})
  with pytest.raises(SystemExit, match=r'failed/log\.txt'):
    experiments.run_all([run], tmp_path, 1)
  assert 'no_such_config.py' in (tmp_path / 'failed' / 'log.txt').read_text()


def test_the_interval_is_students():
  experiments = importlib.import_module('experiments')
  mean, half = experiments.interval([0.1, 0.2, 0.3])
  # t(0.975, 2) = 4.3027; the standard error is 0.1 / sqrt(3).
  np.testing.assert_allclose([mean, half], [0.2, 0.24841], rtol=1e-4)
  assert experiments.percent([0.1, 0.2, 0.3]) == '20.0 ± 24.8'
  assert experiments.percent([0.1]) == '10.0'
