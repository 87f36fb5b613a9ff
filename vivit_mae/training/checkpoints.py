"""Checkpoints of state and data together; the only file that imports orbax."""

import logging
import signal
import threading
import types
from collections.abc import Callable, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from vivit_mae.training.state import TrainState

_log = logging.getLogger(__name__)
_LISTED = 8


class Checkpoints:
  """The checkpoints of one workdir: `<workdir>/checkpoints/<step>`.

  Saving is asynchronous and atomic: one that was interrupted is never seen
  again. Kept are the last few, every n-th, and the best by a metric.
  """

  def __init__(
    self,
    workdir: epath.PathLike,
    *,
    keep_last: int = 2,
    keep_every_steps: int | None = None,
    best_metric: str = '',
    best_mode: str = 'min',
  ):
    """Opens the folder.

    Args:
      workdir: The run's folder; its `checkpoints` is created if missing.
      keep_last: How many of the newest are kept.
      keep_every_steps: Those of its multiples are kept too.
      best_metric: The one with the best value of it is kept too.
      best_mode: Whether 'min' or 'max' is best.
    """
    self.directory = epath.Path(workdir) / 'checkpoints'
    policies = ocp.checkpoint_managers
    keep: list[Any] = [policies.LatestN(keep_last)]
    if keep_every_steps is not None:
      keep.append(policies.EveryNSteps(keep_every_steps))
    self._best = best_metric
    self._sign = {'max': 1, 'min': -1}[best_mode]
    if self._best:
      keep.append(
        policies.BestN(
          get_metric_fn=self._score, n=1, keep_checkpoints_without_metrics=False
        )
      )
    self._manager = ocp.CheckpointManager(
      self.directory,
      options=ocp.CheckpointManagerOptions(
        preservation_policy=policies.AnyPreservationPolicy(keep),
        best_fn=self._score if self._best else None,
      ),
      item_handlers=_handlers(),
    )

  def __enter__(self) -> 'Checkpoints':
    return self

  def __exit__(self, *error: object) -> None:
    # Waits for a save that is still being written.
    self._manager.close()

  def _score(self, metrics: Mapping[str, float]) -> float:
    return self._sign * metrics[self._best]

  @property
  def latest(self) -> int | None:
    """The step of the newest checkpoint, None if there is none."""
    return self._manager.latest_step()

  @property
  def best(self) -> int | None:
    """The step of the best checkpoint, None if there is none."""
    scores = self._scores()
    return max(scores, key=lambda step: scores[step]) if scores else None

  def _scores(self) -> dict[int, float]:
    if not self._best:
      return {}
    saved = {s: self._manager.metrics(s) for s in self._manager.all_steps()}
    return {s: self._score(m) for s, m in saved.items() if m}

  def is_best(self, metrics: Mapping[str, float]) -> bool:
    """Whether the metrics of this step beat those of all checkpoints."""
    if not self._best or self._best not in metrics:
      return False
    return self._score(metrics) > max(
      self._scores().values(), default=float('-inf')
    )

  def save(
    self,
    step: int,
    state: TrainState,
    data: Mapping[str, Any],
    metrics: Mapping[str, float] | None = None,
  ) -> None:
    """Saves state and data as one step, unless that step is there already.

    Returns when the arrays have been copied; the writing goes on behind.

    Args:
      step: Updates done.
      state: The state after them.
      data: The state of the data, JSON.
      metrics: What was evaluated at this very step.
    """
    if step == self.latest:
      return
    metrics = metrics or {}
    self._manager.save(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardSave(state), data=ocp.args.JsonSave(dict(data))
      ),
      metrics=dict(metrics) if self._best in metrics else None,
      force=True,
    )

  def wait(self) -> None:
    """Waits until the last save lies on the disk."""
    self._manager.wait_until_finished()

  def preempted(self, step: int) -> bool:
    """Whether all hosts have agreed to stop at this step."""
    return self._manager.reached_preemption(step)


def initial_state(
  checkpoints: Checkpoints,
  abstract: TrainState,
  create: Callable[[], TrainState],
  *,
  resume: str = '',
  init_from: str = '',
) -> tuple[TrainState, dict[str, Any] | None]:
  """The state to begin with, from the first of four places that has one.

  1 this workdir; 2 `config.resume`, another workdir to go on from; 3
  `config.init_from.path`, a workdir to take the weights from; 4 scratch.
  Says in one line which it was.

  Args:
    checkpoints: Those of this workdir.
    abstract: The state as shapes with shardings.
    create: Makes a new state.
    resume: A workdir, its `checkpoints`, or one step of them; '' for none.
    init_from: Likewise.

  Returns:
    The state, and the data's (None: from the first row).

  Raises:
    ValueError: The checkpoint is of another architecture (names the leaves),
      or there is none where the config says.
  """
  if (step := checkpoints.latest) is not None:
    _log.info(
      'weights: this workdir, step %d (%s)', step, checkpoints.directory
    )
    return _restore(checkpoints.directory, step, abstract)
  if resume:
    directory, step = _find(resume, 'config.resume')
    _log.info('weights: config.resume, step %d (%s)', step, directory)
    return _restore(directory, step, abstract)
  if init_from:
    directory, step = _find(init_from, 'config.init_from.path')
    _log.info('weights: config.init_from, step %d (%s)', step, directory)
    return _load_weights(directory, step, create()), None
  _log.info('weights: new, from the seed')
  return create(), None


def _handlers() -> dict[str, Any]:
  return {
    'state': ocp.StandardCheckpointHandler(),
    'data': ocp.JsonCheckpointHandler(),
  }


