"""Turns folders and lists of videos into datasets ready for training.

    python -m vivit_mae.tools.dataset prepare my_videos --out my_dataset

Interrupted, it goes on where it was when the same command is given again.
"""

import sys
from collections.abc import Sequence

from vivit_mae.tools import arguments, dataset_prepare
from vivit_mae.tools.dataset_prepare import prepare, read_sources

__all__ = ['main', 'prepare', 'read_sources']

# Each has `add_parser(commands)` and `run(arguments)`, the exit status.
_COMMANDS = {'prepare': dataset_prepare}


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
  parsed = _build_parser().parse_args(argv)
  command = _COMMANDS[vars(parsed).pop('command')]
  try:
    return command.run(parsed)
  except ValueError as error:
    print(f'error: {error}', file=sys.stderr)
    return 1
  except KeyboardInterrupt:
    print('Stopped. The same command goes on from here.', file=sys.stderr)
    return 130


if __name__ == '__main__':
  sys.exit(main())
