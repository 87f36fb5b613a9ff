"""What a run says: progress lines, TensorBoard, metrics.jsonl, its size."""

import contextlib
import json
import logging
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import tensorboardX
import tqdm
import tqdm.contrib.logging
from clu import parameter_overview
from etils import epath
from jaxtyping import UInt8
from ml_collections import ConfigDict

from vivit_mae.training.state import TrainState

_log = logging.getLogger(__name__)

# Dense bfloat16 operations per second of one device, by a part of its name
# (the makers' data sheets); more special names first.
_PEAK_FLOPS = {
  'H200': 989e12,
  'H100': 989e12,
  'A100': 312e12,
  'V100': 125e12,
  'L40S': 362e12,
  'L4': 121e12,
  'T4': 65e12,
  'TPU v6': 918e12,
  'TPU v5 lite': 197e12,
  'TPU v5e': 197e12,
  'TPU v5': 459e12,
  'TPU v4': 275e12,
  'TPU v3': 123e12,
}


# Of the time, lost in waiting for data: more is worth a word.
_MUCH_WAITING = 0.1


class MetricsFile:
  """`metrics.jsonl`: one line of JSON per report, `{"step": ..., ...}`."""

  def __init__(self, path: epath.Path, start_step: int):
    """Opens the file, without the lines past the step that a run goes on from.

    A line cut short by a crash goes too. The file is replaced at once, so that
    a second crash leaves the old or the new one.
    """
    self._path = path
    # What the run that was interrupted had said of its last step.
    self._start, self._said = start_step, set[str]()
    # Object stores have no append: there the whole file is written again.
    self._remote = '://' in str(path)
    self._lines = []
    if path.exists():
      for line in path.read_text().splitlines(keepends=True):
        if line.endswith('\n') and (values := json.loads(line))['step'] <= (
          start_step
        ):
          self._lines.append(line)
          if values['step'] == start_step:
            self._said.update(values)
      write_text(path, ''.join(self._lines))

  def write(self, step: int, values: Mapping[str, int | float]) -> None:
    """Adds a line, on the disk when this returns."""
    if step == self._start:
      values = {k: v for k, v in values.items() if k not in self._said}
    if not values:
      return
    line = json.dumps({'step': step, **values}) + '\n'
    if self._remote:
      self._lines.append(line)
      self._path.write_text(''.join(self._lines))
    else:
      with self._path.open('a') as file:
        file.write(line)


def write_text(path: epath.Path, text: str) -> None:
  """Writes a file at once: a reader sees the old or the new text."""
  if '://' in str(path):  # object stores write a file at once anyway
    path.write_text(text)
    return
  partial = path.with_name(path.name + '.partial')
  partial.write_text(text)
  partial.replace(path)


