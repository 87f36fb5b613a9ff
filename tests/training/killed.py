"""Trains on one device in a process that a signal ends after some step.

python -m tests.training.killed config workdir signal step [field=value ...]

A signal below 0 goes to all processes of the group, as from a scheduler.
If it comes to the end, it leaves the final parameters in `final.npz`. Of
several devices on a CPU the sums depend on which is first, so that no two runs
are bitwise the same.
"""

import os
import sys

os.environ['XLA_FLAGS'] = '--xla_force_host_platform_device_count=1'

import jax
import numpy as np
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
      if int(number) < 0:
        os.killpg(0, -int(number))
      else:
        os.kill(os.getpid(), int(number))

  monitor.Monitor.train = report
  pairs = [(o.split('=')[0], o.split('=')[1]) for o in overrides]
  state = loop.train_and_evaluate(command.load(path, pairs), workdir)
  np.savez(f'{workdir}/final.npz', *jax.device_get(jax.tree.leaves(state)))


if __name__ == '__main__':
  run()
