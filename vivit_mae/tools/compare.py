"""Puts runs side by side: what was set differently, and what came out.

python -m vivit_mae.tools.compare /tmp/scratch /tmp/pretrained
"""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from vivit_mae.tools import arguments

# Of the config; what tells of the machine and of reports, not of the method.
_UNINTERESTING = ('log.', 'profile.', 'compilation_cache')


def _build_parser() -> arguments.Parser:
  parser = arguments.Parser(
    prog='python -m vivit_mae.tools.compare',
    description=(
      'Prints a column for each run: the fields of the config in which they '
      'differ, how far each has come, and the last numbers of its evaluators.'
    ),
  )
  parser.add_argument(
    'workdirs', nargs='+', metavar='WORKDIR', help='folder of a run'
  )
  return parser


def read_config(workdir: epath.PathLike) -> dict[str, Any]:
  """The config of a run, by the dotted names of its fields.

  Args:
    workdir: Folder of the run.

  Returns:
    Each field's value.

  Raises:
    ValueError: The folder holds no run.
  """

  def fields(section: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    found = {}
    for name, value in section.items():
      if isinstance(value, Mapping):
        found |= fields(value, f'{prefix}{name}.')
      else:
        found[prefix + name] = value
    return found

  return fields(json.loads(_read(workdir, 'config.json')), '')


def last_numbers(workdir: epath.PathLike) -> dict[str, float | int]:
  """The last of each number that a run has reported.

  Args:
    workdir: Folder of the run.

  Returns:
    By name, in the order of their first appearance: `step`, `loss` and so on;
    an evaluator's names have a slash, `accuracy/top1`.

  Raises:
    ValueError: The folder holds no run, or one that has reported nothing.
  """
  numbers = {}
  for line in _read(workdir, 'metrics.jsonl').splitlines(keepends=True):
    if line.endswith('\n'):  # else a crash has cut it short
      numbers |= json.loads(line)
  return numbers


def _read(workdir: epath.PathLike, name: str) -> str:
  path = epath.Path(workdir).expanduser() / name
  if not path.exists():
    missing = f'has no {name}' if path.parent.exists() else 'does not exist'
    raise ValueError(
      f'{workdir} {missing}; give the folder of a run, as it was given to '
      'vivit_mae.main.'
    )
  return path.read_text()


def compare(workdirs: Sequence[str]) -> str:
  """The table that the command prints.

  Args:
    workdirs: Folders of runs.

  Returns:
    Lines of text: first the fields, then the numbers; `-` is where a run has
    none.

  Raises:
    ValueError: A folder holds no run, or one that has reported nothing.
  """
  configs = [read_config(workdir) for workdir in workdirs]
  numbers = [last_numbers(workdir) for workdir in workdirs]
  rows = [('', *_columns(workdirs))]
  for name in dict.fromkeys(name for config in configs for name in config):
    values = [config.get(name) for config in configs]
    if not name.startswith(_UNINTERESTING) and any(
      value != values[0] for value in values
    ):
      rows.append((name, *map(_setting, values)))
  shown = [
    name
    for name in dict.fromkeys(name for found in numbers for name in found)
    if '/' in name or name in ('step', 'loss')
  ]
  for name in shown:
    rows.append((name, *(_number(found.get(name)) for found in numbers)))
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return '\n'.join(
    '  '.join(
      [f'{row[0]:<{widths[0]}}']
      + [f'{x:>{w}}' for x, w in zip(row[1:], widths[1:], strict=True)]
    ).rstrip()
    for row in rows
  )


def _columns(workdirs: Sequence[str]) -> list[str]:
  """The folders' names, or where these agree their whole paths."""
  names = [epath.Path(workdir).name for workdir in workdirs]
  return names if len(set(names)) == len(names) else list(workdirs)


def _setting(value: Any) -> str:
  return '-' if value in (None, '', []) else str(value)


def _number(value: float | int | None) -> str:
  if value is None:
    return '-'
  return str(value) if isinstance(value, int) else f'{value:.4g}'


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command.

  Args:
    argv: Arguments; those of the process if None.

  Returns:
    The exit status.
  """
  options = _build_parser().parse_args(argv)
  try:
    print(compare(options.workdirs))
  except ValueError as error:
    print(f'error: {error}', file=sys.stderr)
    return 1
  return 0


if __name__ == '__main__':
  sys.exit(main())
