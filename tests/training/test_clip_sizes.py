"""An encoder pretrained on 16 frames of 224 pixels, on other clips."""

import itertools
import logging

import jax
import numpy as np
import pytest
from etils import epath

from tests.training import fakes
from vivit_mae import config as config_lib
from vivit_mae import tasks
from vivit_mae.models import positions
from vivit_mae.tasks import classify
from vivit_mae.training import checkpoints, origin, sharding
from vivit_mae.training import state as state_lib

GRID = (8, 14, 14)  # of the pretraining, in tokens
SIZES = [
  *itertools.product((8, 16, 32, 64), (224,)),
  *itertools.product((16,), (112, 336)),
  (64, 112),
]


def make_config(task, kind, num_frames=16, pixels=224):
  config = config_lib.defaults(task)
  config.model.update(
    variant='Ti/16x2',
    num_frames=num_frames,
    image_size=(pixels, pixels),
    width=24,
    depth=1,
    heads=2,
    mlp_dim=24,
    positions=kind,
  )
  if task == 'mae':
    config.model.update(
      decoder_width=24, decoder_depth=1, decoder_heads=2, decoder_mlp_dim=24
    )
  return config


def classification(config):
  task = tasks.build(config, class_names=('a', 'b', 'c'))
  assert isinstance(task, classify.Classification)
  return task


def build(task):
  return state_lib.build(
    task.init,
    fakes.optimizer(),
    seed=0,
    mesh=sharding.make_mesh(),
    fsdp_min_bytes=2**20,
  )


@pytest.fixture(scope='module', params=['sincos_1d', 'learned_1d'])
def pretrained(request, tmp_path_factory):
  """The kind of positions, a workdir, and its parameters."""
  workdir = tmp_path_factory.mktemp('pretraining')
  config = make_config('mae', request.param)
  _, create = build(tasks.build(config))
  rng = np.random.default_rng(0)
  state = create()
  params = jax.tree.map(
    lambda x: rng.normal(size=x.shape).astype(np.float32), state.params
  )
  with checkpoints.Checkpoints(workdir) as saved:
    saved.save(1, state.with_params(params), {'row': 0})
  (workdir / 'config.json').write_text(config.to_json_best_effort())
  return request.param, workdir, params


def interpolated(table, grid):
  """A table of the pretraining's grid on another, ends on ends."""
  table = table.reshape(*GRID, -1)
  for axis, size in enumerate(grid):
    places = np.linspace(0, table.shape[axis] - 1, size)
    table = np.apply_along_axis(
      lambda row, at=places: np.interp(at, np.arange(len(row)), row),
      axis,
      table,
    )
  return table.reshape(-1, table.shape[-1])


@pytest.mark.parametrize(('num_frames', 'pixels'), SIZES)
def test_a_classifier_takes_other_clips(
  pretrained, tmp_path, caplog, num_frames, pixels
):
  kind, workdir, params = pretrained
  config = make_config('classify', kind, num_frames, pixels)
  config.init_from.path = str(workdir)
  config = origin.inherit(config, epath.Path(tmp_path))
  task = classification(config)
  abstract, create = build(task)
  with (
    checkpoints.Checkpoints(tmp_path) as own,
    caplog.at_level(logging.INFO, 'vivit_mae'),
  ):
    state, _ = checkpoints.initial_state(
      own,
      abstract,
      create,
      init_from=origin.weights(config, task.model),
      adapt=task.adapt,
    )

  grid = (num_frames // 2, pixels // 16, pixels // 16)
  if kind == 'sincos_1d':
    used = positions.fixed(grid, 24, task.model.position_grid)
    learned = positions.fixed(GRID, 24)
    assert '(0 of them resized)' in caplog.text
  else:
    used = state.params['encoder']['position_embedding']
    learned = params['encoder']['position_embedding']
    assert f'({int(grid != GRID)} of them resized)' in caplog.text
  np.testing.assert_allclose(used, interpolated(learned, grid), atol=1e-5)
  np.testing.assert_array_equal(
    state.params['encoder']['embedding']['kernel'],
    params['encoder']['embedding']['kernel'],
  )
  clip = jax.ShapeDtypeStruct((1, num_frames, pixels, pixels, 3), np.uint8)
  logits = jax.eval_shape(task.logits, state.variables, clip)
  assert logits['label'].shape == (1, 3)


def test_the_classifier_of_other_clips_runs(pretrained):
  kind, _, _ = pretrained
  config = make_config('classify', kind, 8, 112)
  config.model.position_grid = GRID
  task = classification(config)
  _, create = build(task)
  clip = jax.random.bits(jax.random.key(0), (2, 8, 112, 112, 3), np.uint8)
  logits = task.logits(create().variables, clip)['label']
  assert np.isfinite(logits).all()
