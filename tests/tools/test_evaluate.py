import json
import subprocess
import sys

import jax
import pytest
from etils import epath

from tests.data import tiny_videos
from tests.evaluation import tiny
from tests.tasks import configs
from tests.training import fakes
from vivit_mae import tasks
from vivit_mae.data import datasets
from vivit_mae.evaluation import multiview
from vivit_mae.tasks import classify, metrics
from vivit_mae.tools import evaluate
from vivit_mae.training import checkpoints, sharding
from vivit_mae.training import state as state_lib


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A workdir with checkpoints of a classifier, and its videos."""
  root = tmp_path_factory.mktemp('root')
  for split, count in (('train', 1), ('validation', 3), ('test', 2)):
    names = [f'{split}/{c}/{i}.mp4' for c in 'ab' for i in range(count)]
    tiny_videos.folder(root / 'videos', names)
  config = configs.tiny()
  config.data.update(source='folder', path=str(root / 'videos'))
  workdir = root / 'run'
  save(config, workdir)
  return workdir


def save(config, workdir, class_names=('a', 'b')):
  task = tasks.build(config, class_names=class_names)
  _, create = state_lib.build(
    task.init,
    fakes.optimizer(),
    seed=0,
    mesh=sharding.make_mesh(),
    fsdp_min_bytes=2**20,
  )
  with checkpoints.Checkpoints(workdir) as saved:
    for step in (10, 20):
      state = create()
      params = jax.tree.map(lambda x, s=step: x * (1 + s), state.params)
      saved.save(step, state.with_params(params), {'row': 0})
  (workdir / 'config.json').write_text(config.to_json_best_effort())


def command(*words):
  return evaluate.main([str(word) for word in words])


def expected(run, step, split, **fields):
  """The numbers of the evaluator itself."""
  config = evaluate.read_config(epath.Path(run))
  source = datasets.source_from(config.data.to_dict(), split)
  task = tasks.build(config, class_names=source.class_names)
  with jax.set_mesh(sharding.make_mesh()):
    variables, _ = checkpoints.load_variables(run, task.init, step)
  assert isinstance(task, classify.Classification)
  evaluator = multiview.Evaluator(
    task=task,
    source=source,
    data=config.data.to_dict(),
    put=tiny.put_on(1),
    num_devices=1,
    workdir=epath.Path('unused'),
    **fields,
  )
  return metrics.summarise(evaluator.scores(jax.device_get(variables)))


def test_prints_what_the_evaluator_says(run, tmp_path, capsys):
  views = ('--segments=2', '--crops', 1)
  assert command('--workdir', run, *views, '--out', tmp_path) == 0
  output = capsys.readouterr().out
  numbers = expected(run, 20, 'validation', segments=2, crops=1)
  title, *lines = output.splitlines()
  assert title.startswith(f'{run}, step 20: 6 videos of ')
  assert title.endswith('2 x 1 views')
  found = {' '.join(line.split()[:-1]): line.split()[-1] for line in lines}
  assert float(found['loss']) == pytest.approx(numbers['loss'], rel=1e-3)
  assert found['top-1 ' + f'{100 * numbers["top1"]:.2f}'] == '%'
  assert f'predictions are in {tmp_path}/predictions' in output
  files = {path.name for path in (tmp_path / 'predictions').iterdir()}
  assert files == {'step_00000020.csv', 'step_00000020_confusion.png'}
  assert not (run / 'predictions').exists()


def test_steps_splits_and_fields_can_be_chosen(run, tmp_path, capsys):
  words = ('--step=10', '--split=test', '--segments=1', '--crops=1')
  words = (*words, '--num_videos=3', '--predictions=parquet')
  out = ('--out', tmp_path)
  assert command('--workdir', run, *words, *out, '--config.data.stride=2') == 0
  assert 'step 10: 3 videos of ' in capsys.readouterr().out
  assert (tmp_path / 'predictions' / 'step_00000010.parquet').exists()


def test_a_config_comes_back_as_it_was(run):
  config = evaluate.read_config(epath.Path(run))
  assert config.task == 'classify'
  assert config.model.image_size == (16, 16)
  assert config.preprocess.mean == (0.485, 0.456, 0.406)
  assert config.model.num_classes is None
  assert config.classify.mix.mixup == 0.0


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (['--segmnets=3'], 'no such option: --segmnets. Did you mean --segments?'),
    (['--average=mean'], "invalid choice: 'mean'"),
    (['--step=ten'], "invalid int value: 'ten'"),
  ],
)
def test_wrong_options(run, capsys, words, message):
  with pytest.raises(SystemExit):
    command('--workdir', run, *words)
  assert message in capsys.readouterr().err


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (['--step=15'], 'step 15'),
    (['--split=tset'], 'tset'),
    (['--segments=0'], 'segments is 0'),
    (['--config.model.depth=1'], 'is of another model than the config'),
    (['--config.data.strid=2'], 'did you mean config.data.stride?'),
  ],
)
def test_mistakes_are_one_clear_line(run, capsys, words, message):
  assert command('--workdir', run, *words) == 1
  error = capsys.readouterr().err
  assert error.startswith('error: ')
  assert message in error
  assert 'Traceback' not in error


def test_folders_that_hold_no_classifier_are_refused(run, tmp_path, capsys):
  def error(workdir):
    assert command('--workdir', workdir) == 1
    return capsys.readouterr().err

  assert 'does not exist' in error(tmp_path / 'nowhere')
  assert 'has no config.json' in error(tmp_path)
  (tmp_path / 'config.json').write_text((run / 'config.json').read_text())
  assert 'holds no checkpoint' in error(tmp_path)
  (tmp_path / 'config.json').write_text(json.dumps({'task': 'mae'}))
  message = error(tmp_path)
  assert "a run of task 'mae', which tells no classes apart" in message
  assert f'--config.init_from.path={tmp_path}' in message


def test_the_table_lines_up():
  text = evaluate.table(
    {'verb_top1': 0.5, 'verb_loss': 1.25, 'joint_top5': 1.0}
  )
  assert text.splitlines() == [
    '  verb top-1     50.00 %',
    '  verb loss       1.2500',
    '  joint top-5   100.00 %',
  ]


def test_it_is_a_command():
  ended = subprocess.run(
    [sys.executable, '-m', 'vivit_mae.tools.evaluate', '--workdir=/nowhere'],
    capture_output=True,
    text=True,
    check=False,
  )
  assert ended.returncode == 1
  assert ended.stderr.startswith('error: --workdir=/nowhere does not exist')
  assert len(ended.stderr.splitlines()) == 1
