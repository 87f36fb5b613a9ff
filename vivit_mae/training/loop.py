"""The experiment, top to bottom."""

import contextlib
import functools
import logging
import math
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import optax
from etils import epath
from ml_collections import ConfigDict

from vivit_mae import config_checks, evaluation, tasks
from vivit_mae.data import datasets, pipeline
from vivit_mae.training import checkpoints as checkpoints_lib
from vivit_mae.training import memory, origin, prefetch, sharding
from vivit_mae.training import monitor as monitor_lib
from vivit_mae.training import optimizer as optimizer_lib
from vivit_mae.training import state as state_lib
from vivit_mae.training import stopping as stopping_lib

_log = logging.getLogger(__name__)


class DivergedError(ArithmeticError):
  """The loss or a gradient is no longer a finite number."""


def train_and_evaluate(
  config: ConfigDict, workdir: epath.PathLike
) -> state_lib.TrainState:
  """Trains as the config says, with reports and checkpoints in the workdir.

  Called again with the same arguments it goes on from the newest checkpoint,
  with bitwise the same losses as if it had never stopped. SIGTERM and SIGINT
  save and leave.

  Args:
    config: From `config.defaults()`.
    workdir: Created if missing; may be a remote path.

  Returns:
    The final state.

  Raises:
    ValueError: Something in the config or the data can't be; says what.
    DivergedError: The loss is not finite; the last checkpoint is intact.
    SystemExit: After a signal, with 128 + its number.
  """
  config_checks.check(config)
  workdir = epath.Path(workdir)
  workdir.mkdir(parents=True, exist_ok=True)
  config = origin.inherit(config, workdir)
  if config.compilation_cache:
    jax.config.update('jax_compilation_cache_dir', config.compilation_cache)
  memory.keep_freed()
  tracked = config_checks.TrackedConfig(config)
  mesh = sharding.make_mesh(tracked.mesh.data, tracked.mesh.fsdp)
  with jax.set_mesh(mesh):
    return _run(tracked, config, workdir, mesh)


