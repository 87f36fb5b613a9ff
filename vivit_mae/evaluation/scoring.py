"""From batches of clips to the scores of videos, each view counted once.

Scores are averaged on the host in float64, in the order of the views, when a
video has all of them: how views fall into batches, what pads the last one and
how many devices or hosts there are changes nothing.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array, Float

from vivit_mae.data import datasets
from vivit_mae.models import heads
from vivit_mae.tasks import classify, metrics

_log = logging.getLogger(__name__)

Batch = Mapping[str, Any]
Put = Callable[[Mapping[str, np.ndarray]], dict[str, jax.Array]]
Forward = Callable[[Mapping[str, Any], Array], dict[str, Array]]
AVERAGES = ('softmax', 'logits')

# What marks the labels among the arrays of a flat batch.
_LABEL = 'label.'
_RESULT = 'result.'


def named_classes(source: datasets.Source) -> dict[str, tuple[str, ...]]:
  """A source's class names by head; without a head's name it is 'label'."""
  given = source.class_names
  named = given if isinstance(given, Mapping) else {heads.SINGLE: given}
  return {head: tuple(names) for head, names in named.items()}


def class_names(
  task: classify.Classification, source: datasets.Source
) -> dict[str, tuple[str, ...]]:
  """The names of the classes of each head.

  Args:
    task: whose heads.
    source: whose names; a source without any gives numbers.

  Returns:
    Names by head.

  Raises:
    ValueError: the source has other heads or other numbers of classes.
  """
  names = named_classes(source)
  if not any(names.values()):
    return {
      head: tuple(map(str, range(count))) for head, count in task.heads.items()
    }
  counts = {head: len(classes) for head, classes in names.items()}
  if counts != task.heads:
    raise ValueError(
      f'{source.name} has classes {counts}, and the model {task.heads}: they '
      'must be the same.'
    )
  return names


def jit_rows(forward: Forward) -> Callable[..., dict[str, Array]]:
  """Compiles what runs a model on a batch and hands the rest of it on.

  Args:
    forward: variables and clips -> named arrays of one row a clip.

  Returns:
    A function of variables and a flat batch.
  """

  @jax.jit
  def run(
    variables: Mapping[str, Any], batch: Mapping[str, Array]
  ) -> dict[str, Array]:
    found = forward(variables, batch['video'])
    others = {name: batch[name] for name in batch if name != 'video'}
    return others | {f'{_RESULT}{name}': x for name, x in found.items()}

  return run


def gather(
  run: Callable[..., dict[str, Array]],
  variables: Mapping[str, Any],
  batches: Iterable[Batch],
  put: Put,
) -> Iterator[dict[str, Any]]:
  """Runs batches and brings the rows of all hosts together.

  The next batch is on its way to the devices while the last is fetched.

  Args:
    run: from `jit_rows`.
    variables: its first argument.
    batches: this host's; all hosts have equally many.
    put: puts a host's rows onto its devices as one global batch.

  Yields:
    `index` and `view` of the valid rows, their `labels` and their `results`
    by name.
  """
  running = None
  for batch in batches:
    started = run(variables, put(_flat(batch)))
    if running is not None:
      yield _fetch(running)
    running = started
  if running is not None:
    yield _fetch(running)


def _flat(batch: Batch) -> dict[str, np.ndarray]:
  """A batch without nested labels, with the numbers of its views."""
  # 'to_rgb' comes with pixels that are not RGB yet.
  names = ('video', 'to_rgb', 'index', 'valid')
  flat = {name: batch[name] for name in names if name in batch}
  flat['view'] = batch.get('view', np.zeros_like(batch['index']))
  labels = batch.get('label', {})
  if not isinstance(labels, Mapping):
    labels = {'label': labels}
  return flat | {f'{_LABEL}{head}': rows for head, rows in labels.items()}


def _fetch(running: Mapping[str, Array]) -> dict[str, Any]:
  found = multihost_utils.process_allgather(dict(running), tiled=True)
  valid = np.asarray(found.pop('valid'))
  rows = {name: np.asarray(values)[valid] for name, values in found.items()}

  def named(prefix: str) -> dict[str, np.ndarray]:
    return {
      name.removeprefix(prefix): values
      for name, values in rows.items()
      if name.startswith(prefix)
    }

  return {
    'index': rows['index'],
    'view': rows['view'],
    'labels': named(_LABEL),
    'results': named(_RESULT),
  }


def score(
  gathered: Iterable[Mapping[str, Any]],
  *,
  num_videos: int,
  num_views: int = 1,
  multi_label: bool = False,
  average: str = 'softmax',
) -> metrics.Scores:
  """Averages the views of each video.

  Args:
    gathered: from `gather`, with logits for results.
    num_videos: how many there are; fewer is said in the log.
    num_views: of each video. One that lacks any is left out.
    multi_label: whether probabilities are sigmoids.
    average: 'softmax' averages the probabilities of the views (VideoMAE,
      MAE-ST), 'logits' what they are made of (Scenic).

  Returns:
    The scores by ascending index.
  """
  views: dict[int, dict[int, dict[str, np.ndarray]]] = {}
  videos: dict[int, dict[str, np.ndarray]] = {}
  labels: dict[int, dict[str, np.ndarray]] = {}
  for rows in gathered:
    keys = zip(rows['index'].tolist(), rows['view'].tolist(), strict=True)
    for row, (index, view) in enumerate(keys):
      seen = views.setdefault(index, {})
      if index in videos or view in seen:
        raise RuntimeError(f'view {view} of video {index} has come twice')
      seen[view] = {head: x[row] for head, x in rows['results'].items()}
      if len(seen) == num_views:
        labels[index] = {
          head: x[row, ...] for head, x in rows['labels'].items()
        }
        videos[index] = _mean(views.pop(index), multi_label, average)
  if len(videos) < num_videos:
    _log.warning(
      '%d of %d videos could not be read and are counted nowhere',
      num_videos - len(videos),
      num_videos,
    )
  order = sorted(videos)
  return metrics.Scores(
    index=np.asarray(order, np.int64),
    probabilities=_stacked([videos[index] for index in order]),
    labels=_stacked([labels[index] for index in order]),
  )


def _mean(
  views: Mapping[int, Mapping[str, np.ndarray]], multi_label: bool, average: str
) -> dict[str, Float[np.ndarray, 'c']]:
  """The probabilities of a video from the logits of its views."""
  found = {}
  for head in views[next(iter(views))]:
    logits = np.stack([views[view][head] for view in sorted(views)])
    logits = logits.astype(np.float64)
    if average == 'logits':
      logits = logits.mean(axis=0, keepdims=True)
    found[head] = _probabilities(logits, multi_label).mean(axis=0)
  return found


def _probabilities(
  logits: Float[np.ndarray, 'n c'], multi_label: bool
) -> Float[np.ndarray, 'n c']:
  if multi_label:
    return 0.5 * (1 + np.tanh(0.5 * logits))  # a sigmoid that never overflows
  shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
  return shares / shares.sum(axis=-1, keepdims=True)


def _stacked(
  rows: Sequence[Mapping[str, np.ndarray]],
) -> dict[str, np.ndarray]:
  heads = rows[0] if rows else ()
  return {head: np.stack([row[head] for row in rows]) for head in heads}


def batch_size(wanted: int, num_devices: int) -> int:
  """The least multiple of the devices that holds the rows wanted."""
  return num_devices * -(-wanted // num_devices)
