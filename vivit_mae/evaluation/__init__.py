"""Evaluators: one file each, run by the loop or by a tool."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import ml_collections
import numpy as np
from etils import epath
from jaxtyping import UInt8

from vivit_mae import tasks
from vivit_mae.data import datasets
from vivit_mae.evaluation import (
  classification,
  knn,
  multiview,
  reconstruction,
)
from vivit_mae.tasks import classify, mae

Put = Callable[[Mapping[str, np.ndarray]], dict[str, jax.Array]]


@runtime_checkable
class Evaluator(Protocol):
  """The contract between the loop and what looks at its results."""

  def run(
    self, variables: Mapping[str, Any], step: int
  ) -> Iterator[tuple[str, float | UInt8[np.ndarray, 'h w 3']]]:
    """Yields names with numbers or with pictures."""
    ...


_EVALUATORS: dict[str, Callable[..., Evaluator]] = {
  'accuracy': classification.Evaluator,
  'knn': knn.Evaluator,
  'multiview': multiview.Evaluator,
  'reconstruction': reconstruction.Evaluator,
}

# What config.task an evaluator looks at, where not at any.
_NEEDS = {
  'accuracy': ('classify', classify.Classification),
  'multiview': ('classify', classify.Classification),
  'reconstruction': ('mae', mae.MaskedAutoencoding),
}


def build(
  config: ml_collections.ConfigDict,
  task: tasks.Task,
  *,
  put: Put,
  num_devices: int,
  workdir: epath.Path,
) -> dict[str, Evaluator]:
  """Builds the evaluators that `config.evals` names.

  Args:
    config: an experiment's configuration; `evals` maps names to the fields of
      an evaluator, its `kind` and, where it is not `data.eval_split`, its
      `split`. When they run is the loop's business.
    task: what is trained.
    put: puts a host's rows onto its devices as one global batch.
    num_devices: batches are made a multiple of it.
    workdir: where pictures and tables go.

  Returns:
    The evaluators by name.

  Raises:
    ValueError: an unknown kind or field, or no held-out videos.
  """
  evaluators = {}
  data = config.data.to_dict()
  for name, section in config.evals.items():
    fields = {k: v for k, v in section.items() if k not in _SCHEDULE}
    kind = fields.pop('kind')
    if kind not in _EVALUATORS:
      raise ValueError(
        f'config.evals.{name}.kind is {kind!r}; known kinds: '
        f'{sorted(_EVALUATORS)}.'
      )
    name_needed, needed = _NEEDS.get(kind, ('', object))
    if not isinstance(task, needed):
      raise ValueError(
        f'config.evals.{name}: an evaluator of kind {kind!r} needs '
        f'config.task={name_needed!r}, not {config.task!r}.'
      )
    split = fields.pop('split', data['eval_split'])
    source = datasets.source_from(data, split)
    try:
      evaluators[name] = _EVALUATORS[kind](
        task=task,
        source=source,
        data=data,
        put=put,
        num_devices=num_devices,
        workdir=workdir,
        **fields,
      )
    except (TypeError, ValueError) as error:
      raise ValueError(f'config.evals.{name}: {error}') from error
  return evaluators


# Fields of an evaluator's section that say when it runs.
_SCHEDULE = ('every_steps', 'every_epochs')
