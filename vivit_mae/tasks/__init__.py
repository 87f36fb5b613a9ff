"""What is learned: one file per task, one small contract.

A task ties a model to its loss. It holds no state: parameters come in, the
loss and its metrics go out, so any loop can train it.
"""

from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import ml_collections
import numpy as np
from clu import metrics as clu_metrics
from jaxtyping import Array, Float, Key, Shaped

from vivit_mae.tasks import classify, mae

Variables = dict[str, Any]
Batch = dict[str, Any]


@runtime_checkable
class Task(Protocol):
  """The contract between the training loop and what it trains."""

  @property
  def model(self) -> nn.Module:
    """The Flax module that is trained."""
    ...

  def init(self, rng: Key[Array, '']) -> Variables:
    """Fresh variables: `params`, and other collections if there are any."""
    ...

  def loss(
    self, variables: Variables, batch: Batch, rngs: Key[Array, 'b']
  ) -> tuple[Float[Array, ''], tuple[clu_metrics.Collection, Variables]]:
    """The training loss, its metrics and the mutated collections.

    Args:
      variables: as returned by `init`.
      batch: see `docs/design.md`, contract "Batch".
      rngs: one key per row of the batch; all randomness comes from them.

    Returns:
      A scalar float32, and `(metrics, mutated)`.
    """
    ...

  def flops_per_clip(self) -> float:
    """Operations of one clip's forward pass; a step costs three times it."""
    ...

  @property
  def num_layers(self) -> int:
    """Blocks of the encoder, for layer-wise decay of the learning rate."""
    ...

  def layer_of(self, name: str) -> int:
    """The layer of a parameter by its name, 'encoder/block_00/norm1/bias'.

    Args:
      name: names on the way to the parameter, joined by '/'.

    Returns:
      0 for what comes before the first block, i + 1 for block i, and
      `num_layers + 1` for all behind.
    """
    ...

  @property
  def frozen(self) -> tuple[str, ...]:
    """Regular expressions of parameters that the task does not train."""
    ...

  def adapt(
    self,
    name: str,
    saved: Shaped[np.ndarray, '...'],
    wanted: tuple[int, ...],
  ) -> Shaped[np.ndarray, '...'] | None:
    """Fits a parameter of a checkpoint, of another shape, to the model.

    Args:
      name: of the parameter.
      saved: its value in the checkpoint.
      wanted: its shape in the model.

    Returns:
      The parameter in the wanted shape, or None where it does not fit.
    """
    ...


_TASKS = {
  'classify': classify.from_config,
  'mae': lambda config, class_names, multi_label: mae.from_config(config),
}


def build(
  config: ml_collections.ConfigDict,
  *,
  class_names: classify.ClassNames = (),
  multi_label: bool = False,
) -> Task:
  """Builds the task that `config.task` names.

  Args:
    config: an experiment's configuration, see `vivit_mae/config.py`.
    class_names: the names of the classes in the data, for several heads those
      of each; pretraining asks for none.
    multi_label: whether the videos of the data may have several labels.

  Returns:
    The task.

  Raises:
    ValueError: if `config.task` is unknown, or its fields do not fit.
  """
  if config.task not in _TASKS:
    raise ValueError(
      f'config.task is {config.task!r}; known tasks: {sorted(_TASKS)}.'
    )
  return _TASKS[config.task](config, class_names, multi_label)
