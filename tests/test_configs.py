import ast
import math
import pathlib
import re
import shlex

import jax
import pytest

from vivit_mae import command, config_checks, tasks
from vivit_mae.models import variants
from vivit_mae.tasks import classify
from vivit_mae.tools import dataset
from vivit_mae.training import loop, naming, transfer
from vivit_mae.training import optimizer as optimizer_lib

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

# Parameters of the classifiers of 400 classes, counted on the published models.
FINETUNE_PARAMETERS = {
  'S': 22_033_936, 'B': 86_534_800, 'L': 304_270_736, 'H': 632_119_440
}  # fmt: skip
VIVIT_PARAMETERS = {
  'k400_vivit_b': 88_954_000,
  'k400_vivit_b_fe': 115_062_928,
  'k400_vivit_l_fe': 606_827_920,
  'k400_vivit_b_fsa': 117_319_312,
  'k400_vivit_b_fdp': 88_952_464,
}

# What the authors' scripts say (HMDB51: the paper's appendix, else as UCF101):
# epochs, batch, learning rate for 256 videos, its minimum, layer decay, drop
# path, dropout before the head; sampling, stride, flip, places in time of test.
FINETUNES = {
  ('k400_finetune', 'S'): (
    (150, 384, 5e-4, 1e-6, 0.75, 0.1, 0.0),
    ('dense', 4, True, 5),
  ),
  ('k400_finetune', 'B'): (
    (75, 384, 5e-4, 1e-6, 0.75, 0.1, 0.0),
    ('dense', 4, True, 5),
  ),
  ('k400_finetune', 'L'): (
    (35, 128, 2e-3, 1e-6, 0.75, 0.1, 0.0),
    ('dense', 4, True, 5),
  ),
  ('k400_finetune', 'H'): (
    (50, 512, 1e-3, 1e-5, 0.75, 0.2, 0.5),
    ('dense', 4, True, 5),
  ),
  ('ssv2_finetune', 'S'): (
    (40, 384, 1e-3, 1e-6, 0.7, 0.1, 0.0),
    ('segments', 4, False, 2),
  ),
  ('ssv2_finetune', 'B'): (
    (30, 384, 5e-4, 1e-6, 0.75, 0.1, 0.0),
    ('segments', 4, False, 2),
  ),
  ('ucf101_finetune', ''): (
    (100, 128, 5e-4, 1e-5, 0.7, 0.2, 0.5),
    ('dense', 4, True, 5),
  ),
  ('hmdb51_finetune', ''): (
    (50, 128, 1e-3, 1e-5, 0.7, 0.2, 0.5),
    ('dense', 2, True, 10),
  ),
}

# What Scenic's configs say, the two models without one as the first: size,
# factorisation, blocks over time (0: no such), epochs, rate, stride, side of
# the clip and of the frame; drop path, smoothing, mixup, crops of test.
VIVITS = {
  'k400_vivit_b': (
    ('B', 'none', 0, 30, 0.1, 2, 224, 256),
    (0.0, 0.0, 0.0, 3),
  ),
  'k400_vivit_b_fe': (
    ('B', 'encoder', 4, 30, 0.05, 2, 224, 256),
    (0.0, 0.0, 0.0, 3),
  ),
  'k400_vivit_l_fe': (
    ('L', 'encoder', 24, 30, 0.1, 2, 224, 256),
    (0.0, 0.0, 0.0, 3),
  ),
  'k400_vivit_b_fsa': (
    ('B', 'self_attention', 0, 30, 0.1, 2, 224, 256),
    (0.0, 0.0, 0.0, 3),
  ),
  'k400_vivit_b_fdp': (
    ('B', 'dot_product', 0, 30, 0.1, 2, 224, 256),
    (0.0, 0.0, 0.0, 3),
  ),
  'ssv2_vivit_l_fe': (
    ('L', 'encoder', 4, 35, 0.4, 1, 256, 288),
    (0.3, 0.3, 0.3, 3),
  ),
  'epic_kitchens_vivit_l_fe': (
    ('L', 'encoder', 4, 50, 0.5, 1, 224, 256),
    (0.2, 0.2, 0.1, 1),
  ),
}

PROBES = ('k400_linear_probe', 'k400_attentive_probe')

# Classes of the data that an experiment's name begins with.
CLASSES = {
  'k400': 400, 'ssv2': 174, 'ucf101': 101, 'hmdb51': 51,
  'epic_kitchens': {'verb': 97, 'noun': 300},
}  # fmt: skip


