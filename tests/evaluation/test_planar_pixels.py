"""Whole runs whose clips travel as planes, evaluation included."""

import json
import pathlib

import pytest

from vivit_mae import command
from vivit_mae.training import loop

_CONFIGS = pathlib.Path(__file__).parents[2] / 'configs'


@pytest.mark.parametrize(
  ('name', 'reported'),
  [('demo', 'reconstruction/psnr'), ('demo_finetune', 'accuracy/top1')],
)
@pytest.mark.slow
@pytest.mark.usefixtures('compile_once', 'built_in_videos')
def test_a_run_ends_with_its_evaluation(name, reported, tmp_path):
  arguments = 'runlocal' if name == 'demo' else 'scratch,runlocal'
  config = command.load(
    f'{_CONFIGS / name}.py:{arguments}',
    [('total_steps', '1'), ('data.pixels', 'yuv420')],
  )
  loop.train_and_evaluate(config, tmp_path)
  lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  assert any(reported in json.loads(line) for line in lines)
