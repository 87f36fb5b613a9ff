"""Video transformers and masked-autoencoder pretraining in JAX/Flax."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from vivit_mae.loaded import Info, Loaded, read_clip
  from vivit_mae.loading import load

__all__ = ['Info', 'Loaded', 'load', 'read_clip']
__version__ = '0.1.0'


def __getattr__(name: str) -> Any:
  """Imports what loads weights when it is asked for: it is heavy."""
  if name not in __all__:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  from vivit_mae import loaded, loading

  return getattr(loading if name == 'load' else loaded, name)
