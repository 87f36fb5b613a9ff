"""The checks on configurations.

A misspelt field, a value of another type, and a value that nothing reads are
errors which name the field.
"""

import difflib
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from vivit_mae import config as config_lib


def check(config: ConfigDict) -> None:
  """Checks names and types of all fields, and what no component can check.

  Raises:
    ValueError: Names the field by its dotted path, what it holds and what
      would do.
  """
  reference = config_lib.defaults(config.task)
  known = dict(_leaves(reference))
  for path, value in _leaves(config):
    section = path.split('.')[0]
    if section == 'evals':
      continue
    if path not in known:
      raise unknown_field(path, reference)
    parent, _, key = path.rpartition('.')
    owner = reference[parent] if parent else reference
    _check_type(path, value, known[path], owner.get_type(key))
  missing = known.keys() - dict(_leaves(config)).keys() - {'evals'}
  if missing:
    raise ValueError(
      f'config.{min(missing)} is missing: start from config.defaults()'
    )
  for name, entry in config.evals.items():
    if not isinstance(entry, ConfigDict) or not isinstance(
      entry.get('kind'), str
    ):
      raise ValueError(
        f'config.evals.{name} must be a section with a kind, such as '
        f"dict(kind='reconstruction'), not {entry!r}"
      )
  if (config.total_steps is None) == (config.total_epochs is None):
    raise ValueError(
      'exactly one of config.total_steps and config.total_epochs must be set; '
      f'they are {config.total_steps} and {config.total_epochs}'
    )
  _at_least('total_steps', config.total_steps, 1)
  _at_least('batch_size', config.batch_size, 1)
  _at_least('accum_steps', config.accum_steps, 1)
  _at_least('log.every_steps', config.log.every_steps, 1)
  _at_least('data.repeats', config.data.repeats, 1)
  _at_least('checkpoint.keep_last', config.checkpoint.keep_last, 1)
  _at_least('checkpoint.every_steps', config.checkpoint.every_steps, 1)
  rows = config.batch_size * config.data.repeats
  if rows % config.accum_steps:
    raise ValueError(
      f'config.accum_steps={config.accum_steps} does not divide the '
      f'{rows} clips of a batch (batch_size x data.repeats)'
    )
  if config.checkpoint.best_mode not in ('min', 'max'):
    raise ValueError(
      "config.checkpoint.best_mode must be 'min' or 'max', not "
      f'{config.checkpoint.best_mode!r}'
    )


class TrackedConfig(ConfigDict):
  """A read-only view of a config which remembers the fields that were read."""

  def __init__(
    self,
    config: ConfigDict,
    prefix: str = '',
    reads: set[str] | None = None,
  ):
    super().__init__()
    object.__setattr__(self, '_prefix', prefix)
    object.__setattr__(self, '_reads', set() if reads is None else reads)
    for key in config:
      value = config[key]
      if isinstance(value, ConfigDict):
        value = TrackedConfig(value, f'{prefix}{key}.', self._reads)
      self[key] = value
    self.lock()

  def __getitem__(self, key: str) -> Any:
    value = super().__getitem__(key)
    if not isinstance(value, ConfigDict):
      self._reads.add(f'{self._prefix}{key}')
    return value

  def items(self, preserve_field_references: bool = False) -> list:
    """All fields, which counts as reading them."""
    del preserve_field_references  # a view holds plain values
    return [(key, self[key]) for key in self]

  def to_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """A plain dict of all fields, which counts as reading them."""
    self._reads.update(self._prefix + path for path, _ in _leaves(self))
    return super().to_dict(*args, **kwargs)


def check_read(config: TrackedConfig) -> None:
  """Checks that every field set by the experiment was read by something.

  A field still at its default may go unread (a choice made elsewhere can make
  it meaningless); one that was changed and then ignored is a mistake.

  Raises:
    ValueError: Names the fields.
  """
  reads = set(config._reads)
  usual = dict(_leaves(config_lib.defaults(config.task)))
  unread = [
    f'config.{path}={value!r}'
    for path, value in _leaves(config)
    if path not in reads and (path not in usual or usual[path] != value)
  ]
  if unread:
    raise ValueError(
      f'nothing in this experiment reads {", ".join(unread)}; remove it, or '
      'check the choices that it belongs to'
    )


def is_optional(field: str, task: str) -> bool:
  """Whether the field may hold None."""
  return dict(_leaves(config_lib.defaults(task))).get(field, '') is None


def unknown_field(field: str, config: ConfigDict) -> ValueError:
  """The error for a field that isn't there, naming the nearest that is."""
  paths = [path for path, _ in _leaves(config)]
  last = field.rpartition('.')[2]
  near = difflib.get_close_matches(field, paths, 1, 0.7) or [
    path
    for name in difflib.get_close_matches(
      last, [p.rpartition('.')[2] for p in paths], 1, 0.7
    )
    for path in paths
    if path.rpartition('.')[2] == name
  ]
  hint = f' (did you mean config.{near[0]}?)' if near else ''
  return ValueError(f'unknown field config.{field}{hint}')


def _leaves(config: ConfigDict, prefix: str = '') -> Iterator[tuple[str, Any]]:
  for key in config.keys():  # noqa: SIM118 - a ConfigDict is no dict
    value = ConfigDict.__getitem__(config, key)
    if isinstance(value, ConfigDict):
      yield from _leaves(value, f'{prefix}{key}.')
    else:
      yield f'{prefix}{key}', value


def _check_type(path: str, value: Any, usual: Any, kind: Any) -> None:
  """Checks a value against the default and the type of its field."""
  if value is None and usual is None:
    return
  good = isinstance(value, (int, float) if kind is float else kind)
  if isinstance(value, bool) and kind is not bool:
    good = False
  if isinstance(value, tuple) and kind is tuple and usual:
    numbers = int if isinstance(usual[0], int) else (int, float)
    good = len(value) == len(usual) and all(
      isinstance(x, numbers) for x in value
    )
  if not good:
    like = f', such as {usual!r}' if usual not in (None, '') else ''
    raise ValueError(
      f'config.{path} must be of type {kind.__name__}{like}, not {value!r}'
    )


def _at_least(field: str, value: int | float | None, least: int) -> None:
  if value is not None and value < least:
    raise ValueError(f'config.{field} must be at least {least}, not {value}')
