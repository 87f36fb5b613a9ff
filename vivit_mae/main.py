"""Trains a model as a config says.

python -m vivit_mae.main --config=configs/demo.py --workdir=/tmp/demo

Every field of the config can be set: --config.mask.ratio=0.75. The same command
again goes on where the run stopped.
"""

import logging
import os
import sys
from collections.abc import Sequence

# TensorFlow's and XLA's C++ logs read this when they are loaded.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')

from absl import app, flags

from vivit_mae import command

# What starts jax is imported where it is used: spawned data workers import
# this module again, and need none of it.

_EXAMPLE = (
  'for example: python -m vivit_mae.main --config=configs/demo.py '
  '--workdir=/tmp/demo'
)

_CONFIG = flags.DEFINE_string(
  'config',
  None,
  'Experiment file, with arguments after a colon: configs/k400_mae.py:L. '
  '--config.field=value sets a field.',
)
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Folder of the run; created if missing, may be remote.'
)
_MULTIHOST = flags.DEFINE_bool(
  'multihost', False, 'One of several hosts of a TPU slice or GPU cluster.'
)
_TRACEBACK = flags.DEFINE_bool(
  'traceback', False, 'Show where in the code an error arose.'
)


class _Formatter(logging.Formatter):
  """Time and message; the level only where it is a warning or worse."""

  def format(self, record: logging.LogRecord) -> str:
    text = super().format(record)
    if record.levelno <= logging.INFO:
      return text
    return f'{record.levelname.lower()}: {text}'


def set_up_logging() -> None:
  """Logs our messages as they are, and of other libraries the warnings."""
  handler = logging.StreamHandler()
  handler.setFormatter(_Formatter('%(message)s'))
  ours = f'{os.sep}vivit_mae{os.sep}'
  handler.addFilter(
    lambda record: record.levelno >= logging.WARNING or ours in record.pathname
  )
  logging.root.handlers = [handler]
  logging.root.setLevel(logging.INFO)
  # Says on every save and restore what is only to be expected.
  logging.getLogger('absl').addFilter(
    lambda record: (
      'orbax' not in record.pathname or record.levelno >= logging.ERROR
    )
  )


def _connect() -> None:
  """Joins the other hosts; before anything else asks jax for devices."""
  import jax

  try:
    # Of these three variables jax itself reads the address only.
    jax.distributed.initialize(
      num_processes=_variable('JAX_NUM_PROCESSES'),
      process_id=_variable('JAX_PROCESS_ID'),
    )
  except (ValueError, RuntimeError) as error:
    raise ValueError(
      f'--multihost found no cluster to join ({error}). It needs a TPU slice, '
      'Slurm, Open MPI or Kubernetes, or the variables JAX_COORDINATOR_ADDRESS'
      ', JAX_NUM_PROCESSES and JAX_PROCESS_ID; leave it away on a single host'
    ) from error


def _variable(name: str) -> int | None:
  """A number from the environment, None if it is not set."""
  return int(os.environ[name]) if os.environ.get(name) else None


def _train(argv: Sequence[str]) -> None:
  rest, overrides = command.split_argv(argv[1:])
  if rest:
    raise ValueError(f'unexpected argument {rest[0]!r}; {_EXAMPLE}')
  for flag, name in ((_CONFIG, 'config'), (_WORKDIR, 'workdir')):
    if not flag.value:
      raise ValueError(f'--{name} is missing; {_EXAMPLE}')
  config = command.load(str(_CONFIG.value), overrides)
  if _MULTIHOST.value:
    _connect()
  from vivit_mae.training import loop

  loop.train_and_evaluate(config, str(_WORKDIR.value))


def main(argv: Sequence[str]) -> int:
  """Runs a parsed command line.

  Returns:
    The exit status: 0, or 2 for a mistake in the command, config or data, or 1
    for a run that diverged.
  """
  set_up_logging()
  try:
    _train(argv)
  except ValueError as error:
    if _TRACEBACK.value:
      raise
    print(f'error: {error} (--traceback says more)', file=sys.stderr)
    return 2
  except ArithmeticError as error:
    print(f'stopped: {error}', file=sys.stderr)
    return 1
  except KeyboardInterrupt:
    print('interrupted', file=sys.stderr)
    return 130
  return 0


def _parse_flags(argv: Sequence[str]) -> list[str]:
  """Parses the flags; hands the fields of the config on."""
  others, overrides = command.split_argv(argv)
  try:
    rest = flags.FLAGS(others)
  except flags.Error as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(2)
  return rest + [f'--config.{field}={text}' for field, text in overrides]


if __name__ == '__main__':
  import jax

  jax.config.config_with_absl()
  app.run(main, flags_parser=_parse_flags)
