"""What a new run takes over from the run whose weights it starts with."""

from etils import epath
from ml_collections import ConfigDict

from vivit_mae.masking import Grid
from vivit_mae.models import tubelets, variants
from vivit_mae.training import checkpoints


def inherit(config: ConfigDict, workdir: epath.Path) -> ConfigDict:
  """Fills in `model.position_grid`, where the experiment leaves it open.

  Position tables of another number of frames or another image size are resized
  from the grid of tokens that they were learned on. A run finds it in the
  `config.json` of the run at `init_from.path`; one that has checkpoints of its
  own, in its own, and needs the other run no more.

  Args:
    config: The experiment.
    workdir: The folder of this run.

  Returns:
    The experiment, with the grid if it is another than the model's own.

  Raises:
    ValueError: `init_from.path` is given and holds no checkpoint.
  """
  if not config.init_from.path or config.model.position_grid is not None:
    return config
  if checkpoints.holds_any(workdir):
    own = checkpoints.saved_config(workdir)
    found = own and own['model'].get('position_grid')
  else:
    saved = checkpoints.saved_config(config.init_from.path)
    found = saved and learned_on(saved['model'])
  if not found or tuple(found) == _grid(config.model):
    return config
  config = config.copy_and_resolve_references()
  config.model.position_grid = tuple(found)
  return config


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