def _find(path: str, field: str) -> tuple[epath.Path, int]:
  """The folder of checkpoints and the step that a path means."""
  given = epath.Path(path)
  if given.name.isdigit() and given.is_dir():
    return given.parent, int(given.name)
  for directory in (given / 'checkpoints', given):
    if directory.is_dir():
      with ocp.CheckpointManager(directory) as manager:
        step = manager.latest_step()
      if step is not None:
        return directory, step
  raise ValueError(
    f'{field}={path!r} holds no checkpoint; give a workdir, its folder '
    '"checkpoints", or one step in it'
  )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
  """Shapes of all leaves by their names, joined with slashes."""
  leaves = jax.tree.leaves_with_path(
    tree, is_leaf=lambda x: hasattr(x, 'shape')
  )
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): tuple(leaf.shape)
    for path, leaf in leaves
  }


def _saved_shapes(
  manager: ocp.CheckpointManager, step: int
) -> dict[str, tuple[int, ...]]:
  return _shapes(manager.item_metadata(step)['state'].tree)


def _names(title: str, names: list[str]) -> str:
  more = f' and {len(names) - _LISTED} more' if len(names) > _LISTED else ''
  return f'{title}: {", ".join(names[:_LISTED])}{more}' if names else ''


def _restore(
  directory: epath.Path, step: int, abstract: TrainState
) -> tuple[TrainState, dict[str, Any]]:
  """Restores state and data, each array to where `abstract` says."""
  with ocp.CheckpointManager(directory, item_handlers=_handlers()) as manager:
    saved, ours = _saved_shapes(manager, step), _shapes(abstract)
    differ = [
      f'{name} is {saved[name]} there and {ours[name]} here'
      for name in saved.keys() & ours.keys()
      if saved[name] != ours[name]
    ]
    parts = [
      _names('of another shape', sorted(differ)),
      _names('missing there', sorted(ours.keys() - saved.keys())),
      _names('unknown here', sorted(saved.keys() - ours.keys())),
    ]
    if any(parts):
      raise ValueError(
        f'the checkpoint {directory / str(step)} is of another model or '
        f'optimiser than the config. {"; ".join(filter(None, parts))}. Use '
        'another workdir, or the config that made it'
      )
    restored = manager.restore(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardRestore(abstract), data=ocp.args.JsonRestore()
      ),
    )
  return restored['state'], restored['data']


def _load_weights(
  directory: epath.Path, step: int, state: TrainState
) -> TrainState:
  """Replaces the parameters that the checkpoint has; reports the others."""
  ours = _shapes(state.params)
  with ocp.CheckpointManager(directory, item_handlers=_handlers()) as manager:
    saved = {
      name.removeprefix('params/'): shape
      for name, shape in _saved_shapes(manager, step).items()
      if name.startswith('params/')
    }
  common = saved.keys() & ours.keys()
  differ = sorted(
    f'{name} is {saved[name]} there and {ours[name]} here'
    for name in common
    if saved[name] != ours[name]
  )
  if differ or not common:
    raise ValueError(
      f'the weights of {directory / str(step)} do not fit this model. '
      + (_names('Of another shape', differ) or 'No parameter has the same name')
    )
  wanted: dict[str, Any] = {}
  flat = {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf
    for path, leaf in jax.tree.leaves_with_path(state.params)
  }
  for name in common:
    *parents, last = name.split('/')
    branch = wanted
    for parent in parents:
      branch = branch.setdefault(parent, {})
    branch[last] = jax.ShapeDtypeStruct(
      flat[name].shape, flat[name].dtype, sharding=flat[name].sharding
    )
  item = {'params': wanted}
  with ocp.CheckpointManager(directory) as manager:
    loaded = manager.restore(
      step,
      args=ocp.args.Composite(
        state=ocp.args.PyTreeRestore(
          item=item,
          restore_args=ocp.checkpoint_utils.construct_restore_args(item),
          partial_restore=True,
        )
      ),
    )['state']['params']
  found = {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf
    for path, leaf in jax.tree.leaves_with_path(loaded)
  }
  _log.info('loaded %d of the %d parameter arrays', len(common), len(ours))
  for title, names in (
    ('new in this model, from the seed', ours.keys() - common),
    ('not used', saved.keys() - common),
  ):
    if names:
      _log.info('%s', _names(title, sorted(names)))
  params = jax.tree.map_with_path(
    lambda path, leaf: found.get(
      jax.tree_util.keystr(path, simple=True, separator='/'), leaf
    ),
    state.params,
  )
  return TrainState(
    step=state.step,
    params=params,
    collections=state.collections,
    opt_state=state.opt_state,
  )


class StopSignal:
  """Notes SIGTERM and SIGINT, so that the loop can save before it leaves.

  A signal during compilation is noted as well, and acted on when that is over:
  nothing has been trained that could be lost. A second signal acts at once. On
  several hosts JAX's own handler makes all of them stop at one step.
  """

  def __init__(self):
    self.received: signal.Signals | None = None
    self._previous: dict[signal.Signals, Any] = {}

  def __enter__(self) -> 'StopSignal':
    main = threading.current_thread() is threading.main_thread()
    if main and jax.process_count() == 1:
      for number in (signal.SIGTERM, signal.SIGINT):
        self._previous[number] = signal.signal(number, self._note)
    return self

  def __exit__(self, *error: object) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)

  def _note(self, number: int, frame: types.FrameType | None) -> None:
    del frame  # Python hands it over
    self.received = signal.Signals(number)
    for each, handler in self._previous.items():
      signal.signal(each, handler)

  def requested(self, checkpoints: Checkpoints, step: int) -> bool:
    """Whether to save now and leave."""
    if jax.process_count() > 1 and checkpoints.preempted(step):
      self.received = signal.SIGTERM
    return self.received is not None
