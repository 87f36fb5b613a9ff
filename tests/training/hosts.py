"""Trains as one host of several, on one device, and writes what it has seen.

python -m tests.training.hosts report [arguments of vivit_mae.main]

The report, an npz file, holds the losses and the videos of each step.
"""

import os
import sys

os.environ['XLA_FLAGS'] = '--xla_force_host_platform_device_count=1'

import numpy as np
from absl import flags

from vivit_mae import main
from vivit_mae.data import pipeline
from vivit_mae.training import monitor


def run():
  report, *arguments = sys.argv[1:]
  losses, videos = {}, []
  train, take = monitor.Monitor.train, pipeline.TrainIterator.__next__

  def note_losses(self, step, values):
    losses[step] = values['loss']
    train(self, step, values)

  def note_videos(self):
    batch = take(self)
    videos.append(batch['index'])
    return batch

  monitor.Monitor.train = note_losses
  pipeline.TrainIterator.__next__ = note_videos
  argv = main._parse_flags(['main', *arguments])
  flags.FLAGS.mark_as_parsed()
  status = main.main(argv)
  steps = sorted(losses)
  np.savez(
    report,
    steps=steps,
    losses=[losses[step] for step in steps],
    videos=videos[: len(steps)],  # those that are read ahead were not used
  )
  return status


if __name__ == '__main__':
  sys.exit(run())
