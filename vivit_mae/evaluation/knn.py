"""What frozen features know: classes by the nearest training videos.

Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance
Discrimination", CVPR 2018, section 3.4, as DINO uses it: the k training clips
of the largest cosine similarity s vote with weights exp(s / temperature).
Nothing is learned, so that the numbers tell of the encoder alone; it works on
pretraining and on classifiers.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from jaxtyping import Array, Float, Int, UInt8

from vivit_mae.data import datasets, pipeline
from vivit_mae.evaluation import scoring, subsets
from vivit_mae.models import transformer
from vivit_mae.tasks import classify, mae, metrics

# Similarities held at a time: queries x training clips.
_CHUNK = 2**24
# Name of what the model itself makes of a clip, among the features.
_POOLED = 'pooled'

Task = classify.Classification | mae.MaskedAutoencoding


@dataclasses.dataclass(frozen=True)
class Evaluator:
  """Classifies held-out videos by their nearest training videos.

  One clip from the middle of each video, its centre; the training videos are
  those of `data.split`. Yields the numbers of `metrics.summarise`; those of
  `depths` are called `block_<n>_...`, after n blocks.

  Attributes:
    task: what was trained.
    source: the held-out videos.
    data: the config's `data` section.
    put: puts a host's rows onto its devices as one global batch.
    num_devices: the batch is a multiple of it.
    workdir: not used.
    k: how many neighbours vote; fewer where there are not as many.
    temperature: the lower, the more the nearest count.
    depths: after which blocks the tokens are looked at too, counted from 1:
      their mean, without the encoder's norm.
    num_clips: how many held-out videos, taken evenly; None for all.
    num_train_clips: likewise of the training videos.
    batch_size: clips of one batch, over all devices.
  """

  task: Task
  source: datasets.Source
  data: Mapping[str, Any]
  put: scoring.Put
  num_devices: int
  workdir: epath.Path
  k: int = 20
  temperature: int | float = 0.07
  depths: tuple[int, ...] = ()
  num_clips: int | None = None
  num_train_clips: int | None = None
  batch_size: int = 16

  def __post_init__(self):
    if not any(scoring.named_classes(self.source).values()):
      raise ValueError(
        f"an evaluator of kind 'knn' needs labels; {self.source.name} has none."
      )
    if self.k < 1 or self.temperature <= 0:
      raise ValueError(
        f'k is {self.k} and temperature {self.temperature}: k is at least 1 '
        'and the temperature above 0.'
      )
    layers = self.task.model.num_layers
    if not all(1 <= depth <= layers for depth in self.depths):
      raise ValueError(
        f'depths are {self.depths}: the encoder has the blocks 1 to {layers}.'
      )

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
    known = datasets.labelled(datasets.source_from(self.data))
    train, labels = self._features(variables, known, self.num_train_clips)
    test, test_labels = self._features(variables, self.source, self.num_clips)
    names = scoring.named_classes(self.source)
    for name in train:
      scores = metrics.Scores(
        index=np.arange(len(test[name])),
        probabilities={
          head: vote(
            test[name],
            train[name],
            rows,
            len(names[head]),
            k=self.k,
            temperature=self.temperature,
          )
          for head, rows in labels.items()
        },
        labels=test_labels,
      )
      prefix = '' if name == _POOLED else f'{name}_'
      for number, value in metrics.summarise(scores).items():
        yield f'{prefix}{number}', value

  def _features(
    self,
    variables: Mapping[str, Any],
    source: datasets.Source,
    count: int | None,
  ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Features by name, and labels by head, of the videos of a source."""
    model = self.task.model
    batches = pipeline.eval_iterator(
      subsets.take(source, count),
      self.data,
      num_frames=model.num_frames,
      image_size=model.image_size,
      batch_size=scoring.batch_size(self.batch_size, self.num_devices),
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    )
    gathered = list(scoring.gather(self._rows, variables, batches, self.put))
    features, labels = (
      {
        name: np.concatenate([rows[kind][name] for rows in gathered])
        for name in gathered[0][kind]
      }
      for kind in ('results', 'labels')
    )
    return features, labels

  @functools.cached_property
  def _rows(self) -> Callable[..., dict[str, jax.Array]]:
    return scoring.jit_rows(functools.partial(embed, self.task, self.depths))


