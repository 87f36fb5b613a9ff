"""Numbers about classified videos, computed once from the scores of all.

The scores of every video are brought together first, each exactly once, and
the numbers made from all of them, in float64 on the host. So neither batches
nor hosts nor padding can have a part in them, and what is no mean over rows,
like mean class accuracy or mean average precision, needs no care of its own.
"""

import dataclasses
import itertools
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Int

# The least probability that a logarithm is taken of.
_TINY = 1e-30
_TOP = 5


@dataclasses.dataclass(frozen=True)
class Scores:
  """What a classifier says of videos, one row each, by ascending index.

  Attributes:
    index: `[n]`, rows of the videos in their source.
    probabilities: for each head `[n, c]`.
    labels: for each head the classes `[n]`, -1 for none, or for several
      labels a video 0 and 1 in `[n, c]`, negative for unknown. Empty where the
      source has no labels.
  """

  index: Int[np.ndarray, 'n']
  probabilities: Mapping[str, Float[np.ndarray, 'n _']]
  labels: Mapping[str, Int[np.ndarray, 'n'] | Float[np.ndarray, 'n _']]


def summarise(scores: Scores) -> dict[str, float]:
  """The numbers of all heads.

  For one label a video: `loss` (the negative logarithm of its probability),
  `top1`, `top5` where there are more than five classes, and
  `mean_class_accuracy`; for several: `loss` (binary, summed over the classes)
  and `mean_average_precision`. The names of several heads begin with the
  head's, and `joint_top1` and `joint_top5` are of all heads together.

  Args:
    scores: what the classifier says. Rows without a label count nowhere.

  Returns:
    The numbers by name; none where nothing has a label.
  """
  numbers = {}
  for head, labels in scores.labels.items():
    prefix = f'{head}_' if len(scores.labels) > 1 else ''
    found = _head(np.asarray(scores.probabilities[head], np.float64), labels)
    numbers |= {f'{prefix}{name}': value for name, value in found.items()}
  if len(scores.labels) > 1 and all(
    x.ndim == 1 for x in scores.labels.values()
  ):
    numbers |= _joint(scores)
  return numbers


def _head(
  probabilities: Float[np.ndarray, 'n c'],
  labels: Int[np.ndarray, 'n'] | Float[np.ndarray, 'n c'],
) -> dict[str, float]:
  """The numbers of one head."""
  labelled = labels >= 0 if labels.ndim == 1 else (labels >= 0).all(axis=1)
  if not labelled.any():
    return {}
  probabilities, labels = probabilities[labelled], labels[labelled]
  if labels.ndim == 2:
    log_on = np.log(np.maximum(probabilities, _TINY))
    log_off = np.log(np.maximum(1 - probabilities, _TINY))
    loss = -(labels * log_on + (1 - labels) * log_off).sum(axis=1)
    return {
      'loss': float(loss.mean()),
      'mean_average_precision': mean_average_precision(
        probabilities, labels > 0.5
      ),
    }
  classes = probabilities.shape[1]
  own = probabilities[np.arange(len(labels)), labels]
  numbers = {
    'loss': float(-np.log(np.maximum(own, _TINY)).mean()),
    'top1': float((ranks(probabilities, labels) < 1).mean()),
  }
  if classes > _TOP:
    numbers['top5'] = float((ranks(probabilities, labels) < _TOP).mean())
  predicted = probabilities.argmax(axis=1)
  numbers['mean_class_accuracy'] = mean_class_accuracy(
    confusion(labels, predicted, classes)
  )
  return numbers


def ranks(
  scores: Float[np.ndarray, 'n c'], labels: Int[np.ndarray, 'n']
) -> Int[np.ndarray, 'n']:
  """The place of each row's own class among its scores, 0 for the highest.

  Of equal scores the class of the lower number comes first, as in argmax.
  """
  own = scores[np.arange(len(labels)), labels][:, None]
  earlier = np.arange(scores.shape[1]) < labels[:, None]
  return ((scores > own) | ((scores == own) & earlier)).sum(axis=1)


def confusion(
  labels: Int[np.ndarray, 'n'], predicted: Int[np.ndarray, 'n'], classes: int
) -> Int[np.ndarray, 'c c']:
  """How many videos of each class (row) were taken for each class (column).

  Args:
    labels: the true classes; rows below 0 are not counted.
    predicted: the predicted classes.
    classes: how many there are.

  Returns:
    The counts.
  """
  known = labels >= 0
  pairs = labels[known].astype(np.int64) * classes + predicted[known]
  counts = np.bincount(pairs, minlength=classes**2)
  return counts.reshape(classes, classes)


def mean_class_accuracy(counts: Int[np.ndarray, 'c c']) -> float:
  """Accuracy of each class, averaged over the classes that have videos.

  Args:
    counts: a confusion matrix, true classes in the rows.

  Returns:
    The mean; not a number where there is no video.
  """
  videos = counts.sum(axis=1)
  there = videos > 0
  if not there.any():
    return float('nan')
  return float((np.diag(counts)[there] / videos[there]).mean())


def average_precision(
  scores: Float[np.ndarray, 'n'], positive: Bool[np.ndarray, 'n']
) -> float:
  """Area under the steps of precision over recall, for one class.

  The sum over thresholds of the gain in recall times the precision there;
  equal scores pass a threshold together, so that the order of the rows has no
  part in it (the definition of scikit-learn).

  Args:
    scores: of each row.
    positive: whether it is of the class.

  Returns:
    The area, not a number where no row is of the class.
  """
  if not positive.any():
    return float('nan')
  order = np.argsort(-scores, kind='stable')
  last = np.append(np.diff(scores[order]) != 0, True)
  found = np.cumsum(positive[order])[last]
  taken = np.flatnonzero(last) + 1
  gains = np.diff(found, prepend=0) / found[-1]
  return float((gains * found / taken).sum())


def mean_average_precision(
  scores: Float[np.ndarray, 'n c'], positive: Bool[np.ndarray, 'n c']
) -> float:
  """Average precision, averaged over the classes that have videos."""
  each = [
    average_precision(scores[:, c], positive[:, c])
    for c in np.flatnonzero(positive.any(axis=0))
  ]
  return float(np.mean(each)) if each else float('nan')


def _joint(scores: Scores) -> dict[str, float]:
  """Accuracy of all heads together, taken as independent of each other.

  The probability of a combination is the product over the heads; its five
  likeliest are made of the five likeliest classes of each head
  (Epic-Kitchens' actions, verb and noun, as Scenic counts them).
  """
  heads = list(scores.labels)
  known = np.all([scores.labels[head] >= 0 for head in heads], axis=0)
  hits = []
  for row in np.flatnonzero(known):
    best = []
    for head in heads:
      ordered = np.argsort(-scores.probabilities[head][row], kind='stable')
      best.append(ordered[:_TOP].tolist())
    likeliest = sorted(
      itertools.product(*best),
      key=lambda classes: (
        -np.prod(
          [
            scores.probabilities[head][row, c]
            for head, c in zip(heads, classes, strict=True)
          ]
        )
      ),
    )
    own = tuple(int(scores.labels[head][row]) for head in heads)
    place = likeliest.index(own) if own in likeliest else len(likeliest)
    hits.append((place < 1, place < _TOP))
  if not hits:
    return {}
  top1, top5 = np.mean(hits, axis=0)
  return {'joint_top1': float(top1), 'joint_top5': float(top5)}
