import ast
import math
import pathlib
import re
import shlex

import jax
import pytest

from vivit_mae import command, config_checks, tasks
from vivit_mae.tools import dataset
from vivit_mae.training import loop

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted((ROOT / 'configs').glob('*.py'))

# Parameters, counted on the published models.
PARAMETERS = {
  'S': 24_029_376, 'B': 94_210_944, 'L': 342_996_992, 'H': 692_487_296
}  # fmt: skip

# What the authors' scripts say (HMDB51: the paper's appendix): epochs, batch,
# mask ratio, depth of the decoder, stride, learning rate for 256 videos.
RECIPES = {
  ('k400_mae', 'S'): (1601, 1024, 0.9, 4, 4, 1.5e-4),
  ('k400_mae', 'B'): (1601, 2048, 0.9, 4, 4, 1.5e-4),
  ('k400_mae', 'L'): (1601, 512, 0.9, 12, 4, 1.5e-4),
  ('k400_mae', 'H'): (1601, 1024, 0.9, 12, 4, 1.5e-4),
  ('ssv2_mae', 'S'): (2401, 2048, 0.9, 4, 2, 1.5e-4),
  ('ssv2_mae', 'B'): (2401, 2048, 0.9, 4, 2, 1.5e-4),
  ('ucf101_mae', 'B'): (3201, 192, 0.75, 4, 4, 3e-4),
  ('hmdb51_mae', 'B'): (4800, 192, 0.75, 4, 2, 3e-4),
}


def load(name, arg='', overrides=()):
  return command.load(f'{ROOT / "configs" / name}.py:{arg}', overrides)


def docstring(path):
  return ast.get_docstring(ast.parse(path.read_text())) or ''


def arguments(path):
  """What may follow the colon, as the file itself says."""
  with pytest.raises(ValueError, match=r'known: ') as error:
    load(path.stem, 'no_such_argument')
  return str(error.value).partition('known: ')[2].split(', ')


CASES = [(path.stem, arg) for path in FILES for arg in ['', *arguments(path)]]


def test_the_configs_are_here():
  assert {path.stem for path in FILES} >= {
    'demo', 'own_videos_mae', *(name for name, _ in RECIPES)
  }  # fmt: skip


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_docstring_tells_the_arguments_and_commands_that_work(path):
  text = docstring(path)
  assert set(re.findall(r'`:(\w+)`', text)) == set(arguments(path))
  lines = text.replace('\\\n', ' ').splitlines()
  commands = [line for line in lines if line.startswith('  python -m ')]
  mains = [line for line in commands if ' vivit_mae.main ' in line]
  assert mains
  for line in mains:
    others, overrides = command.split_argv(shlex.split(line)[3:])
    assert others[0] == f'--config=configs/{path.stem}.py'
    assert [word.partition('=')[0] for word in others[1:]] == ['--workdir']
    load(path.stem, '', overrides)
  parser = dataset._build_parser()
  for line in set(commands) - set(mains):
    words = shlex.split(line)
    assert words[2] == 'vivit_mae.tools.dataset'
    parser.parse_args(words[3:])


@pytest.mark.parametrize(('name', 'arg'), CASES)
def test_builds_and_its_model_has_shapes(name, arg):
  config = load(name, arg)
  config_checks.check(config)
  task = tasks.build(config)
  variables = jax.eval_shape(task.init, jax.random.key(0))
  count = sum(math.prod(x.shape) for x in jax.tree.leaves(variables))
  size = config.model.variant.split('/')[0]
  published = name in ('k400_mae', 'ssv2_mae') or size in ('S', 'B')
  if published and config.model.width is None:
    assert count == PARAMETERS[size]
  else:
    assert count > 0
  assert task.flops_per_clip() > 0


@pytest.mark.parametrize(('name', 'arg'), RECIPES)
def test_published_recipe(name, arg):
  epochs, batch, ratio, decoder_depth, stride, rate = RECIPES[name, arg]
  config = load(name, arg)
  assert config.total_epochs == epochs
  assert config.total_steps is None
  assert config.batch_size == batch
  assert config.accum_steps == 1
  assert (config.mask.kind, config.mask.ratio) == ('tube', ratio)
  task = tasks.build(config)
  model = getattr(task, 'model')  # noqa: B009 - a protocol's model is any
  assert model.decoder_depth == decoder_depth
  assert (model.num_frames, model.image_size) == (16, (224, 224))
  assert model.tubelet == (2, 16, 16)
  assert model.grid == (8, 14, 14)
  assert (model.drop_path, model.layer_scale) == (0, 0)
  assert config.model.variant == f'{arg}/16x2'
  data = config.data
  assert (data.stride, data.crop, data.flip) == (stride, 'multi_scale', False)
  assert data.repeats == 1
  target = config.target
  assert (target.normalise, target.frames) == ('channel', 'all')
  optimizer = config.optimizer
  assert (optimizer.learning_rate, optimizer.lr_base) == (rate, 256)
  assert optimizer.lr_scales_with == 'videos'
  assert (optimizer.name, optimizer.schedule) == ('adamw', 'cosine')
  assert (optimizer.b1, optimizer.b2, optimizer.eps) == (0.9, 0.95, 1e-8)
  assert (optimizer.weight_decay, optimizer.weight_decay_end) == (0.05, None)
  assert optimizer.min_learning_rate == 1e-5
  assert (optimizer.warmup_epochs, optimizer.warmup_steps) == (40, None)
  assert optimizer.clip_norm is None
  assert config.preprocess.mean == (0.485, 0.456, 0.406)
  assert config.preprocess.std == (0.229, 0.224, 0.225)
  assert config.model.remat == ('full' if arg == 'H' else 'none')


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
@pytest.mark.slow
@pytest.mark.usefixtures('compile_once')
def test_one_local_step_runs_to_its_end(path, built_in_videos, tmp_path):
  config = load(path.stem, 'runlocal', [('total_steps', '1')])
  state = loop.train_and_evaluate(config, tmp_path)
  assert int(state.step) == 1
  assert (tmp_path / 'checkpoints' / '1').is_dir()
  assert list((tmp_path / 'reconstructions' / 'step_00000001').glob('*.png'))
  (report,) = re.findall(
    r'"loss": ([\d.]+)', (tmp_path / 'metrics.jsonl').read_text()
  )
  assert 0 < float(report) < 10
  assert len(list(built_in_videos.iterdir())) == 1
