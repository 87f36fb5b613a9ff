"""Trains in a process of its own, which a signal ends after some step.

python -m tests.training.killed config workdir signal step [field=value ...]
"""

import os
import sys

from absl import flags

from vivit_mae import command, main
from vivit_mae.training import loop, monitor


def run():
  flags.FLAGS.mark_as_parsed()
  main.set_up_logging()
  path, workdir, number, at, *overrides = sys.argv[1:]
  train = monitor.Monitor.train

  def report(self, step, values):
    train(self, step, values)
    if step == int(at):
      os.kill(os.getpid(), int(number))

  monitor.Monitor.train = report
  pairs = [(o.split('=')[0], o.split('=')[1]) for o in overrides]
  loop.train_and_evaluate(command.load(path, pairs), workdir)


if __name__ == '__main__':
  run()
