"""Tiny experiments of classification."""

from ml_collections import ConfigDict

from vivit_mae import config as config_lib


def tiny(**sections) -> ConfigDict:
  """A model of two blocks on four frames of 16 x 16 pixels."""
  config = config_lib.defaults('classify')
  config.model.update(
    variant='Ti/8x2',
    num_frames=4,
    image_size=(16, 16),
    width=16,
    depth=2,
    heads=2,
    mlp_dim=32,
  )
  config.data.stride = 1
  config.total_steps = 1
  for name, fields in sections.items():
    for key, value in fields.items():
      if isinstance(value, dict):
        config[name][key].update(value)
      else:
        config[name][key] = value
  return config
