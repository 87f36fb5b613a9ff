import importlib
import pathlib
import re
import shlex
import subprocess

import jax
import jax.numpy as jnp
import pytest

from vivit_mae import command
from vivit_mae.tools import dataset, dataset_show

ROOT = pathlib.Path(__file__).parents[1]
README = ROOT / 'README.md'
PAGES = [README, ROOT / 'CONTRIBUTING.md', *sorted(ROOT.glob('docs/*.md'))]
IDS = [path.stem for path in PAGES]


def blocks(path, language):
  return re.findall(
    rf'^```{language}\n(.*?)^```', path.read_text(), re.DOTALL | re.MULTILINE
  )


def commands(path):
  """The lines of the shell blocks, continued ones joined, `&&` split."""
  for block in blocks(path, 'bash'):
    for line in block.replace('\\\n', ' ').splitlines():
      yield from (part.strip() for part in line.split('&&') if part.strip())


def test_the_python_block_does_what_it_says():
  (block,) = blocks(README, 'python')
  shapes = jax.eval_shape(lambda: run(block))
  said = re.findall(r'# (\(\d.*?\))', block)
  assert said == [str(tuple(each.shape)) for each in shapes]


def test_the_python_block_runs():
  (block,) = blocks(README, 'python')
  smaller = {"'B/16x2'": "'Ti/16x2', depth=1, decoder_depth=1", '224': '32'}
  for word, small in smaller.items():
    assert word in block
    block = block.replace(word, small)
  prediction, features = jax.jit(lambda: run(block))()
  # 8 x 2 x 2 tokens, of which three in four are masked.
  assert prediction.shape == (2, 24, 1536)
  assert features.shape == (2, 32, 192)
  assert jnp.isfinite(prediction).all()
  assert jnp.isfinite(features).all()


def run(block):
  scope = {}
  exec(block, scope)
  return scope['output'].prediction, scope['features']


@pytest.mark.parametrize('path', PAGES, ids=IDS)
def test_links_lead_somewhere(path):
  text = path.read_text()
  links = re.findall(r'\]\(([^)\s]+)\)', text)
  missing = [
    link
    for link in links
    if not re.match(r'https?://|#|mailto:', link)
    and not (path.parent / link.partition('#')[0]).exists()
  ]
  assert not missing


@pytest.mark.parametrize('path', PAGES, ids=IDS)
def test_what_is_named_exists(path):
  text = path.read_text()
  for module in re.findall(r'python3? -m (vivit_mae[\w.]*)', text):
    importlib.import_module(module)
  named = re.findall(
    r'(?<![/\w])((?:configs|benchmarks|notebooks|docs|tests)/[\w/]+\.\w+)', text
  )
  assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize('path', PAGES, ids=IDS)
def test_commands_are_understood(path, monkeypatch):
  monkeypatch.chdir(ROOT)
  parser = dataset._build_parser()
  for line in commands(path):
    words = shlex.split(line, comments=True)
    if words[:3] == ['python', '-m', 'vivit_mae.main']:
      others, overrides = command.split_argv(words[3:])
      flags = dict(word.lstrip('-').split('=', 1) for word in others)
      assert flags.keys() == {'config', 'workdir'}
      command.load(flags['config'], overrides)
    elif words[:3] == ['python', '-m', 'vivit_mae.tools.dataset']:
      others, overrides = command.split_argv(words[3:])
      parsed = parser.parse_args(others)
      if overrides:
        dataset_show.read_config(parsed.config, overrides)


def test_configs_in_tables_take_their_arguments(monkeypatch):
  monkeypatch.chdir(ROOT)
  found = re.findall(r'`(configs/\w+\.py)((?::\w+)?)`((?: `:\w+`)*)', text())
  assert found
  for file, arg, more in found:
    for each in [arg, *re.findall(r':\w+', more)]:
      command.load(file + each)


def text():
  return ''.join(path.read_text() for path in PAGES)


def test_settings_in_prose_are_fields():
  settings = re.findall(r'`--config\.([\w.]+)=(\S+?)`', text())
  assert settings
  for field, value in settings:
    if (field, value) == ('field', 'value'):
      continue  # stands for all of them
    config = command.load(str(ROOT / 'configs' / 'own_videos_mae.py'))
    command.override(config, field, value)


def test_ci_runs_the_test_command_of_the_readme(tmp_path):
  """In a copy where the command is a harmless one, and with no README."""
  ci = tmp_path / '.ci'
  ci.mkdir()
  script = (ROOT / '.ci' / 'run').read_text()
  (ci / 'run').write_text(script)
  after = README.read_text().partition('<!-- tests -->')[2]
  block = re.match(r'\n```bash\n(.*?)```', after, re.DOTALL)
  assert block
  assert block[1].rstrip().endswith('pytest -n 2')
  for word in ('ruff check', 'ruff format --check', 'pyright', 'lint-imports'):
    assert word in block[1]
  assert "'.[test]'" in block[1]

  def run(content):
    (tmp_path / 'README.md').write_text(content)
    return subprocess.run(
      ['bash', str(ci / 'run')], capture_output=True, text=True, check=False
    )

  fenced = '```bash\n{}\n```\n'
  page = (
    fenced.format('echo wrong')
    + '<!-- tests -->\n'
    + fenced.format('echo right && \\\npwd && false\necho not here')
    + fenced.format('echo later')
  )
  ended = run(page)
  assert ended.returncode == 1
  assert ended.stdout.splitlines()[-2:] == ['right', str(tmp_path)]
  assert run(page.replace('false', 'true')).stdout.endswith('not here\n')
  ended = run('nothing')
  assert (ended.returncode, ended.stdout) == (
    1,
    'README.md has no test command\n',
  )
