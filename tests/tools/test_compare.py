import json

import pytest

from vivit_mae.tools import compare


def make_run(workdir, config, lines):
  workdir.mkdir(parents=True)
  (workdir / 'config.json').write_text(json.dumps(config))
  text = ''.join(json.dumps(line) + '\n' for line in lines)
  (workdir / 'metrics.jsonl').write_text(text)
  return str(workdir)


@pytest.fixture
def runs(tmp_path):
  def config(path, rate):
    return {
      'task': 'classify',
      'init_from': {'path': path},
      'optimizer': {'learning_rate': rate, 'freeze': []},
      'log': {'every_steps': 5 if path else 10},
    }

  scratch = make_run(
    tmp_path / 'scratch',
    config('', 1e-3),
    [
      {'step': 10, 'loss': 2.5},
      {'step': 10, 'accuracy/top1': 0.1},
      {'step': 20, 'loss': 2.25, 'learning_rate': 0.0},
      {'step': 20, 'accuracy/top1': 0.125},
    ],
  )
  pretrained = make_run(
    tmp_path / 'pretrained',
    config('/runs/mae', 5e-4),
    [{'step': 20, 'loss': 0.5}, {'step': 20, 'accuracy/top1': 0.75}],
  )
  return scratch, pretrained


def test_runs_stand_side_by_side(runs, capsys):
  assert compare.main(list(runs)) == 0
  rows = [line.split() for line in capsys.readouterr().out.splitlines()]
  assert rows == [
    ['scratch', 'pretrained'],
    ['init_from.path', '-', '/runs/mae'],
    ['optimizer.learning_rate', '0.001', '0.0005'],
    ['step', '20', '20'],
    ['loss', '2.25', '0.5'],
    ['accuracy/top1', '0.125', '0.75'],
  ]


def test_columns_line_up(runs):
  lines = compare.compare(runs).splitlines()
  assert len({len(line) for line in lines}) == 1


def test_a_number_or_field_that_one_run_lacks_is_a_dash(runs, tmp_path):
  other = make_run(
    tmp_path / 'other', {'task': 'mae'}, [{'step': 3, 'knn/top1': 0.5}]
  )
  rows = [line.split() for line in compare.compare([*runs, other]).splitlines()]
  assert ['task', 'classify', 'classify', 'mae'] in rows
  assert ['knn/top1', '-', '-', '0.5'] in rows


def test_runs_of_one_name_are_told_apart_by_their_paths(tmp_path):
  runs = [
    make_run(tmp_path / x / 'run', {'seed': 0}, [{'step': 1}]) for x in 'ab'
  ]
  assert compare.compare(runs).splitlines()[0].split() == runs


def test_a_line_cut_short_by_a_crash_is_left_out(runs):
  with open(f'{runs[0]}/metrics.jsonl', 'a') as file:
    file.write('{"step": 30, "lo')
  assert compare.last_numbers(runs[0])['step'] == 20


@pytest.mark.parametrize(
  ('name', 'expected'),
  [('', 'has no config.json'), ('nowhere', 'does not exist')],
)
def test_a_folder_without_a_run_is_named(tmp_path, capsys, name, expected):
  folder = tmp_path / name
  assert compare.main([str(folder)]) == 1
  assert f'error: {folder} {expected}' in capsys.readouterr().err
