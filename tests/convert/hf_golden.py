"""Tiny models and what transformers makes of them.

The files are written by tests/data/make_hf_golden.py.
"""

import dataclasses
import functools
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np

from vivit_mae import masking, targets
from vivit_mae.convert import files

FOLDER = pathlib.Path(__file__).parents[1] / 'data' / 'hf'
PRETRAINING = 'videomae_pretraining'
CLASSIFIERS = (
  'videomae_classifier',
  'videomae_first_classifier',
  'vivit_classifier',
)
ALL = (PRETRAINING, *CLASSIFIERS)
LABELS = ('draw', 'fold', 'pour', 'stir', 'turn')

# What transformers calls the arrays in memory.
_LATER = (
  (r'attention\.attention\.q_bias', 'attention.attention.query.bias'),
  (r'attention\.attention\.v_bias', 'attention.attention.value.bias'),
)
_LATER_VIVIT = (
  (r'encoder\.layer\.', 'layers.'),
  (r'attention\.attention\.(q|k|v)\w+', r'attention.\1_proj'),
  (r'attention\.output\.dense', 'attention.o_proj'),
  (r'intermediate\.dense', 'mlp.fc1'),
  (r'output\.dense', 'mlp.fc2'),
)


@functools.cache
def load_golden(name):
  with np.load(FOLDER / name / 'golden.npz') as file:
    return dict(file)


@functools.cache
def read(name):
  return files.read(FOLDER / name)


def with_arrays(checkpoint, arrays):
  return dataclasses.replace(checkpoint, arrays=arrays)


def as_in_memory(name):
  """The checkpoint by the names of a `state_dict`."""
  checkpoint = read(name)
  renamed = {}
  for key, value in checkpoint.arrays.items():
    for old, new in _LATER_VIVIT if 'vivit' in name else _LATER:
      key = re.sub(old, new, key)
    renamed[key] = value
  return with_arrays(checkpoint, renamed)


def inputs_of(converted, golden):
  statistics = converted.description.preprocess
  mean, std = (np.float32(statistics[k]) for k in ('mean', 'std'))
  return jnp.asarray((golden['video'] / np.float32(255) - mean) / std)


def mask_of(golden):
  visible, masked = (
    jnp.asarray([np.flatnonzero(row) for row in rows])
    for rows in (~golden['mask'], golden['mask'])
  )
  return masking.TokenMask(visible=visible, masked=masked)


def run(converted, *args):
  def run(params):
    return converted.model.apply({'params': params}, *args, deterministic=True)

  return jax.jit(run)(converted.params)


def logits_of(converted, golden):
  return run(converted, inputs_of(converted, golden)).logits['label']


def prediction_of(converted, golden):
  video, mask = inputs_of(converted, golden), mask_of(golden)
  return run(converted, video, mask).prediction


def loss_of(converted, golden, prediction, normalise):
  target = targets.build(
    tubelet=converted.model.tubelet, normalise=normalise
  ).target(
    jnp.asarray(golden['video'] / np.float32(255)), mask_of(golden).masked
  )
  return float(jnp.square(prediction - target).mean())


def difference(got, wanted):
  return float(np.abs(got - wanted).max() / np.abs(wanted).max())


def assert_equal(got, wanted):
  jax.tree.map(np.testing.assert_array_equal, got, wanted)
