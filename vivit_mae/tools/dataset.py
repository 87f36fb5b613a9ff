"""Turns folders and lists of videos into datasets ready for training.

    python -m vivit_mae.tools.dataset check my_videos
    python -m vivit_mae.tools.dataset prepare my_videos --out my_dataset

Interrupted, `prepare` goes on where it was when the same command is given
again.
"""

import sys
import types
from collections.abc import Sequence

from vivit_mae.tools import arguments


def _commands() -> dict[str, types.ModuleType]:
  """A module for each: `add_parser(commands)` and `run(arguments)`, a status.

  Processes that are started to read videos import this one again, and need
  none of them.
  """
  from vivit_mae.tools import dataset_check, dataset_prepare, dataset_show

  return {
    'check': dataset_check,
    'prepare': dataset_prepare,
    'show': dataset_show,
  }


def _build_parser() -> arguments.Parser:
  parser = arguments.Parser(
    prog='python -m vivit_mae.tools.dataset',
    description='Prepares videos for training.',
  )
  commands = parser.add_subparsers(dest='command', required=True)
  for module in _commands().values():
    module.add_parser(commands)
  return parser


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command.

  Args:
    argv: Arguments; those of the process if None.

  Returns:
    The exit status.
  """
  from vivit_mae import command

  words = sys.argv[1:] if argv is None else argv
  rest, overrides = command.split_argv(words)
  parser = _build_parser()
  parsed = parser.parse_args(rest)
  name = vars(parsed).pop('command')
  if name == 'show':
    parsed.overrides = overrides
  elif overrides:
    parser.error(f'no such option: --config.{overrides[0][0]}.')
  try:
    return _commands()[name].run(parsed)
  except ValueError as error:
    print(f'error: {error}', file=sys.stderr)
    return 1
  except KeyboardInterrupt:
    resumed = ' The same command goes on from here.' * (name == 'prepare')
    print(f'Stopped.{resumed}', file=sys.stderr)
    return 130


if __name__ == '__main__':
  sys.exit(main())
