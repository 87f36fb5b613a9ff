import pathlib

import ml_collections
import pytest

from vivit_mae import command, config_checks
from vivit_mae import config as config_lib

FILE = """
from vivit_mae import config as config_lib

def get_config(arg=''):
  arg = config_lib.parse_arg(arg, variant=('B', 'L'), runlocal=False)
  config = config_lib.defaults()
  config.total_epochs = 2
  config.model.variant = f'{arg.variant}/16x2'
  if arg.runlocal:
    config.batch_size = 2
  return config
"""


@pytest.fixture
def file(tmp_path) -> str:
  path = tmp_path / 'exp.py'
  path.write_text(FILE)
  return str(path)


def test_defaults_are_locked_and_need_a_length():
  config = config_lib.defaults()
  with pytest.raises(AttributeError, match='ratio'):
    config.mask.ratoi = 0.5
  with pytest.raises(ValueError, match=r'exactly one of config\.total_steps'):
    config_checks.check(config)
  config.total_steps = 1
  config_checks.check(config)
  config.total_epochs = 1.0
  with pytest.raises(ValueError, match='exactly one'):
    config_checks.check(config)


def test_load_reads_the_argument(file):
  config = command.load(f'{file}:L,runlocal')
  assert config.model.variant == 'L/16x2'
  assert config.batch_size == 2
  assert config.total_epochs == 2
  assert command.load(file).model.variant == 'B/16x2'


def test_parse_arg_takes_values_and_lists_the_known():
  parse = config_lib.parse_arg
  assert parse('lr=0.5', lr=1.0).lr == 0.5
  assert parse('variant=L', variant=('B', 'L')).variant == 'L'
  assert parse('', variant=('B', 'L'), big=False).big is False
  with pytest.raises(ValueError, match=r"did you mean 'runlocal'.*known: B, L"):
    parse('runlocl', variant=('B', 'L'), runlocal=False)
  with pytest.raises(ValueError, match='one of B, L'):
    parse('variant=M', variant=('B', 'L'))


@pytest.mark.parametrize(
  ('field', 'text', 'value'),
  [
    ('mask.ratio', '0.5', 0.5),
    ('optimizer.warmup_epochs', '2', 2.0),
    ('total_steps', '10', 10),
    ('total_epochs', 'none', None),
    ('optimizer.clip_norm', '0.02', 0.02),
    ('model.image_size', '(64, 96)', (64, 96)),
    ('model.image_size', '64,96', (64, 96)),
    ('data.unlabelled', 'extra, more', ('extra', 'more')),
    ('data.flip', 'True', True),
    ('model.scan', '0', False),
    ('data.path', '/some where/1', '/some where/1'),
    ('resume', 'none', 'none'),
  ],
)
def test_override_is_typed_as_the_field(file, field, text, value):
  overrides = [(field, text)]
  if field == 'total_steps':
    overrides.append(('total_epochs', 'none'))
  elif field == 'total_epochs':
    overrides.append(('total_steps', '3'))
  config = command.load(file, overrides)
  assert config[field] == value
  assert type(config[field]) is type(value)


@pytest.mark.parametrize(
  ('field', 'text', 'message'),
  [
    ('mask.ratoi', '0.5', r'unknown .*mask\.ratoi.*config\.mask\.ratio\?'),
    ('ratio', '0.5', r'did you mean config\.mask\.ratio'),
    ('msk.ratio', '0.5', r'did you mean config\.mask\.ratio'),
    ('mask', '0.5', r'is a section; its fields: config\.mask\.decoder_kind'),
    ('mask.ratio.x', '0.5', r'unknown field config\.mask\.ratio\.x'),
    ('mask.ratio', 'half', r"config\.mask\.ratio .*float, not 'half'"),
    ('batch_size', '2.5', r"config\.batch_size .*int, not '2\.5'"),
    ('batch_size', '0', r'config\.batch_size must be at least 1'),
    ('batch_size', 'none', r'config\.batch_size .*int'),
    ('data.flip', 'maybe', 'true or false'),
    ('model.image_size', '(64,', r'config\.model\.image_size'),
    ('model.image_size', '64', r'config\.model\.image_size .*\(224, 224\)'),
    ('model.image_size', 'a,b', r'config\.model\.image_size'),
    ('accum_steps', '3', r'accum_steps=3 does not divide the 8 clips'),
    ('checkpoint.best_mode', 'least', "'min' or 'max'"),
  ],
)
def test_a_bad_override_names_the_field(file, field, text, message):
  with pytest.raises(ValueError, match=message):
    command.load(file, [(field, text)])


def test_a_bad_file_is_one_line(file, tmp_path):
  missing = str(tmp_path / 'epx.py')
  with pytest.raises(
    ValueError, match=r'no config file .*did you mean.*exp\.p'
  ):
    command.load(missing)
  bad = pathlib.Path(file).with_name('bad.py')
  bad.write_text(FILE.replace('config.batch_size = 2', 'config.batchsize = 2'))
  with pytest.raises(ValueError, match=r'bad\.py, line 10: .*batch_size'):
    command.load(f'{bad}:runlocal')
  bad.write_text('def get_config(:\n')
  with pytest.raises(ValueError, match=r'bad\.py, line 1: '):
    command.load(str(bad))
  bad.write_text('x = 1\n')
  with pytest.raises(ValueError, match=r'bad\.py: .*get_config'):
    command.load(str(bad))


def test_check_finds_fields_that_a_plain_dict_adds():
  config = ml_collections.ConfigDict(config_lib.defaults().to_dict())
  config.total_steps = 1
  config.mask.ratoi = 0.5
  with pytest.raises(ValueError, match=r'did you mean config\.mask\.ratio\?'):
    config_checks.check(config)
  del config.mask.ratoi
  del config.mask.ratio
  with pytest.raises(ValueError, match=r'config\.mask\.ratio is missing'):
    config_checks.check(config)


def test_evals_are_open_and_need_a_kind(file):
  config = command.load(file)
  config.evals.pictures = ml_collections.ConfigDict(
    dict(kind='reconstruction', every_steps=5)
  )
  config_checks.check(config)
  command.override(config, 'evals.pictures.every_steps', '7')
  assert config.evals.pictures.every_steps == 7
  config.evals.wrong = dict(every_steps=5)
  with pytest.raises(ValueError, match=r'config\.evals\.wrong .*kind'):
    config_checks.check(config)


def test_a_changed_field_that_nothing_reads_is_an_error(file):
  config = command.load(file, [('mask.ratio', '0.5')])
  tracked = config_checks.TrackedConfig(config)
  assert tracked.total_epochs == 2
  with pytest.raises(ValueError, match=r'reads config\.mask\.ratio=0\.5;'):
    config_checks.check_read(tracked)
  assert {**tracked.mask}['ratio'] == 0.5
  config_checks.check_read(tracked)


def test_a_tracked_config_reads_like_a_config(file):
  config = command.load(file)
  tracked = config_checks.TrackedConfig(config)
  assert tracked.to_dict() == config.to_dict()
  assert dict(tracked.mask.items()) == dict(config.mask.items())
  assert tracked.model.get('width') is None
  assert tracked['mask.ratio'] == 0.9
  with pytest.raises(AttributeError, match='locked'):
    tracked.mask.new = 1
