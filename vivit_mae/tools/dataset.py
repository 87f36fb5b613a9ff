"""Turns folders and lists of videos into datasets ready for training.

    python -m vivit_mae.tools.dataset check my_videos
    python -m vivit_mae.tools.dataset prepare my_videos --out my_dataset

Interrupted, `prepare` goes on where it was when the same command is given
again.
"""

import sys
from collections.abc import Sequence

from vivit_mae import command as command_lib
from vivit_mae.tools import (
  arguments,
  dataset_check,
  dataset_prepare,
  dataset_show,
)
from vivit_mae.tools.dataset_prepare import prepare, read_sources

__all__ = ['main', 'prepare', 'read_sources']

# Each has `add_parser(commands)` and `run(arguments)`, the exit status.
_COMMANDS = {
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
  for command in _COMMANDS.values():
    command.add_parser(commands)
  return parser


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command.

  Args:
    argv: Arguments; those of the process if None.

  Returns:
    The exit status.
  """
  words = sys.argv[1:] if argv is None else argv
  rest, overrides = command_lib.split_argv(words)
  parser = _build_parser()
  parsed = parser.parse_args(rest)
  command = _COMMANDS[vars(parsed).pop('command')]
  if command is dataset_show:
    parsed.overrides = overrides
  elif overrides:
    parser.error(f'no such option: --config.{overrides[0][0]}.')
  try:
    return command.run(parsed)
  except ValueError as error:
    print(f'error: {error}', file=sys.stderr)
    return 1
  except KeyboardInterrupt:
    again = ' The same command goes on from here.'
    resumed = again if command is dataset_prepare else ''
    print(f'Stopped.{resumed}', file=sys.stderr)
    return 130


if __name__ == '__main__':
  sys.exit(main())
