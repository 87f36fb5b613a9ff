"""What a clip costs the host: ours beside the decoder's limit and other ways.

  pip install -e '.[benchmark]' decord torchcodec
  python benchmarks/input_pipeline.py
  python benchmarks/input_pipeline.py --folder=my_videos --only=ours limit

Measured is the CPU time of all threads for a clip of 16 frames at 224x224, in
milliseconds; on a machine that others use too, time on the clock says little.
Each reader lives in a process of its own, with one thread where it can be told
to. They take turns, in an order drawn for each round, and read the same clips
of the same files; the table gives medians over the rounds, and the medians of
the ratios within a round. Files are those of `grainy_videos.py`, or a folder's.

The second table is about the whole pipeline: batches of `train_iterator`, whose
workers' time counts too, beside the same clips decoded in a plain loop.
"""

import argparse
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import time
from typing import Any

import grainy_videos
import input_readers
import numpy as np

_LIMIT, _PEER = 'decode-only limit', 'decord + VideoMAE transforms'
_BATCH = 8
# How often each video stands in the dataset of the second table.
_COPIES = 1000
# Batches before the clock is read, by which workers are ahead.
_WARM = 4


def main() -> None:
  """Measures and prints both tables."""
  parser = argparse.ArgumentParser(description=str(__doc__).split('\n', 1)[0])
  add = parser.add_argument
  add('--folder', help='videos to read (default: generated ones)')
  add(
    '--cache',
    default=os.path.expanduser('~/.cache/vivit_mae/benchmark_videos'),
    help='where generated videos are kept',
  )
  add('--videos', type=int, default=8, help='how many are generated')
  add('--rounds', type=int, default=11)
  add('--only', nargs='+', help='readers whose names hold one of these')
  add('--loader_batches', type=int, default=24, help='0: no second table')
  add('--loader_rounds', type=int, default=5)
  add('--worker', default='', help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.worker:
    _serve(args.worker)
    return
  if args.folder:
    found = sorted(p for p in pathlib.Path(args.folder).rglob('*.*'))
    stores = {args.folder: [str(p) for p in found if p.is_file()]}
  else:
    stores = {
      store: [
        str(path)
        for path in grainy_videos.write(
          pathlib.Path(args.cache) / store.replace(', ', '_').replace(' ', '_'),
          args.videos,
          store,
        )
      ]
      for store in grainy_videos.STORES
    }
  names = [
    name
    for name in input_readers.READERS
    if not args.only or any(part in name for part in args.only)
  ]
  for store, paths in stores.items():
    size = sum(os.path.getsize(p) for p in paths) / len(paths) / 1e6
    print(f'\n{store}: {len(paths)} videos of {size:.2f} MB')
    _print_readers(_measure(names, paths, args.rounds))
  if args.loader_batches:
    for store, paths in stores.items():
      print(f'\n{store}, batches of {_BATCH}')
      _print_loaders(_measure_loaders(paths, args))


def _measure(
  names: list[str], paths: list[str], rounds: int
) -> dict[str, list[float]]:
  """CPU milliseconds a clip of each reader in each round."""
  workers = {}
  for name in names:
    try:
      workers[name] = _Worker(name)
    except _MissingError as error:
      print(f'{name}: left out, {error}', file=sys.stderr)
  times: dict[str, list[float]] = {name: [] for name in workers}
  for number in range(rounds + 1):
    order = list(workers)
    random.Random(number).shuffle(order)
    for name in order:
      spent = workers[name].read(paths, number)
      if number:  # the first round warms up
        times[name].append(spent)
  for worker in workers.values():
    worker.close()
  return times


def _print_readers(times: dict[str, list[float]]) -> None:
  print(
    '| reader | CPU ms a clip | share of the limit | decord + VideoMAE is '
    'slower by | R = 1 over R |\n|---|---|---|---|---|'
  )

  def ratio(above, below):
    if above not in times:
      return '-'
    pairs = zip(times[above], times[below], strict=True)
    return f'{statistics.median(a / b for a, b in pairs):.2f}'

  for name, spent in times.items():
    once = name.split(', R = ')[0]
    gain = ratio(once, name) if once != name else '-'
    share = '-' if once != name else ratio(_LIMIT, name)
    print(
      f'| {name} | {statistics.median(spent):.1f} | {share} | '
      f'{ratio(_PEER, name)} | {gain} |'
    )


class _MissingError(Exception):
  """A reader whose library is not installed."""


class _Worker:
  """A process that holds one reader."""

  def __init__(self, name: str):
    self._process = subprocess.Popen(
      [sys.executable, __file__, f'--worker={name}'],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
      env=dict(os.environ, OMP_NUM_THREADS='1', MKL_NUM_THREADS='1'),
    )
    about = self._answer()
    if about:
      raise _MissingError(about)

  def read(self, paths: list[str], seed: int) -> float:
    """Milliseconds of CPU for each clip."""
    assert self._process.stdin is not None
    print(json.dumps([paths, seed]), file=self._process.stdin, flush=True)
    return self._answer()

  def close(self) -> None:
    assert self._process.stdin is not None
    self._process.stdin.close()
    self._process.wait()

  def _answer(self) -> Any:
    assert self._process.stdout is not None
    line = self._process.stdout.readline()
    if not line:
      raise SystemExit('A worker ended early; its message stands above.')
    return json.loads(line)


def _serve(name: str) -> None:
  """A worker: reads one clip of each video at each line."""
  answers = os.fdopen(os.dup(1), 'w')
  os.dup2(2, 1)
  make, clips = input_readers.READERS[name]
  try:
    read = make()
  except (ImportError, RuntimeError) as error:
    print(json.dumps(str(error).split('\n')[0]), file=answers, flush=True)
    return
  print('""', file=answers, flush=True)
  for line in sys.stdin:
    paths, seed = json.loads(line)
    start = time.process_time()
    for number, path in enumerate(paths):
      read(path, np.random.default_rng([seed, number]))
    spent = 1e3 * (time.process_time() - start) / len(paths) / clips
    print(json.dumps(spent), file=answers, flush=True)


# What it is called -> (data.num_workers, None for a plain loop; how many at
# once; what it is compared with). Two processes on two cores slow each other,
# so two workers are set beside two loops.
_LOADERS: dict[str, tuple[int | None, int, str]] = {
  'a plain loop': (None, 1, 'a plain loop'),
  'two plain loops at once': (None, 2, 'a plain loop'),
  '0 workers': (0, 1, 'a plain loop'),
  '1 worker': (1, 1, 'a plain loop'),
  '2 workers': (2, 1, 'two plain loops at once'),
}


def _measure_loaders(
  paths: list[str], args: argparse.Namespace
) -> dict[str, list[tuple[float, float]]]:
  """(CPU milliseconds a clip, clips a second) of each way in each round."""
  runs: dict[str, list[tuple[float, float]]] = {}
  for number in range(args.loader_rounds):
    for pixels in ('RGB', 'yuv420'):
      order = list(_LOADERS)
      random.Random(number).shuffle(order)
      for name in order:
        workers, count, _ = _LOADERS[name]
        command = [
          *(sys.executable, '-c', _LOADER, pixels.lower(), str(workers)),
          *(str(args.loader_batches), str(number), *paths),
        ]
        processes = [
          subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            text=True,
            cwd=pathlib.Path(__file__).parent,
          )
          for _ in range(count)
        ]
        outputs = [process.communicate()[0] for process in processes]
        found = [json.loads(output.splitlines()[-1]) for output in outputs]
        cpu = statistics.mean(spent for spent, _ in found)
        rate = sum(rate for _, rate in found)
        runs.setdefault(f'{pixels}, {name}', []).append((cpu, rate))
  return runs


