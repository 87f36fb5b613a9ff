import json

import pytest
from etils import epath

from vivit_mae import config as config_lib
from vivit_mae.training import checkpoints, origin


def saved_model(**fields):
  return {'variant': 'B/16x2', 'num_frames': 16, 'image_size': [224, 224],
          'position_grid': None, **fields}  # fmt: skip


@pytest.fixture
def start(monkeypatch, tmp_path):
  """Resolves an experiment that starts from a run with such a model."""

  def resolve(source, **fields):
    monkeypatch.setattr(
      checkpoints, 'saved_config', lambda path: source and {'model': source}
    )
    monkeypatch.setattr(
      checkpoints, 'holds_any', lambda path: str(path) == '/some/run'
    )
    config = config_lib.defaults('classify')
    config.init_from.path = '/some/run'
    config.model.update(fields)
    return origin.inherit(config, epath.Path(tmp_path)).model.position_grid

  return resolve


def test_other_frames_take_the_grid_of_the_source(start):
  assert start(saved_model(), num_frames=32) == (8, 14, 14)


def test_the_same_grid_needs_nothing(start):
  assert start(saved_model()) is None


def test_a_source_that_was_resized_itself_hands_its_own_source_on(start):
  source = saved_model(num_frames=32, position_grid=[8, 14, 14])
  assert start(source, image_size=(336, 336)) == (8, 14, 14)


def test_an_experiment_that_says_so_is_left_alone(start):
  grid = start(saved_model(), num_frames=32, position_grid=(4, 14, 14))
  assert grid == (4, 14, 14)


def test_a_source_without_a_config_says_nothing(start):
  assert start(None, num_frames=32) is None


def test_with_a_checkpoint_of_its_own_a_run_needs_no_other(
  monkeypatch, tmp_path
):
  monkeypatch.setattr(checkpoints, 'holds_any', lambda path: True)
  monkeypatch.setattr(
    checkpoints, '_newest', lambda path: (epath.Path(path) / 'checkpoints', 3)
  )
  config = config_lib.defaults('classify')
  config.init_from.path = str(tmp_path / 'gone')
  config.model.num_frames = 32
  own = {'model': {'position_grid': [8, 14, 14]}}
  (tmp_path / 'config.json').write_text(json.dumps(own))
  resolved = origin.inherit(config, epath.Path(tmp_path))
  assert resolved.model.position_grid == (8, 14, 14)
  assert config.model.position_grid is None


def test_without_a_source_nothing_changes(tmp_path):
  config = config_lib.defaults('mae')
  assert origin.inherit(config, epath.Path(tmp_path)) is config