def embed(
  task: Task,
  depths: Sequence[int],
  variables: Mapping[str, Any],
  video: UInt8[Array, 'b t h w c'],
) -> dict[str, Float[Array, 'b _']]:
  """Turns clips into vectors, without learning anything.

  Args:
    task: whose model; a classifier pools as it does, a masked autoencoder
      gives the mean of its tokens.
    depths: after which blocks the mean of the tokens is taken too, from 1. The
      temporal blocks of model 2 are counted on after the spatial ones.
    variables: the model's variables.
    video: clips.

  Returns:
    `pooled`, and `block_<n>` for each depth n.
  """
  # The same parameters; but what is inside a scan can not be looked at.
  model = task.model.clone(scan=False, remat='none')
  options = {
    'deterministic': True,
    'mutable': ['intermediates'],
    'capture_intermediates': lambda module, method: (
      isinstance(module, transformer.Block) and method == '__call__'
    ),
  }
  if isinstance(task, mae.MaskedAutoencoding):
    _, inputs = task.inputs(video)
    tokens, seen = model.apply(variables, inputs, method='features', **options)
    found = {_POOLED: tokens.mean(axis=1)}
  else:
    inputs = task.inputs(video)
    pooled, seen = model.apply(variables, inputs, method='pooled', **options)
    found = {_POOLED: pooled}
  for path, x in jax.tree.leaves_with_path(seen['intermediates']):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    depth = model.layer_of(name)
    if depth in depths:
      found[f'block_{depth:02d}'] = x.reshape(len(video), -1, x.shape[-1]).mean(
        axis=1
      )
  return found


def vote(
  queries: Float[np.ndarray, 'q d'],
  known: Float[np.ndarray, 'n d'],
  labels: Int[np.ndarray, 'n'] | Float[np.ndarray, 'n c'],
  classes: int,
  *,
  k: int = 20,
  temperature: int | float = 0.07,
) -> Float[np.ndarray, 'q c']:
  """Lets the most similar of the known vectors vote for their classes.

  Args:
    queries: vectors to classify.
    known: vectors of known classes.
    labels: their classes, -1 for none, or 1 for each class that applies.
    classes: how many there are.
    k: how many vote.
    temperature: votes weigh exp(cosine similarity / temperature).

  Returns:
    The share of the votes that each class gets.
  """
  if labels.ndim == 1:
    labels = np.where(
      labels[:, None] < 0, -1, labels[:, None] == np.arange(classes)
    )
  labelled = (labels >= 0).all(axis=1)
  known, votes = _unit(known[labelled]), labels[labelled].astype(np.float64)
  k = min(k, len(known))
  if not k:
    return np.full((len(queries), classes), 1 / classes)
  shares = []
  size = max(1, _CHUNK // len(known))
  for start in range(0, len(queries), size):
    similar = _unit(queries[start : start + size]) @ known.T
    # Sorted, so that of equal neighbours the first vote whatever k is.
    nearest = np.argsort(-similar, axis=1, kind='stable')[:, :k]
    least = np.take_along_axis(similar, nearest, axis=1).astype(np.float64)
    weights = np.exp((least - 1) / temperature)
    weights /= weights.sum(axis=1, keepdims=True)
    shares.append(np.einsum('qk,qkc->qc', weights, votes[nearest]))
  return np.concatenate(shares)


def _unit(vectors: Float[np.ndarray, 'n d']) -> Float[np.ndarray, 'n d']:
  length = np.linalg.norm(vectors, axis=1, keepdims=True)
  return vectors / np.maximum(length, 1e-12)