def load(name, arg='', overrides=()):
  return command.load(f'{ROOT / "configs" / name}.py:{arg}', overrides)


def class_names(name):
  """The classes of the data of an experiment; five of one's own."""
  for data, count in CLASSES.items():
    if name.startswith(data):
      if isinstance(count, dict):
        return {head: numbers(number) for head, number in count.items()}
      return numbers(count)
  return numbers(5)


def numbers(count):
  return tuple(map(str, range(count)))


def build(name, config):
  """The task, with the classes of its data."""
  if config.task == 'mae':
    return tasks.build(config)
  return tasks.build(config, class_names=class_names(name))


def build_classifier(name, config):
  task = build(name, config)
  assert isinstance(task, classify.Classification)
  return task


def parameters(task):
  variables = jax.eval_shape(task.init, jax.random.key(0))
  return sum(math.prod(x.shape) for x in jax.tree.leaves(variables['params']))


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
    'demo', 'demo_finetune', 'own_videos_mae', 'own_videos_finetune',
    *(name for name, _ in RECIPES), *(name for name, _ in FINETUNES),
    *VIVITS, *PROBES
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
  task = build(name, config)
  count = parameters(task)
  size = config.model.variant.split('/')[0]
  if config.model.width is not None:
    assert count > 0
  elif config.task == 'mae':
    published = name in ('k400_mae', 'ssv2_mae') or size in ('S', 'B')
    published &= config.model.recipe.startswith('videomae')
    assert count == PARAMETERS[size] if published else count > 0
  elif name in VIVIT_PARAMETERS:
    assert count == VIVIT_PARAMETERS[name]
  elif name in {name for name, _ in FINETUNES}:
    # A class is a column of the head's kernel and a number of its bias.
    more = len(class_names(name)) - 400
    width = variants.SIZES[size].width
    assert count == FINETUNE_PARAMETERS[size] + more * (width + 1)
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


def check_is_videomaes(task):
  """The classifier is that of VideoMAE's fine-tuning."""
  model = task.model
  assert (model.num_frames, model.image_size) == (16, (224, 224))
  assert model.tubelet == (2, 16, 16)
  assert model.grid == (8, 14, 14)
  assert (model.positions, model.class_token) == ('sincos_1d', 'none')
  assert (model.qkv_bias, model.gelu, model.pooling) == ('qv', 'erf', 'mean')
  assert model.layer_scale == 0
  assert task.mean == (0.485, 0.456, 0.406)
  assert task.std == (0.229, 0.224, 0.225)


@pytest.mark.parametrize(('name', 'arg'), FINETUNES)
def test_published_recipe_of_finetuning(name, arg):
  (
    (epochs, batch, rate, least_rate, layer_decay, drop_path, dropout),
    (sampling, stride, flip, segments),
  ) = FINETUNES[name, arg]
  config = load(name, arg)
  assert config.init_from.path == ''
  assert (config.total_epochs, config.total_steps) == (epochs, None)
  assert (config.batch_size, config.accum_steps) == (batch, 1)
  task = build_classifier(name, config)
  check_is_videomaes(task)
  model = task.model
  assert config.model.variant == f'{arg or "B"}/16x2'
  assert model.norm == 'after_pooling'
  assert (model.head, model.head_init_scale) == ('linear', 0.001)
  assert (model.drop_path, model.head_dropout) == (drop_path, dropout)
  assert (model.drop_path_rescale, model.dropout) == (True, 0)
  assert not model.probe
  assert not model.probe_batch_norm
  assert model.remat == ('full' if dropout else 'none')
  assert task.smoothing == 0.1
  erase = task.erase
  assert (erase['probability'], erase['mode']) == (0.25, 'pixel')
  assert (erase['area'], erase['aspect']) == ((0.02, 1 / 3), (0.3, 3.3))
  assert erase['cube']
  mix = task.mix
  assert (mix['mixup'], mix['cutmix'], mix['switch']) == (0.8, 1, 0.5)
  assert (mix['probability'], mix['mode']) == (1, 'batch')
  data = config.data
  assert (data.sampling, data.stride, data.flip) == (sampling, stride, flip)
  assert (data.crop, data.crop_scale) == ('random_resized', (0.08, 1))
  assert (data.crop_ratio, data.short_side) == ((3 / 4, 4 / 3), None)
  assert data.rand_augment == 'rand-m7-n4-mstd0.5-inc1'
  assert data.rand_augment_interpolation == 'bicubic'
  assert (data.repeats, data.repeat) == (2, 'crops')
  optimizer = config.optimizer
  assert (optimizer.learning_rate, optimizer.lr_base) == (rate, 256)
  assert optimizer.lr_scales_with == 'videos'
  assert optimizer.min_learning_rate == least_rate
  assert (optimizer.name, optimizer.schedule) == ('adamw', 'cosine')
  assert (optimizer.b1, optimizer.b2, optimizer.eps) == (0.9, 0.999, 1e-8)
  assert (optimizer.weight_decay, optimizer.weight_decay_end) == (0.05, None)
  assert (optimizer.warmup_epochs, optimizer.warmup_steps) == (5, None)
  assert (optimizer.layer_decay, optimizer.clip_norm) == (layer_decay, None)
  assert (optimizer.freeze, optimizer.ema_decay) == ((), 0)
  views = config.evals.multiview
  assert views.every_epochs == epochs
  assert (views.segments, views.crops) == (segments, 3)
  assert 'sampling' not in views  # that of the data
  assert 'average' not in views  # the mean of probabilities


