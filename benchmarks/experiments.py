"""Many small training runs as commands, several at a time, and what they say.

A run is a command that anyone can type: `python -m vivit_mae.main` with an
experiment file and fields set. One that is finished is not run again.
"""

import dataclasses
import json
import os
import queue
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from vivit_mae.tools import compare

_DONE = 'outcome.json'
_HERE = Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Run:
  """A training run.

  Attributes:
    name: its folder in the output folder.
    config: the experiment file in `benchmarks/`, with its arguments.
    settings: fields of the config and their values.
  """

  name: str
  config: str
  settings: Mapping[str, Any]

  def command(self, out: Path) -> list[str]:
    """The command of the run."""
    return [
      *(sys.executable, '-m', 'vivit_mae.main'),
      f'--config={_HERE / self.config}',
      f'--workdir={out / self.name}',
      *(f'--config.{key}={value}' for key, value in self.settings.items()),
    ]


def run_all(
  runs: Iterable[Run], out: Path, jobs: int
) -> dict[str, dict[str, float]]:
  """Runs what is not finished, `jobs` at a time, each on one core of its own.

  Args:
    runs: Independent runs.
    out: Where their folders are.
    jobs: How many run at the same time.

  Returns:
    By name: the numbers of the evaluators at the end, and `minutes`.

  Raises:
    SystemExit: A run failed; says where its log is.
  """
  cores: queue.SimpleQueue[int] = queue.SimpleQueue()
  for core in range(jobs):
    cores.put(core)

  def run(one: Run) -> tuple[str, dict[str, float]]:
    done = out / one.name / _DONE
    if not done.exists():
      done.parent.mkdir(parents=True, exist_ok=True)
      core = cores.get()
      try:
        minutes = _execute(one.command(out), done.parent / 'log.txt', core)
      finally:
        cores.put(core)
      reported = compare.last_numbers(done.parent)
      outcome = {k: v for k, v in reported.items() if '/' in k}
      done.write_text(json.dumps(outcome | {'minutes': minutes}))
    numbers = json.loads(done.read_text())
    shown = ' '.join(f'{k} {v:.4g}' for k, v in numbers.items())
    print(f'{one.name}: {shown}', flush=True)
    return one.name, numbers

  with futures.ThreadPoolExecutor(jobs) as pool:
    return dict(pool.map(run, runs))


def _execute(command: Sequence[str], log: Path, core: int) -> float:
  """Runs a command on one core, and returns how many minutes it took."""
  begin = time.monotonic()
  with log.open('a') as file:
    print('$', shlex.join(command), file=file, flush=True)
    with subprocess.Popen(
      command, stdout=file, stderr=subprocess.STDOUT
    ) as process:
      if hasattr(os, 'sched_setaffinity'):
        # It is still starting: its threads, when they come, stay there too.
        mine = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(process.pid, {mine[core % len(mine)]})
      code = process.wait()
  if code:
    raise SystemExit(f'A run ended with {code}; its log: {log}')
  return (time.monotonic() - begin) / 60


def interval(values: Sequence[float]) -> tuple[float, float]:
  """Mean of independent values and half of its 95 % interval (Student's t)."""
  spread = np.std(values, ddof=1) / np.sqrt(len(values))
  return float(np.mean(values)), float(
    spread * stats.t.ppf(0.975, len(values) - 1)
  )


def percent(values: Sequence[float]) -> str:
  """Shares as text: mean and half of the 95 % interval, in per cent."""
  if len(values) == 1:
    return f'{100 * values[0]:.1f}'
  mean, half = interval(values)
  return f'{100 * mean:.1f} ± {100 * half:.1f}'


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
  """A Markdown table."""
  lines = [head, ['---'] * len(head), *rows]
  return '\n'.join(f'| {" | ".join(map(str, row))} |' for row in lines)
