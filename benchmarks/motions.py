"""Does pretraining pay on the built-in motion data? Few labels, both ways.

  pip install -e '.[benchmark]'
  python benchmarks/motions.py --out=/tmp/motions --jobs=2

6,000 small videos without labels are pretrained on; 5, 10 or 50 of each of the
twelve classes have a label. A classifier learns from these, from nothing or
from the pretrained encoder, and is tested on 1,200 other videos. Each seed
draws other labelled videos, the same for both, and starts from other weights.

Both arms are tuned alike: the same attempts, on 300 videos of their own, with
a seed that is not used again. The choice at 10 labels serves 5 too. Rerun, the
same command goes on where it stopped, and prints the tables again.
"""

import argparse
import csv
import itertools
from collections.abc import Iterable
from pathlib import Path

import experiments
import numpy as np

from vivit_mae.data import synthetic

_VIDEOS = 9000  # of which 7,500 are 'train' and 1,500 'validation'
_PRETRAINING = 6000
_TUNING = 300  # of 'validation'; the others test
_LABELS = (5, 10, 50)
_ARMS = ('scratch', 'pretrained')
# How the tokens are pooled, and the learning rate: each arm is tuned over all.
_ATTEMPTS = (
  ('mean', 3e-4),
  ('mean', 1e-3),
  ('mean', 3e-3),
  ('max', 1e-3),
  ('max', 3e-3),
)
_STEPS = 800
_LONG = 4 * _STEPS  # of one more run from scratch, at the most labels
_TUNING_SEED = 100
_TUNED_AT = {5: 10, 10: 10, 50: 50}

_Row = tuple[str, str, str]  # path, label, split


def main() -> None:
  """Runs what is missing and prints the tables."""
  parser = argparse.ArgumentParser(description=str(__doc__).split('\n', 1)[0])
  parser.add_argument('--out', type=Path, required=True)
  parser.add_argument('--jobs', type=int, default=1)
  parser.add_argument('--seeds', type=int, default=5)
  args = parser.parse_args()
  out = args.out.absolute()
  _write_videos(out)
  pretraining = experiments.Run(
    'pretraining',
    'motions_config.py:pretrain',
    {'data.path': out / 'pretraining.csv'},
  )
  print(experiments.run_all([pretraining], out, args.jobs))

  keys = itertools.product(sorted(set(_TUNED_AT.values())), _ARMS, _ATTEMPTS)
  runs = {key: _classify(out, *key, _TUNING_SEED) for key in keys}
  outcome = experiments.run_all(runs.values(), out, args.jobs)
  tuned = {key: outcome[run.name]['accuracy/top1'] for key, run in runs.items()}
  best = {
    (labels, arm): max(
      _ATTEMPTS, key=lambda attempt: tuned[_TUNED_AT[labels], arm, attempt]
    )
    for labels, arm in itertools.product(_LABELS, _ARMS)
  }

  seeds = range(args.seeds)
  runs = {
    (labels, arm, seed): _classify(out, labels, arm, best[labels, arm], seed)
    for seed, labels, arm in itertools.product(seeds, _LABELS, _ARMS)
  }
  most = _LABELS[-1]
  longer = _classify(out, most, 'scratch', best[most, 'scratch'], 0, _LONG)
  outcome = experiments.run_all([*runs.values(), longer], out, args.jobs)
  top1 = {key: outcome[run.name]['accuracy/top1'] for key, run in runs.items()}
  print(_attempts_table(tuned))
  print(_results_table(top1, seeds))
  print(
    f'scratch, {most} a class, {_LONG} steps: '
    f'{100 * outcome[longer.name]["accuracy/top1"]:.1f}'
  )