class Monitor:
  """Reports on a run; only the first process writes."""

  def __init__(
    self,
    workdir: epath.Path,
    *,
    start_step: int,
    total_steps: int,
    every_steps: int,
    tensorboard: bool,
    clips_per_step: int,
    flops_per_clip: int | float,
  ):
    """Opens the writers.

    Args:
      workdir: Where the files go.
      start_step: Updates done before this run.
      total_steps: Updates of the whole run.
      every_steps: Updates from one report to the next.
      tensorboard: Whether to write TensorBoard's files.
      clips_per_step: Clips of one update over all hosts.
      flops_per_clip: Operations of a forward pass; an update takes three times
        as many.
    """
    self._start, self._total, self._every = start_step, total_steps, every_steps
    self._clips = clips_per_step
    self._flops = 3 * flops_per_clip
    self._writing = jax.process_index() == 0
    # The first interval, in which everything starts, is not judged.
    self._warn_above = math.inf
    self._stack = contextlib.ExitStack()
    self._file = self._board = self._bar = None
    if self._writing:
      self._file = MetricsFile(workdir / 'metrics.jsonl', start_step)
      if tensorboard:
        self._board = self._stack.enter_context(
          tensorboardX.SummaryWriter(str(workdir), purge_step=start_step + 1)
        )
      if sys.stderr.isatty():
        self._stack.enter_context(tqdm.contrib.logging.logging_redirect_tqdm())
        self._bar = self._stack.enter_context(
          tqdm.tqdm(total=total_steps, initial=start_step, unit='step')
        )
    self.begin()

  def begin(self) -> None:
    """Starts the clock, when what is done only once is done."""
    self._began = self._last = time.monotonic()
    self._last_step = self._start
    self._waited = self._paused = 0.0

  def __enter__(self) -> 'Monitor':
    return self

  def __exit__(self, *error: object) -> None:
    self._stack.close()

  @contextlib.contextmanager
  def waiting(self, busy: Callable[[], bool]) -> Iterator[None]:
    """Counts the time inside as waiting for data.

    Args:
      busy: Says whether the devices are still at work; if they are at the end,
        nothing was lost, and nothing counts.
    """
    begin = time.monotonic()
    yield
    if not busy():
      self._waited += time.monotonic() - begin

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Keeps the time inside out of the rates: evaluations, checkpoints."""
    begin = time.monotonic()
    yield
    self._paused += time.monotonic() - begin

  def train(self, step: int, values: Mapping[str, int | float]) -> None:
    """Reports one update, if it is one of those that are reported.

    The first update of a run is said too, but not written: what is written
    does not depend on where a run was interrupted.

    Args:
      step: Updates done.
      values: By name; `loss` and `learning_rate` are in the line.
    """
    if self._bar is not None:
      self._bar.update(step - self._bar.n)
    due = step % self._every == 0 or step == self._total
    if not due and step != self._start + 1:
      return
    now = time.monotonic()
    seconds = max(now - self._last - self._paused, 1e-9)
    speed = (step - self._last_step) * self._clips / seconds
    share = self._waited / seconds
    mfu = self._mfu(speed)
    left = (now - self._began) / (step - self._start) * (self._total - step)
    _log.info(
      'step %d/%d %.1f%% | loss %.4f | lr %.2e | %.3g clips/s%s | '
      'data wait %.0f%% | ETA %s',
      step,
      self._total,
      100 * step / self._total,
      values['loss'],
      values['learning_rate'],
      speed,
      '' if mfu is None else f' | MFU {100 * mfu:.0f}%',
      100 * share,
      _duration(left),
    )
    if due:
      self._judge_waiting(share)
      speeds = {'clips_per_second': speed, 'data_wait': share}
      if mfu is not None:
        speeds['mfu'] = mfu
      self.scalars(step, {**values, **speeds})
    self._last, self._last_step = now, step
    self._waited = self._paused = 0.0

  def _judge_waiting(self, share: float) -> None:
    """Warns of much waiting, and again when it has become twice as much."""
    if share > self._warn_above:
      _log.warning(
        'The devices waited for data %.0f%% of the time. What helps: more '
        'data.num_workers, up to the number of CPU cores; data.repeats, '
        'several clips from one decode; data.pixels=yuv420; videos encoded for '
        'training, once: python -m vivit_mae.tools.dataset prepare '
        '--short_side=256 --gop=32 --tune=fastdecode. See docs/datasets.md',
        100 * share,
      )
      self._warn_above = 2 * share
    elif self._warn_above == math.inf:
      self._warn_above = _MUCH_WAITING

  def _mfu(self, clips_per_second: float) -> float | None:
    peak = peak_flops(jax.devices()[0].device_kind)
    if peak is None:
      return None
    return clips_per_second * self._flops / (peak * jax.device_count())

  def scalars(self, step: int, values: Mapping[str, int | float]) -> None:
    """Writes numbers to metrics.jsonl and TensorBoard."""
    if self._file is not None:
      self._file.write(step, values)
    if self._board is not None:
      for name, value in values.items():
        self._board.add_scalar(name, value, step)

  def picture(
    self, step: int, name: str, pixels: UInt8[np.ndarray, 'h w 3']
  ) -> None:
    """Writes a picture to TensorBoard."""
    if self._board is not None:
      self._board.add_image(name, pixels, step, dataformats='HWC')


class Profiler:
  """Traces some updates into `<workdir>/profile`, for TensorBoard or xprof."""

  def __init__(self, workdir: epath.Path, start_step: int, num_steps: int):
    self._folder = str(workdir / 'profile')
    self._steps = range(start_step, start_step + num_steps)
    self._on = False

  def before(self, step: int) -> None:
    """Starts or stops the trace; called with the updates done so far."""
    if step in self._steps and not self._on:
      jax.profiler.start_trace(self._folder)
      self._on = True
    elif self._on and step not in self._steps:
      self.close()

  def close(self) -> None:
    """Stops a trace that is still running."""
    if self._on:
      jax.profiler.stop_trace()
      self._on = False
      _log.info('profile: %s', self._folder)


def peak_flops(device_kind: str) -> float | None:
  """Dense bfloat16 operations per second of a device; None if unknown."""
  for name, flops in _PEAK_FLOPS.items():
    if name in device_kind:
      return flops
  return None


def describe(
  workdir: epath.Path,
  config: ConfigDict,
  abstract: TrainState,
  rows: int,
  class_names: Any = (),
) -> None:
  """Says and writes what will run: devices, parameters, memory.

  Writes `config.json`, `parameters.txt`, the full table, and, of a classifier,
  `class_names.json`, in the order of the head.
  """
  mesh = jax.sharding.get_mesh().shape
  _log.info(
    'devices: %d x %s, mesh %s, %d clips per update, %d per device at a time',
    jax.device_count(),
    jax.devices()[0].device_kind,
    ' x '.join(f'{name} {size}' for name, size in mesh.items()),
    rows,
    rows // config.accum_steps // jax.device_count(),
  )
  counts = {
    name: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
    for name, tree in abstract.params.items()
  }
  _log.info(
    'parameters: %s (%s)',
    f'{sum(counts.values()):,}',
    ', '.join(f'{name} {count:,}' for name, count in counts.items()),
  )
  params = per_device_bytes(abstract.params)
  _log.info(
    'memory per device: parameters %s, gradients %s, optimiser %s%s, and what '
    'the activations need',
    size(params),
    size(params),
    size(per_device_bytes(abstract.opt_state)),
    f', average {size(per_device_bytes(abstract.ema))}' if abstract.ema else '',
  )
  if jax.process_index() == 0:
    write_text(
      workdir / 'config.json', config.to_json_best_effort(indent=2) + '\n'
    )
    table = parameter_overview.get_parameter_overview(
      abstract.params, include_stats=False
    )
    write_text(workdir / 'parameters.txt', table + '\n')
    if config.task == 'classify':
      write_text(
        workdir / 'class_names.json', json.dumps(class_names, indent=2) + '\n'
      )


def describe_compiled(compiled: jax.stages.Compiled, seconds: float) -> None:
  """Says how long the compilation took and what memory the step needs."""
  analysis = compiled.memory_analysis()
  if analysis is None:
    _log.info('compiled in %.0f s', seconds)
    return
  _log.info(
    'compiled in %.0f s; memory per device: %s for state and batch, %s for '
    'activations',
    seconds,
    size(analysis.argument_size_in_bytes),
    size(analysis.temp_size_in_bytes),
  )


def per_device_bytes(tree: Any) -> int:
  """Bytes that a tree of arrays or shapes with shardings takes on a device."""
  return sum(
    math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(tree)
  )


def size(count: int) -> str:
  """A number of bytes for people."""
  power = min(max(count, 1).bit_length() // 10, 3)
  return f'{count / 1024**power:.3g} {("B", "KiB", "MiB", "GiB")[power]}'


def _duration(seconds: float) -> str:
  minutes, rest = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f'{hours}h{minutes:02d}m'
  return f'{minutes}m{rest:02d}s'
