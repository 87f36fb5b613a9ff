"""Experiment files and overrides as the command line names them.

`--config=configs/demo.py:L --config.mask.ratio=0.75` becomes a checked config;
absl and ml_collections would answer a misspelling with a traceback, or not at
all.
"""

import importlib.util
import pathlib
import traceback
from collections.abc import Sequence

from ml_collections import ConfigDict

from vivit_mae import config as config_lib
from vivit_mae import config_checks


def split_argv(
  argv: Sequence[str],
) -> tuple[list[str], list[tuple[str, str]]]:
  """Takes the `--config.field=value` arguments out of a command line.

  `--config.field value` works too, and a lone `--config.field` means true.

  Returns:
    The other arguments, and pairs of a field's dotted path and its value.
  """
  others, overrides = [], []
  words = list(argv)
  while words:
    word = words.pop(0)
    name, equals, value = word.lstrip('-').partition('=')
    if not (word.startswith('-') and name.startswith('config.')):
      others.append(word)
      continue
    if not equals:
      lone = not words or words[0].startswith('--')
      value = 'true' if lone else words.pop(0)
    overrides.append((name.removeprefix('config.'), value))
  return others, overrides


def load(spec: str, overrides: Sequence[tuple[str, str]] = ()) -> ConfigDict:
  """Loads an experiment file, applies overrides and checks the result.

  Args:
    spec: `path/to/file.py` or `path/to/file.py:arg`.
    overrides: Pairs of a field's dotted path (`mask.ratio`) and its new value
      as text.

  Raises:
    ValueError: No such file, an error in it, or a bad field or value; one line
      saying which and what would do.
  """
  name, _, arg = spec.partition(':')
  path = pathlib.Path(name)
  if not path.is_file():
    nearby = [str(p) for p in sorted(path.parent.glob('*.py'))]
    nearby += [str(p) for p in sorted(pathlib.Path('configs').glob('*.py'))]
    raise ValueError(
      f'no config file {name!r}{config_lib.suggest(name, nearby)}'
    )
  module_spec = importlib.util.spec_from_file_location(path.stem, path)
  if module_spec is None or module_spec.loader is None:
    raise ValueError(f'config file {name!r} is not a Python file (*.py)')
  module = importlib.util.module_from_spec(module_spec)
  try:
    module_spec.loader.exec_module(module)
    config = module.get_config(arg)
  except SyntaxError as error:
    raise ValueError(f'{name}, line {error.lineno}: {error.msg}') from error
  except (AttributeError, KeyError, TypeError, NameError) as error:
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f.lineno for f in frames if f.filename == str(path)]
    where = f', line {lines[-1]}' if lines else ''
    text = ' '.join(str(error.args[0] if error.args else error).split())
    raise ValueError(f'{name}{where}: {text}') from error
  for field, text in overrides:
    override(config, field, text)
  config_checks.check(config)
  return config


def override(config: ConfigDict, field: str, text: str) -> None:
  """Sets one field from text, typed as the field is.

  Tuples are written `128,128` or `(128, 128)`; `none` empties a field that may
  be empty.

  Raises:
    ValueError: Unknown field (names the nearest), or not a value of its type.
  """
  parent, _, key = field.rpartition('.')
  section = config
  for name in parent.split('.') if parent else ():
    section = section.get(name)
    if not isinstance(section, ConfigDict):
      raise config_checks.unknown_field(field, config)
  if key not in section:
    raise config_checks.unknown_field(field, config)
  if isinstance(section[key], ConfigDict):
    names = ', '.join(f'config.{field}.{k}' for k in section[key])
    raise ValueError(f'config.{field} is a section; its fields: {names}')
  if text.lower() == 'none' and config_checks.is_optional(field, config.task):
    with section.ignore_type():
      section[key] = None
    return
  section[key] = config_lib.parse_value(
    text, section.get_type(key), f'config.{field}'
  )