# Runs in a fresh process, so that its children's time is all that of workers.
_LOADER = """
import input_pipeline, sys
if __name__ == '__main__':
  input_pipeline.run_loader(*sys.argv[1:5], sys.argv[5:])
"""


def run_loader(
  pixels: str, workers: str, batches: str, seed: str, paths: list[str]
) -> None:
  """Reads batches through Grain, or without it, and prints what it took."""
  from vivit_mae.data import datasets, loading, pipeline
  from vivit_mae.data.listing import Example

  # As many as a real dataset has: Grain takes 26 ms to shuffle an epoch, of up
  # to 65,536 videos, which would count for much with a few.
  examples = [
    Example(path, -1, f'{path} {copy}')
    for copy in range(_COPIES)
    for path in paths
  ]
  source = datasets.FileSource('benchmark', examples, ())
  count = int(batches)
  shape: dict[str, Any] = dict(
    num_frames=input_readers.LENGTH, image_size=(input_readers.SIDE,) * 2
  )
  if workers == 'None':
    options = loading.ClipOptions(pixels=pixels)
    loader = loading.Loader(source, options, seed=int(seed), **shape)
    order = [[i, i % len(paths)] for i in range(_BATCH * (count + _WARM))]
    stream = map(loader, np.array(order).reshape(-1, _BATCH, 2))
  else:
    stream = pipeline.train_iterator(
      source,
      dict(num_workers=int(workers), pixels=pixels),
      batch_size=_BATCH,
      seed=int(seed),
      **shape,
    )
  for _ in range(_WARM):
    next(stream)
  begin, wall = _cpu(), time.monotonic()
  for _ in range(count):
    next(stream)
  seconds, used = time.monotonic() - wall, _cpu() - begin
  if isinstance(stream, pipeline.TrainIterator):
    stream.close()
  clips = count * _BATCH
  print(json.dumps([1e3 * used / clips, clips / seconds]))


def _cpu() -> float:
  """Seconds of CPU of this process and those below it, so far."""
  tick = os.sysconf('SC_CLK_TCK')
  parents: dict[int, int] = {}
  times: dict[int, float] = {}
  for stat in pathlib.Path('/proc').glob('[0-9]*/stat'):
    try:
      fields = stat.read_text().rsplit(')', 1)[1].split()
    except OSError:
      continue  # it ended meanwhile
    pid = int(stat.parent.name)
    parents[pid] = int(fields[1])
    times[pid] = (int(fields[11]) + int(fields[12])) / tick
  ours = {os.getpid()}
  grown = True
  while grown:
    grown = {p for p in parents if parents[p] in ours} - ours
    ours |= grown
  return sum(times[pid] for pid in ours)


def _print_loaders(runs: dict[str, list[tuple[float, float]]]) -> None:
  print(
    '| pixels, read by | CPU ms a clip | more than plain loops | clips/s |\n'
    '|---|---|---|---|'
  )
  for name, spent in runs.items():
    pixels, way = name.split(', ')
    plain = runs[f'{pixels}, {_LOADERS[way][2]}']
    more = statistics.median(
      a[0] - b[0] for a, b in zip(spent, plain, strict=True)
    )
    cpu, rate = map(statistics.median, zip(*spent, strict=True))
    print(f'| {name} | {cpu:.1f} | {more:+.1f} | {rate:.1f} |')


if __name__ == '__main__':
  main()
