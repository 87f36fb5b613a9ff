"""Tiny labelled videos and classifiers to test evaluators with."""

import functools

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tests.data import tiny_videos
from tests.tasks import configs
from vivit_mae import tasks
from vivit_mae.data import datasets, encode
from vivit_mae.tasks import classify

NAMES = ('a', 'b', 'c', 'd', 'e', 'f')
HEADS = {'verb': NAMES, 'noun': ('x', 'y')}


@functools.cache
def video(number: int) -> bytes:
  return encode.write_video(None, tiny_videos.frames(number), 10.0)


def source(count, labels=None, class_names=NAMES, multi_label=False, bad=()):
  """Videos in memory; some can not be read."""
  labels = [i % 6 for i in range(count)] if labels is None else labels
  examples = [
    datasets.Example(
      b'this is no video' if i in bad else video(i), labels[i], f'{i}.mp4'
    )
    for i in range(count)
  ]
  return datasets.FileSource('tiny', examples, class_names, multi_label)


def make_task(
  class_names=NAMES, multi_label=False, **sections
) -> classify.Classification:
  task = tasks.build(
    configs.tiny(**sections), class_names=class_names, multi_label=multi_label
  )
  assert isinstance(task, classify.Classification)
  return task


def make_variables(task):
  """Variables that tell the videos apart, on the host."""
  variables = jax.tree.map(np.array, jax.jit(task.init)(jax.random.key(1)))
  for name in task.heads:
    head = variables['params']['head'][name]
    head['kernel'] *= 0.5 / head['kernel'].std()
  return variables


def put_on(count):
  """Puts batches on so many of the devices."""
  mesh = Mesh(np.array(jax.devices()[:count]), ('data',))
  where = NamedSharding(mesh, PartitionSpec('data'))
  return lambda batch: {k: jax.device_put(v, where) for k, v in batch.items()}


def softmax(logits):
  shares = np.exp(np.asarray(logits, np.float64))
  return shares / shares.sum(-1, keepdims=True)
