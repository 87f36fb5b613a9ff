"""Checkpoints of state and data together; the only file that imports orbax."""

import dataclasses
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jaxtyping import Array, Key

from vivit_mae.training import naming, sharding, transfer
from vivit_mae.training.state import TrainState

_log = logging.getLogger(__name__)


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
        state=ocp.args.StandardSave(_items(state)),
        data=ocp.args.JsonSave(dict(data)),
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
  init_from: Callable[[], transfer.Weights] | None = None,
  skip: Sequence[str] = (),
  adapt: transfer.Adapt | None = None,
) -> tuple[TrainState, dict[str, Any] | None]:
  """The state to begin with, from the first of four places that has one.

  1 this workdir; 2 `config.resume`, another workdir to go on from; 3
  `config.init_from`, weights of another run or project; 4 scratch.
  Says in one line which it was.

  Args:
    checkpoints: Those of this workdir.
    abstract: The state as shapes with shardings.
    create: Makes a new state.
    resume: A workdir, its `checkpoints`, or one step of them; '' for none.
    init_from: Finds the weights that `config.init_from.path` names.
    skip: `config.init_from.skip`, regular expressions of weights that are left
      out.
    adapt: Makes a weight of another shape fit; see `transfer.transfer`.

  Returns:
    The state, and the data's (None: from the first row).

  Raises:
    ValueError: The checkpoint is of another architecture (names the leaves),
      there is none where the config says, or no weight of it fits.
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
    weights = init_from()
    _log.info('weights: config.init_from, %s', weights.source)
    return _load_weights(weights, create(), adapt, skip), None
  _log.info('weights: new, from the seed')
  return create(), None


def weights_of(path: str) -> transfer.Weights:
  """The weights of another run, averaged ones if there are any.

  Args:
    path: A workdir, its `checkpoints`, or one step of them.

  Returns:
    The weights, not yet read.

  Raises:
    ValueError: There is no checkpoint.
  """
  directory, step = _find(path, 'config.init_from.path')
  saved = _saved_shapes(directory, step)
  part = _weights_part(saved)
  averaged = ', averaged' if part == 'ema' else ''
  return transfer.Weights(
    source=f'step {step}{averaged} ({directory})',
    shapes={
      name.removeprefix(f'{part}/'): shape
      for name, shape in saved.items()
      if name.startswith(f'{part}/')
    },
    read=lambda item: _read(directory, step, {part: item})[part],
  )


def load_variables(
  path: epath.PathLike,
  init: Callable[[Key[Array, '']], Mapping[str, Any]],
  step: int | None = None,
) -> tuple[dict[str, Any], int]:
  """The variables of a checkpoint, to be evaluated: averaged ones if any.

  Args:
    path: A workdir, its `checkpoints`, or one step of them.
    init: What made them: `Task.init`.
    step: Which checkpoint; None for the newest.

  Returns:
    The variables, on all devices of the mesh in use, and the step.

  Raises:
    ValueError: There is no such checkpoint, or it is of another model.
  """
  directory, newest = _find(os.fspath(path), 'workdir')
  step = newest if step is None else step
  ours = dict(jax.eval_shape(init, jax.random.key(0)))
  where = sharding.replicated(jax.sharding.get_mesh())
  with ocp.CheckpointManager(directory) as manager:
    if step not in manager.all_steps():
      raise ValueError(
        f'{directory} holds no step {step}; there are: '
        f'{", ".join(map(str, sorted(manager.all_steps())))}'
      )
  saved = _saved_shapes(directory, step)
  params = _weights_part(saved)
  item: dict[str, Any] = {params: ours.pop('params')}
  if ours:
    item['collections'] = ours
  wanted = naming.shapes(item)
  parts = f'{params}/', 'collections/'
  there = {name: x for name, x in saved.items() if name.startswith(parts)}
  differ = [
    f'{name} is {there.get(name, "missing")} there and '
    f'{wanted.get(name, "unknown")} in the config'
    for name in sorted(wanted.keys() | there.keys())
    if there.get(name) != wanted.get(name)
  ]
  if differ:
    raise ValueError(
      f'the checkpoint {directory / str(step)} is of another model than the '
      f'config. {_names("Different", differ)}'
    )
  item = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
    item,
  )
  loaded = _read(directory, step, item)
  return {'params': loaded[params], **loaded.get('collections', {})}, step


def holds_any(path: epath.PathLike) -> bool:
  """Whether there is a checkpoint in a workdir."""
  return _newest(os.fspath(path)) is not None


def saved_config(
  path: epath.PathLike, field: str = 'config.init_from.path'
) -> dict[str, Any] | None:
  """The config of the run that made a checkpoint, from its `config.json`.

  Args:
    path: A workdir, its `checkpoints`, or one step of them.
    field: Where the path comes from, for the error.

  Returns:
    The config as plain values, or None if the file is not there.

  Raises:
    ValueError: There is no checkpoint.
  """
  file = folder_of(path, field) / 'config.json'
  return json.loads(file.read_text()) if file.exists() else None


def folder_of(
  path: epath.PathLike, field: str = 'config.init_from.path'
) -> epath.Path:
  """The folder of the run that made a checkpoint; see `saved_config`."""
  directory, _ = _find(os.fspath(path), field)
  return directory.parent


def _handlers() -> dict[str, Any]:
  return {
    'state': ocp.StandardCheckpointHandler(),
    'data': ocp.JsonCheckpointHandler(),
  }


def _find(path: str, field: str) -> tuple[epath.Path, int]:
  """The folder of checkpoints and the step that a path means."""
  found = _newest(path)
  if found is not None:
    return found
  raise ValueError(
    f'{field}={path!r} holds no checkpoint; give a workdir, its folder '
    '"checkpoints", or one step in it'
  )


def _newest(path: str) -> tuple[epath.Path, int] | None:
  given = epath.Path(path)
  if given.name.isdigit() and given.is_dir():
    return given.parent, int(given.name)
  for directory in (given / 'checkpoints', given):
    if directory.is_dir():
      with ocp.CheckpointManager(directory) as manager:
        step = manager.latest_step()
      if step is not None:
        return directory, step
  return None


def _items(state: TrainState) -> dict[str, Any]:
  """The parts of a state that are there; others are not in a checkpoint."""
  parts = {f.name: getattr(state, f.name) for f in dataclasses.fields(state)}
  return {name: part for name, part in parts.items() if part is not None}


def _saved_shapes(
  directory: epath.Path, step: int
) -> dict[str, tuple[int, ...]]:
  with ocp.CheckpointManager(directory, item_handlers=_handlers()) as manager:
    return naming.shapes(manager.item_metadata(step)['state'].tree)


def _weights_part(names: Iterable[str]) -> str:
  """The part with the weights to use: the average if there is one."""
  return 'ema' if any(name.startswith('ema/') for name in names) else 'params'


def _names(title: str, names: list[str]) -> str:
  return f'{title}: {naming.listed(names)}' if names else ''


def _read(directory: epath.Path, step: int, item: dict[str, Any]) -> Any:
  """Some leaves of a saved state, onto their shardings or else to the host."""

  def how(leaf: jax.ShapeDtypeStruct) -> ocp.RestoreArgs:
    if leaf.sharding is None:
      return ocp.RestoreArgs(restore_type=np.ndarray, dtype=leaf.dtype)
    return ocp.ArrayRestoreArgs(
      sharding=leaf.sharding, global_shape=leaf.shape, dtype=leaf.dtype
    )

  with ocp.CheckpointManager(directory) as manager:
    return manager.restore(
      step,
      args=ocp.args.Composite(
        state=ocp.args.PyTreeRestore(
          item=item,
          restore_args=jax.tree.map(how, item),
          partial_restore=True,
        )
      ),
    )['state']


def _restore(
  directory: epath.Path, step: int, abstract: TrainState
) -> tuple[TrainState, dict[str, Any]]:
  """Restores state and data, each array to where `abstract` says."""
  saved, ours = _saved_shapes(directory, step), naming.shapes(abstract)
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
  with ocp.CheckpointManager(directory, item_handlers=_handlers()) as manager:
    restored = manager.restore(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardRestore(_items(abstract)),
        data=ocp.args.JsonRestore(),
      ),
    )
  return TrainState(**restored['state']), restored['data']


def _load_weights(
  weights: transfer.Weights,
  state: TrainState,
  adapt: transfer.Adapt | None,
  skip: Sequence[str],
) -> TrainState:
  """Replaces the parameters that the weights have; reports on all of them."""
  try:
    params, report = transfer.load(
      state.params, weights, adapt=adapt, skip=skip
    )
  except ValueError as error:
    raise ValueError(
      f'the weights of {weights.source} do not fit this model. {error}'
    ) from error
  _log.info('parameters: %s\n%s', report.summary, report.table())
  return state.with_params(params)
