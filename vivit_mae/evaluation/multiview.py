"""Testing with several views of each video, as papers report accuracy.

Clips from several places in time, and of each several crops along the longer
side, are classified one by one; their scores are averaged. 5 x 3 views are
usual for Kinetics, 2 x 3 for Something-Something (VideoMAE), 7 x 3 and 10 x 3
in MAE-ST, 4 x 3 in ViViT.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from jaxtyping import UInt8

from vivit_mae.data import datasets, pipeline, sampling
from vivit_mae.evaluation import (
  confusion,
  pictures,
  predictions,
  scoring,
  subsets,
)
from vivit_mae.models import layers
from vivit_mae.tasks import classify, metrics


@dataclasses.dataclass(frozen=True)
class Evaluator:
  """Classifies held-out videos by the mean over many views.

  Yields the numbers of `metrics.summarise`, and for each head with one label a
  video its confusion matrix as a picture. What was predicted for each video is
  written to `<workdir>/predictions/step_<step>.csv`, the pictures beside it.

  Attributes:
    task: what was trained.
    source: the held-out videos.
    data: the config's `data` section.
    put: puts a host's rows onto its devices as one global batch.
    num_devices: the batch is a multiple of it.
    workdir: where the files go.
    segments: places in time.
    crops: places along the longer side of the frame.
    sampling: how frames are chosen instead of `data.sampling`, such as 'dense'
      or 'segments'; '' for no change.
    average: 'softmax' averages probabilities, 'logits' what they come from.
    num_clips: how many videos, taken evenly; None for all.
    batch_size: views of one batch, over all devices.
    predictions: a name in `predictions.FORMATS`, or '' for no file.
    confusion: whether confusion matrices are drawn.
  """

  task: classify.Classification
  source: datasets.Source
  data: Mapping[str, Any]
  put: scoring.Put
  num_devices: int
  workdir: epath.Path
  segments: int = 5
  crops: int = 3
  sampling: str = ''
  average: str = 'softmax'
  num_clips: int | None = None
  batch_size: int = 16
  predictions: str = 'csv'
  confusion: bool = True

  def __post_init__(self):
    scoring.class_names(self.task, self.source)
    layers.check_choice('average', self.average, scoring.AVERAGES)
    predictions.check_format(self.predictions)
    if self.sampling:
      layers.check_choice('sampling', self.sampling, sampling.SAMPLINGS)
    for field in ('segments', 'crops', 'batch_size'):
      if getattr(self, field) < 1:
        raise ValueError(
          f'{field} is {getattr(self, field)}; it is at least 1.'
        )

  def scores(self, variables: Mapping[str, Any]) -> metrics.Scores:
    """The mean scores of each video over its views, the same on every host."""
    model = self.task.model
    source = self._source
    data = dict(self.data)
    if self.sampling:
      data['sampling'] = self.sampling
    batches = pipeline.multiview_iterator(
      source,
      data,
      num_frames=model.num_frames,
      image_size=model.image_size,
      batch_size=scoring.batch_size(self.batch_size, self.num_devices),
      num_segments=self.segments,
      num_crops=self.crops,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    )
    return scoring.score(
      scoring.gather(self._rows, variables, batches, self.put),
      num_videos=len(source),
      num_views=self.segments * self.crops,
      multi_label=self.task.multi_label,
      average=self.average,
    )

  def run(
    self, variables: Mapping[str, Any], step: int
  ) -> Iterator[tuple[str, float | UInt8[np.ndarray, 'h w 3']]]:
    """Classifies the videos.

    Args:
      variables: the model's variables.
      step: the step they were trained for; it names the files.

    Yields:
      Pairs of a name and a number or a picture.
    """
    scores = self.scores(variables)
    names = scoring.class_names(self.task, self.source)
    folder = self.workdir / 'predictions'
    stem = f'step_{step:08d}'
    first = jax.process_index() == 0
    if self.predictions and first:
      ids = [self._source[int(index)].id for index in scores.index]
      table = predictions.columns(scores, ids, names)
      predictions.write(folder / f'{stem}.{self.predictions}', table)
    yield from metrics.summarise(scores).items()
    if not self.confusion or self.task.multi_label:
      return
    for head, labels in scores.labels.items():
      prefix = f'{head}_' if len(scores.labels) > 1 else ''
      picture = self._confusion(scores, head, labels, names[head])
      yield f'{prefix}confusion', picture
      if first:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f'{stem}_{prefix}confusion.png'
        path.write_bytes(pictures.png(picture))

  def _confusion(
    self,
    scores: metrics.Scores,
    head: str,
    labels: np.ndarray,
    names: tuple[str, ...],
  ) -> UInt8[np.ndarray, 'h w 3']:
    predicted = scores.probabilities[head].argmax(axis=1)
    counts = metrics.confusion(labels, predicted, len(names))
    total = int(counts.sum())
    title = (
      f'{int(np.trace(counts))} of {total} videos right, '
      f'{self.segments} x {self.crops} views'
    )
    return confusion.picture(counts, names, title)

  @property
  def _source(self) -> datasets.Source:
    return subsets.take(self.source, self.num_clips)

  @functools.cached_property
  def _rows(self) -> Callable[..., dict[str, jax.Array]]:
    return scoring.jit_rows(self.task.logits)
