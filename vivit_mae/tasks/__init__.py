"""What is learned: one file per task, one small contract.

A task ties a model to its loss. It holds no state: parameters come in, the
loss and its metrics go out, so any loop can train it.
"""

from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import jax
import ml_collections
from clu import metrics as clu_metrics
from jaxtyping import Array, Float, Key

from vivit_mae.tasks import mae

Variables = dict[str, Any]
Batch = dict[str, jax.Array]


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


_TASKS = {'mae': mae.from_config}


def build(config: ml_collections.ConfigDict) -> Task:
  """Builds the task that `config.task` names.

  Args:
    config: an experiment's configuration, see `vivit_mae/config.py`.

  Returns:
    The task.

  Raises:
    ValueError: if `config.task` is unknown, or its fields do not fit.
  """
  if config.task not in _TASKS:
    raise ValueError(
      f'config.task is {config.task!r}; known tasks: {sorted(_TASKS)}.'
    )
  return _TASKS[config.task](config)
