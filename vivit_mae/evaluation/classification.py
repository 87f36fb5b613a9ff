"""Accuracy on one clip from the middle of each held-out video."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
from etils import epath

from vivit_mae.data import datasets, pipeline
from vivit_mae.evaluation import scoring, subsets
from vivit_mae.tasks import classify, metrics


@dataclasses.dataclass(frozen=True)
class Evaluator:
  """Classifies the middle of each held-out video, its centre crop.

  Yields the numbers of `metrics.summarise`.

  Attributes:
    task: what was trained.
    source: the held-out videos.
    data: the config's `data` section.
    put: puts a host's rows onto its devices as one global batch.
    num_devices: the batch is a multiple of it.
    workdir: not used.
    num_clips: how many videos, taken evenly; None for all.
    batch_size: clips of one batch, over all devices.
  """

  task: classify.Classification
  source: datasets.Source
  data: Mapping[str, Any]
  put: scoring.Put
  num_devices: int
  workdir: epath.Path
  num_clips: int | None = None
  batch_size: int = 16

  def __post_init__(self):
    scoring.class_names(self.task, self.source)

  def run(
    self, variables: Mapping[str, Any], step: int
  ) -> Iterator[tuple[str, float]]:
    """Classifies the videos.

    Args:
      variables: the model's variables.
      step: not used.

    Yields:
      Pairs of a name and a number.
    """
    del step
    model = self.task.model
    source = subsets.take(self.source, self.num_clips)
    batches = pipeline.eval_iterator(
      source,
      self.data,
      num_frames=model.num_frames,
      image_size=model.image_size,
      batch_size=scoring.batch_size(self.batch_size, self.num_devices),
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    )
    scores = scoring.score(
      scoring.gather(self._rows, variables, batches, self.put),
      num_videos=len(source),
      multi_label=self.task.multi_label,
    )
    yield from metrics.summarise(scores).items()

  @functools.cached_property
  def _rows(self) -> Callable[..., dict[str, jax.Array]]:
    return scoring.jit_rows(self.task.logits)