def _classify(
  out: Path,
  labels: int,
  arm: str,
  attempt: tuple[str, float],
  seed: int,
  steps: int = _STEPS,
) -> experiments.Run:
  pooling, rate = attempt
  settings = {
    'model.pooling': pooling,
    'data.path': out / f'labels_{labels}_{seed}.csv',
    'seed': seed,
    'optimizer.learning_rate': rate,
    'total_steps': steps,
    'evals.accuracy.every_steps': steps,
  }
  if arm == 'pretrained':
    settings['init_from.path'] = out / 'pretraining'
  _write_labels(out, labels, seed)
  return experiments.Run(
    f'{arm}_{labels}_{pooling}_{rate:g}_{steps}_seed{seed}',
    'motions_config.py:classify',
    settings,
  )


def _write_videos(out: Path) -> None:
  """Writes the videos and the list for pretraining, unless they are there."""
  if (out / 'pretraining.csv').exists():
    return
  rows: list[_Row] = []
  for split in ('train', 'validation'):
    videos = synthetic.Videos(split, _VIDEOS, seed=1, size=32)
    for i in range(len(videos)):
      video = videos[i]
      path = out / 'videos' / f'{video.id}.mp4'
      path.parent.mkdir(parents=True, exist_ok=True)
      assert isinstance(video.label, int)
      assert isinstance(video.video, bytes)
      path.write_bytes(video.video)
      rows.append((str(path), synthetic.CLASSES[video.label], split))
  # Who is pretrained on has a label for kNN only.
  train, validation = (
    [row for row in rows if row[2] == split]
    for split in ('train', 'validation')
  )
  _write_list(out / 'tuning.csv', validation[:_TUNING])
  _write_list(out / 'testing.csv', validation[_TUNING:])
  _write_list(
    out / 'pretraining.csv', train[:_PRETRAINING] + validation[:_TUNING]
  )


def _write_labels(out: Path, labels: int, seed: int) -> None:
  """Lists so many labelled videos of each class, and those that it is for."""
  pool = [r for r in _read_list(out / 'pretraining.csv') if r[2] == 'train']
  rng = np.random.default_rng([labels, seed])
  chosen = []
  for name in synthetic.CLASSES:
    mine = [row for row in pool if row[1] == name]
    chosen += [mine[i] for i in rng.choice(len(mine), labels, replace=False)]
  held_out = 'tuning.csv' if seed == _TUNING_SEED else 'testing.csv'
  _write_list(
    out / f'labels_{labels}_{seed}.csv', chosen + _read_list(out / held_out)
  )


def _write_list(path: Path, rows: Iterable[_Row]) -> None:
  with path.open('w', newline='') as file:
    csv.writer(file).writerows([('path', 'label', 'split'), *rows])


def _read_list(path: Path) -> list[_Row]:
  with path.open(newline='') as file:
    return [(path, label, split) for path, label, split in csv.reader(file)][1:]


def _attempts_table(tuned: dict) -> str:
  """All attempts of the tuning."""
  keys = list(dict.fromkeys((labels, arm) for labels, arm, _ in tuned))
  return experiments.table(
    ['pooling, rate', *(f'{arm}, {labels} a class' for labels, arm in keys)],
    [
      [f'{pooling}, {rate:g}', *(
        f'{100 * tuned[labels, arm, (pooling, rate)]:.1f}'
        for labels, arm in keys
      )]
      for pooling, rate in _ATTEMPTS
    ],
  )  # fmt: skip


def _results_table(top1: dict, seeds: range) -> str:
  """Both arms and their difference, paired by seed."""
  rows = []
  for labels in _LABELS:
    scratch, pretrained = (
      [top1[labels, arm, seed] for seed in seeds] for arm in _ARMS
    )
    gain = [b - a for a, b in zip(scratch, pretrained, strict=True)]
    rows.append(
      [labels, *map(experiments.percent, (scratch, pretrained, gain))]
    )
  return experiments.table(
    ['labelled clips a class', 'scratch', 'pretrained', 'gain, paired'], rows
  )


if __name__ == '__main__':
  main()