@pytest.mark.parametrize('name', VIVITS)
def test_published_recipe_of_vivit(name):
  (
    (size, factorisation, temporal_depth, epochs, rate, stride, side, short),
    (drop_path, smoothing, mixup, crops),
  ) = VIVITS[name]
  config = load(name)
  assert (config.total_epochs, config.total_steps) == (epochs, None)
  assert (config.batch_size, config.accum_steps) == (64, 1)
  task = build_classifier(name, config)
  model = task.model
  assert config.model.variant == f'{size}/16x2'
  assert model.factorisation == factorisation
  if temporal_depth:
    assert model.temporal_depth == temporal_depth
  assert (model.num_frames, model.image_size) == (32, (side, side))
  assert model.grid == (16, side // 16, side // 16)
  token = factorisation in ('none', 'encoder')
  assert model.class_token == ('before_positions' if token else 'none')
  assert model.pooling == ('token' if token else 'mean')
  assert (model.positions, model.norm) == ('learned_1d', 'before_pooling')
  assert (model.qkv_bias, model.gelu) == ('qkv', 'tanh')
  assert (model.initialisation, model.head_init_scale) == ('vivit', 0)
  assert model.drop_path == drop_path
  assert model.drop_path_rescale == (drop_path == 0)
  assert (model.dropout, model.head_dropout) == (0, 0)
  assert task.smoothing == smoothing
  assert (task.mix['mixup'], task.mix['cutmix']) == (mixup, 0)
  assert task.erase['probability'] == 0
  assert task.mean == task.std == (0.5, 0.5, 0.5)
  data = config.data
  assert (data.sampling, data.stride, data.repeats) == ('vivit', stride, 1)
  assert (data.crop, data.crop_jitter) == ('jittered', (0.9, 1.33))
  assert data.short_side == short
  assert data.flip == (not name.startswith('ssv2'))
  assert bool(data.rand_augment) == (mixup > 0)
  optimizer = config.optimizer
  assert (optimizer.name, optimizer.momentum) == ('sgd', 0.9)
  assert not optimizer.nesterov
  assert (optimizer.learning_rate, optimizer.lr_base) == (rate, 64)
  assert (optimizer.weight_decay, optimizer.clip_norm) == (0, 1)
  assert optimizer.schedule == 'warmup_cosine'
  assert optimizer.min_learning_rate == 0
  assert (optimizer.warmup_epochs, optimizer.warmup_steps) == (2.5, None)
  assert (optimizer.layer_decay, optimizer.ema_decay) == (None, 0)
  views = config.evals.multiview
  assert (views.segments, views.crops) == (4, crops)
  assert views.average == 'logits'


def test_epic_kitchens_has_the_heads_of_its_data():
  name = 'epic_kitchens_vivit_l_fe'
  config = load(name)
  assert config.data.source == 'csv'
  assert build_classifier(name, config).heads == {'verb': 97, 'noun': 300}


@pytest.mark.parametrize('name', PROBES)
def test_probe_trains_nothing_but_its_head(name):
  config = load(name)
  task = build_classifier(name, config)
  check_is_videomaes(task)
  model = task.model
  # The encoder has the norm of pretraining, and the head none of its own.
  assert (model.norm, model.probe) == ('before_pooling', True)
  params = jax.eval_shape(task.init, jax.random.key(0))['params']
  trained = naming.flat(
    optimizer_lib.trained(config.optimizer, task.frozen)(params)
  )
  assert {key for key, on in trained.items() if on} == {
    key for key in trained if key.startswith('head/')
  }
  assert config.optimizer.schedule == 'warmup_cosine'
  assert config.optimizer.min_learning_rate == 0
  assert (task.mix['mixup'], task.mix['cutmix'], task.smoothing) == (0, 0, 0)


def test_linear_probe_is_that_of_mae():
  config = load('k400_linear_probe')
  model = config.model
  assert (model.head, model.probe_batch_norm) == ('linear', True)
  assert model.head_init_scale * 0.02 == 0.01
  rule = config.optimizer
  assert (rule.name, rule.momentum, rule.weight_decay) == ('lars', 0.9, 0)
  assert (rule.learning_rate, rule.lr_base) == (0.1, 256)
  assert (config.total_epochs, rule.warmup_epochs) == (90, 10)
  assert (config.data.rand_augment, config.data.flip) == ('', True)
  assert config.classify.erase.probability == 0


def test_attentive_probe_is_that_of_v_jepa():
  config = load('k400_attentive_probe')
  model = config.model
  assert (model.head, model.probe_batch_norm) == ('attentive', False)
  rule = config.optimizer
  assert (rule.name, rule.b1, rule.b2) == ('adamw', 0.9, 0.999)
  assert (rule.weight_decay, rule.weight_decay_end) == (0.01, 1e-6)
  assert (rule.learning_rate, rule.lr_base) == (1e-3, 256)
  assert (config.total_epochs, rule.warmup_epochs) == (20, 0)
  assert config.batch_size == 256
  assert config.data.rand_augment == 'rand-m7-n4-mstd0.5-inc1'
  assert not config.data.flip
  assert config.classify.erase.probability == 0.25
  views = config.evals.multiview
  assert (views.segments, views.crops) == (8, 3)


PRETRAININGS = [
  ('demo_finetune', '', 'demo', ''),
  *(
    (f'k400_{name}', size, 'k400_mae', size)
    for name in ('finetune', 'linear_probe', 'attentive_probe')
    for size in ('S', 'B', 'L', 'H')
  ),
  *(('ssv2_finetune', size, 'ssv2_mae', size) for size in ('S', 'B')),
  ('ucf101_finetune', '', 'ucf101_mae', ''),
  ('hmdb51_finetune', '', 'hmdb51_mae', ''),
  *(
    ('own_videos_finetune', arg, 'own_videos_mae', arg)
    for arg in ('', 'Ti', 'B,small')
  ),
  ('epic_kitchens_vivit_l_fe', '', 'k400_vivit_l_fe', ''),
]


@pytest.mark.parametrize(('name', 'arg', 'before', 'before_arg'), PRETRAININGS)
def test_takes_all_but_the_head_from_what_it_starts_from(
  name, arg, before, before_arg
):
  saved, wanted = (
    naming.shapes(
      jax.eval_shape(build(*spec).init, jax.random.key(0))['params']
    )
    for spec in ((before, load(before, before_arg)), (name, load(name, arg)))
  )
  report = transfer.plan(saved, wanted)
  assert not report.names(transfer.RESIZED)
  assert all(key.startswith('head/') for key in report.names(transfer.FRESH))


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
@pytest.mark.slow
@pytest.mark.usefixtures('compile_once')
def test_one_local_step_runs_to_its_end(path, built_in_videos, tmp_path):
  config = load(path.stem, 'runlocal', [('total_steps', '1')])
  state = loop.train_and_evaluate(config, tmp_path)
  assert int(state.step) == 1
  assert (tmp_path / 'checkpoints' / '1').is_dir()
  lines = (tmp_path / 'metrics.jsonl').read_text()
  (report,) = re.findall(r'"loss": ([\d.]+)', lines)
  if config.task == 'mae':
    folder = tmp_path / 'reconstructions' / 'step_00000001'
    assert list(folder.glob('*.png'))
  for evaluator, section in config.evals.items():
    if section.kind in ('accuracy', 'multiview'):
      (top1,) = re.findall(rf'"{evaluator}/top1": ([\d.]+)', lines)
      assert 0 <= float(top1) <= 1
  if 'multiview' in config.evals:
    folder = tmp_path / 'predictions'
    assert (folder / 'step_00000001.csv').is_file()
  assert 0 < float(report) < 10
  assert len(list(built_in_videos.iterdir())) == 1
