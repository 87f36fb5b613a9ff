"""What a new run takes over from the run whose weights it starts with."""

from collections.abc import Callable
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from vivit_mae.masking import Grid
from vivit_mae.models import tubelets, variants
from vivit_mae.training import checkpoints, foreign, transfer


def inherit(config: ConfigDict, workdir: epath.Path) -> ConfigDict:
  """Fills in `model.position_grid`, where the experiment leaves it open.

  Position tables of another number of frames or another image size are resized
  from the grid of tokens that they were learned on. A run finds it in the
  `config.json` of the run at `init_from.path`, or in the shapes of the public
  weights there; one that has checkpoints of its own, in its own `config.json`,
  and needs the other no more.

  Args:
    config: The experiment.
    workdir: The folder of this run.

  Returns:
    The experiment, with the grid if it is another than the model's own.

  Raises:
    ValueError: `init_from.path` is given and holds no weights.
  """
  if not config.init_from.path or config.model.position_grid is not None:
    return config
  if checkpoints.holds_any(workdir):
    own = checkpoints.saved_config(workdir)
    found = own and own['model'].get('position_grid')
  elif checkpoints.holds_any(config.init_from.path):
    saved = checkpoints.saved_config(config.init_from.path)
    found = saved and learned_on(saved['model'])
  else:
    description = foreign.describe(config.init_from.path)
    found = None
    # What the shapes do not tell is taken to be as in this run.
    told = not {'num_frames', 'image_size'} & set(description.unknown)
    # An image has no time to be stretched: its tables are tiled.
    if told and not foreign.is_inflated(description, config.model.num_frames):
      found = learned_on(dict(description.model))
  if not found or tuple(found) == _grid(config.model):
    return config
  config = config.copy_and_resolve_references()
  config.model.position_grid = tuple(found)
  return config


def weights(
  config: ConfigDict, model: Any
) -> Callable[[], transfer.Weights] | None:
  """What finds the weights that `config.init_from` names.

  Args:
    config: The experiment.
    model: What is trained.

  Returns:
    A function that finds them: those of a run, or public ones, see `foreign`;
    None where the experiment names none.
  """
  path = config.init_from.path
  inflate = config.init_from.inflate.to_dict()
  if not path:
    return None
  statistics = {
    name: tuple(config.preprocess[name]) for name in ('mean', 'std')
  }

  def find() -> transfer.Weights:
    if checkpoints.holds_any(path):
      return checkpoints.weights_of(path)
    return foreign.weights_of(path, statistics, model, inflate)

  return find


def learned_on(model: dict) -> Grid:
  """The grid that the position tables of a saved model come from.

  Args:
    model: The section `model` of its config.

  Returns:
    Tokens along time, height and width: the model's own, unless its tables were
    resized themselves.
  """
  frames, height, width = model.get('position_grid') or _grid(model)
  return frames, height, width


def _grid(model: dict | ConfigDict) -> Grid:
  _, tubelet = variants.parse(model['variant'])
  height, width = model['image_size']
  return tubelets.grid(model['num_frames'], (height, width), tubelet)