def _run(
  config: config_checks.TrackedConfig,
  plain: ConfigDict,
  workdir: epath.Path,
  mesh: jax.sharding.Mesh,
) -> state_lib.TrainState:
  """Builds everything, then runs the loop."""
  # What is learned. Who classifies needs to know the classes of the data.
  data_section = config.data.to_dict()
  source = datasets.source_from(data_section)
  if config.task == 'classify':
    source = datasets.labelled(source, config.data.labels_per_class)
  task = tasks.build(
    config, class_names=source.class_names, multi_label=source.multi_label
  )

  # How much: videos, rows, steps.
  rows = config.batch_size * config.data.repeats
  sharding.check_rows(rows, config.accum_steps, mesh)
  steps_per_epoch = max(1, len(source) // config.batch_size)
  total_steps = config.total_steps
  if total_steps is None:
    total_steps = max(1, round(config.total_epochs * steps_per_epoch))
  _log.info(
    'data: %d videos from %s; %d steps of %d videos, %.3g epochs',
    len(source),
    source.name,
    total_steps,
    config.batch_size,
    total_steps * config.batch_size / max(1, len(source)),
  )

  # What is read and what is evaluated.
  put = functools.partial(
    sharding.put_batch, sharding=sharding.batch_sharding(mesh)
  )
  data = prefetch.Prefetch(
    pipeline.train_iterator(
      source,
      data_section,
      num_frames=config.model.num_frames,
      image_size=config.model.image_size,
      batch_size=config.batch_size,
      seed=config.seed,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
      report_dir=workdir,
    ),
    put,
    config.data.device_prefetch,
  )
  evaluators = evaluation.build(
    config, task, put=put, num_devices=mesh.size, workdir=workdir
  )
  eval_every = {
    name: _interval(config.evals[name], steps_per_epoch, total_steps)
    for name in evaluators
  }
  best = config.checkpoint.best_metric
  if best and best.split('/')[0] not in evaluators:
    raise ValueError(
      f'config.checkpoint.best_metric={best!r} must be <evaluator>/<value>; '
      f'the evaluators are: {", ".join(evaluators) or "none"}'
    )

  # How: the update rule, the state, the compiled step.
  layers: dict[str, Any] = dict(
    layer_of=task.layer_of, num_layers=task.num_layers, frozen=task.frozen
  )
  optimizer, schedule = optimizer_lib.build(
    config.optimizer,
    batch_size=config.batch_size,
    repeats=config.data.repeats,
    total_steps=total_steps,
    steps_per_epoch=steps_per_epoch,
    **layers,
  )
  ema_decay = config.optimizer.ema_decay
  abstract, create = state_lib.build(
    task.init,
    optimizer,
    seed=config.seed,
    mesh=mesh,
    fsdp_min_bytes=config.mesh.fsdp_min_bytes,
    ema_decay=ema_decay,
  )
  update = jax.jit(
    state_lib.make_update(
      task.loss,
      optimizer,
      schedule,
      seed=config.seed,
      accum_steps=config.accum_steps,
      ema_decay=ema_decay,
      trained=optimizer_lib.trained(config.optimizer, task.frozen),
      norms=config.log.norms,
    ),
    donate_argnums=0,
    out_shardings=(
      jax.tree.map(lambda leaf: leaf.sharding, abstract),
      sharding.replicated(mesh),
    ),
  )
  norm_of = jax.jit(optax.tree.norm)
  save_every = _interval(
    config.checkpoint, steps_per_epoch, math.ceil(total_steps / 10)
  )
  profiler = monitor_lib.Profiler(
    workdir, config.profile.start_step, config.profile.num_steps
  )
  open_monitor = functools.partial(
    monitor_lib.Monitor,
    workdir,
    total_steps=total_steps,
    every_steps=config.log.every_steps,
    tensorboard=config.log.tensorboard,
    clips_per_step=rows,
    flops_per_clip=task.flops_per_clip(),
  )
  open_checkpoints = functools.partial(
    checkpoints_lib.Checkpoints,
    workdir,
    keep_last=config.checkpoint.keep_last,
    keep_every_steps=config.checkpoint.keep_every_steps,
    best_metric=best,
    best_mode=config.checkpoint.best_mode,
  )
  sources: dict[str, Any] = dict(
    resume=config.resume,
    init_from=origin.weights(config, task.model),
    skip=config.init_from.skip,
    adapt=task.adapt,
  )
  config_checks.check_read(config)
  monitor_lib.describe(workdir, plain, abstract, rows, source.class_names)
  optimizer_lib.describe(config.optimizer, abstract.params, **layers)

  with (
    open_checkpoints() as checkpoints,
    stopping_lib.StopSignal() as stop,
    contextlib.closing(data),
  ):
    state, data_state = checkpoints_lib.initial_state(
      checkpoints, abstract, create, **sources
    )
    if data_state is not None:
      data.set_state(data_state)
    first = step = int(state.step)
    compiled = report = None

    with open_monitor(start_step=first) as monitor:
      for step in range(first, total_steps + 1):
        # `step` updates are done; `report` is what is unsaid of the last one.
        last = step == total_steps
        stopping = stop.requested(checkpoints, step)
        due = {
          name: evaluator
          for name, evaluator in evaluators.items()
          if step and (step % eval_every[name] == 0 or last)
        }
        save = step > first and (step % save_every == 0 or last or stopping)
        if report is not None and (due or save):
          # What has failed is neither evaluated nor saved.
          if not report['norms']:
            report['norms'] = {'l2_params': norm_of(state.params)}
          _report(monitor, step, report)
          report = None
        values = {}
        with monitor.paused():
          if due and not stopping:
            values = _evaluate(monitor, due, state, step)
          if save or (step > first and checkpoints.is_best(values)):
            checkpoints.save(step, state, data.get_state(), values)
        if stopping or last:
          break

        profiler.before(step)
        with monitor.waiting(functools.partial(_is_running, report)):
          batch = next(data)
        if compiled is None:
          compiled = _compile(update, state, batch)
          monitor.begin()
        with jax.profiler.StepTraceAnnotation('train', step_num=step):
          state, new_report = compiled(state, batch)
        if report is not None:
          _report(monitor, step, report)
        report = new_report
      else:
        _log.info(
          'the checkpoint in %s has %d steps, no fewer than the %d of the '
          'config: nothing to do',
          workdir,
          first,
          total_steps,
        )
    profiler.close()
  if stop.received is not None:
    _log.info(
      '%s at step %d: saved; the same command goes on from there',
      stop.received.name,
      step,
    )
    raise SystemExit(128 + stop.received)
  _log.info('done: step %d, in %s', step, workdir)
  return state


def _interval(section: ConfigDict, steps_per_epoch: int, usual: int) -> int:
  """Updates from one event to the next, by a section's every_*."""
  if (steps := section.get('every_steps')) is not None:
    return steps
  if (epochs := section.get('every_epochs')) is not None:
    return max(1, round(epochs * steps_per_epoch))
  return usual


def _is_running(report: Mapping[str, Any] | None) -> bool:
  """Whether the update with this report is still being computed."""
  return report is not None and not report['loss'].is_ready()


def _compile(
  update: Any, state: state_lib.TrainState, batch: Mapping[str, jax.Array]
) -> Any:
  _log.info('compiling the step')
  begin = time.monotonic()
  compiled = update.lower(state, batch).compile()
  monitor_lib.describe_compiled(compiled, time.monotonic() - begin)
  return compiled


def _evaluate(
  monitor: monitor_lib.Monitor,
  evaluators: Mapping[str, evaluation.Evaluator],
  state: state_lib.TrainState,
  step: int,
) -> dict[str, float]:
  """Runs evaluators; writes and returns their numbers, writes the pictures."""
  numbers = {}
  for name, evaluator in evaluators.items():
    for value_name, value in evaluator.run(state.eval_variables, step):
      key = f'{name}/{value_name}'
      if isinstance(value, np.ndarray):
        monitor.picture(step, key, value)
      else:
        numbers[key] = float(value)
  monitor.scalars(step, numbers)
  _log.info(
    'step %d | %s',
    step,
    ' | '.join(f'{key} {value:.4g}' for key, value in numbers.items()),
  )
  return numbers


def _report(
  monitor: monitor_lib.Monitor, step: int, report: Mapping[str, Any]
) -> None:
  """Fetches the report of an update, checks it, and hands it to the monitor.

  Raises:
    DivergedError: Something is not finite.
  """
  report = jax.device_get(report)
  values = {name: float(x) for name, x in report['metrics'].compute().items()}
  values |= {name: float(x) for name, x in report['norms'].items()}
  values['loss'] = float(report['loss'])
  values['learning_rate'] = float(report['learning_rate'])
  bad = [name for name, value in values.items() if not math.isfinite(value)]
  if bad:
    raise DivergedError(
      f'step {step}: {", ".join(f"{n} is {values[n]}" for n in bad)}. The last '
      'checkpoint is from before. What helps: a lower '
      'config.optimizer.learning_rate, a longer warm-up, '
      'config.optimizer.clip_norm=1, model.dtype=float32; '
      '--jax_debug_nans=True says where it arises'
    )
  monitor.train(step, values)
