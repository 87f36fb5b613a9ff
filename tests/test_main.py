import logging
import subprocess
import sys

import jax
import pytest
from absl.testing import flagsaver

from vivit_mae import main
from vivit_mae.training import loop

FILE = """
from vivit_mae import config as config_lib

def get_config(arg=''):
  config_lib.parse_arg(arg, runlocal=False)
  config = config_lib.defaults()
  config.total_epochs = 1
  return config
"""


@pytest.fixture
def file(tmp_path) -> str:
  path = tmp_path / 'exp.py'
  path.write_text(FILE)
  return str(path)


@pytest.fixture(autouse=True)
def keep_logging():
  handlers, level = logging.root.handlers, logging.root.level
  yield
  logging.root.handlers = handlers
  logging.root.setLevel(level)


def command(*words):
  return subprocess.run(
    [sys.executable, '-m', 'vivit_mae.main', *words],
    capture_output=True,
    text=True,
    check=False,
  )


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (['--confg=a.py'], "'confg'. Did you mean: config ?"),
    (
      ['--config={file}', '--config.mask.ratoi=0.5', '--workdir=w'],
      'unknown field config.mask.ratoi (did you mean config.mask.ratio?)',
    ),
    (
      ['--config={file}', '--workdir={w}', '--config.model.variant=Q/16x2'],
      "'Q/16x2'",
    ),
  ],
)
def test_a_mistake_is_one_line_and_status_2(file, tmp_path, words, message):
  words = [w.format(file=file, w=tmp_path / 'w') for w in words]
  ended = command(*words)
  assert ended.returncode == 2
  assert message in ended.stderr
  assert ended.stderr.startswith('error: ')
  assert len(ended.stderr.splitlines()) == 1
  assert not ended.stdout


@pytest.mark.parametrize(
  ('flags', 'words', 'message'),
  [
    ({'workdir': 'w'}, [], '--config is missing; for example: python -m'),
    ({'config': '{file}'}, [], '--workdir is missing'),
    ({'config': '{file}x', 'workdir': 'w'}, [], 'no config file'),
    ({'config': '{file}:runlocl', 'workdir': 'w'}, [], "mean 'runlocal'"),
    ({'config': '{file}', 'workdir': 'w'}, ['x'], "unexpected argument 'x'"),
    (
      {'config': '{file}', 'workdir': 'w'},
      ['--config.batch_size=many'],
      "config.batch_size must be of type int, not 'many'",
    ),
  ],
)
def test_mistakes_end_with_status_2(file, capsys, flags, words, message):
  flags = {name: value.format(file=file) for name, value in flags.items()}
  with flagsaver.flagsaver(**flags):
    assert main.main(['main', *words]) == 2
  assert message in capsys.readouterr().err
  with (
    flagsaver.flagsaver(traceback=True, **flags),
    pytest.raises(ValueError, match=r'.'),
  ):
    main.main(['main', *words])


def test_runs_the_experiment(file, tmp_path, monkeypatch):
  seen = []
  monkeypatch.setattr(
    loop, 'train_and_evaluate', lambda *args: seen.append(args)
  )
  with flagsaver.flagsaver(config=f'{file}:runlocal', workdir=str(tmp_path)):
    assert main.main(['main', '--config.mask.ratio', '0.5']) == 0
  ((config, workdir),) = seen
  assert config.mask.ratio == 0.5
  assert workdir == str(tmp_path)


@pytest.mark.parametrize(
  ('error', 'status'),
  [
    (loop.DivergedError('step 3: loss is nan'), 1),
    (ValueError('data.path holds nothing'), 2),
    (KeyboardInterrupt(), 130),
  ],
)
def test_status_says_how_it_ended(file, monkeypatch, capsys, error, status):
  def train_and_evaluate(*args):
    raise error

  monkeypatch.setattr(loop, 'train_and_evaluate', train_and_evaluate)
  with flagsaver.flagsaver(config=file, workdir='w'):
    assert main.main(['main']) == status
  assert str(error) in capsys.readouterr().err


def test_log_is_readable(capsys):
  main.set_up_logging()
  logging.getLogger('other').info('noise')
  logging.getLogger('other').warning('of %s', 'importance')
  record = logging.LogRecord(
    'x', logging.INFO, '/lib/vivit_mae/data/x.py', 1, 'ours', None, None
  )
  logging.root.handle(record)
  assert capsys.readouterr().err == 'warning: of importance\nours\n'


@pytest.mark.parametrize('told', [True, False])
def test_hosts_are_joined_by_variables_or_by_the_cluster(monkeypatch, told):
  asked = {}
  monkeypatch.setattr(jax.distributed, 'initialize', asked.update)
  monkeypatch.delenv('JAX_NUM_PROCESSES', raising=False)
  monkeypatch.delenv('JAX_PROCESS_ID', raising=False)
  if told:
    monkeypatch.setenv('JAX_NUM_PROCESSES', '4')
    monkeypatch.setenv('JAX_PROCESS_ID', '0')
  main._connect()
  expected = (4, 0) if told else (None, None)
  assert (asked['num_processes'], asked['process_id']) == expected


def test_a_variable_that_is_no_number_is_an_error(monkeypatch):
  monkeypatch.setenv('JAX_NUM_PROCESSES', 'four')
  with pytest.raises(ValueError, match=r"no cluster to join .*'four'"):
    main._connect()
