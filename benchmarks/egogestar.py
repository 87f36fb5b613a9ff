"""Pointing gestures from 157 labelled videos: does pretraining pay?

  pip install -e '.[benchmark]'
  python benchmarks/motions.py --out=/tmp/motions --jobs=2
  python benchmarks/egogestar.py --videos=../shared/videos/egogestar \
      --motions=/tmp/motions --out=/tmp/egogestar --jobs=2

The split is that of labels.csv, by recording session. Small copies of the
videos are made first. Arms: from scratch; from the encoder that was pretrained
on the built-in videos; from that encoder after more pretraining on the
training and unlabelled videos here; this one frozen, with an attentive probe,
with kNN, and with logistic regression on its tokens. Test videos serve no
training. Beside them chance, and logistic regression on what the eye sees of
appearance and of motion. Both with all labels, and, the first and the third
arm, with those of five training videos a class, drawn anew for each seed.

All trained arms are tuned alike, by the same attempts, on a third of the
training sessions with a seed that is not used again. Rerun, the same command
goes on where it stopped, and prints the tables again.
"""

import argparse
import csv
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import egogestar_regressions as regressions
import experiments
import numpy as np

from vivit_mae.data import encode
from vivit_mae.tools import evaluate

_SIZE = (36, 48)  # of the copies
_FRAMES = 36  # of a copy at most: three for each of the model's
_SCRATCH = 'scratch'
_ARMS = ('built-in', 'pretrained', 'probe')  # to compare with it
_SHUFFLED = 'pretrained, test frames shuffled'
# What is set on top of the config: each arm is tuned over all of them. An
# attentive probe pools by itself, and has no part in those about pooling.
_FAST = {'optimizer.learning_rate': 3e-3}
_MAX = {'model.pooling': 'max'}
_ATTEMPTS = {
  'rate 1e-3': {},
  'rate 3e-3': _FAST,
  'rate 3e-3, mixup': {**_FAST, 'classify.mix.mixup': 0.8},
  'rate 3e-3, max': {**_FAST, **_MAX},
  'rate 3e-3, max, drop path': {**_FAST, **_MAX, 'model.drop_path': 0.2},
}
_FEW = 5  # labelled videos of a class
_FEW_ATTEMPTS = tuple(name for name in _ATTEMPTS if 'max' in name)
_TUNING_SEED = 100

_Video = dict[str, str]  # a row of labels.csv


def main() -> None:
  """Runs what is missing and prints the tables."""
  parser = argparse.ArgumentParser(description=str(__doc__).split('\n', 1)[0])
  parser.add_argument('--videos', type=Path, required=True)
  parser.add_argument('--motions', type=Path, required=True)
  parser.add_argument('--out', type=Path, required=True)
  parser.add_argument('--jobs', type=int, default=1)
  parser.add_argument('--seeds', type=int, default=5)
  parser.add_argument('--arms', nargs='*', choices=_ARMS, default=_ARMS)
  args = parser.parse_args()
  out, arms = args.out.absolute(), [_SCRATCH, *args.arms]
  listed = _copies(args.videos, out)
  _write_lists(listed, out)
  encoders = {
    'built-in': args.motions.absolute() / 'pretraining',
    'pretrained': out / 'pretraining',
    'probe': out / 'pretraining',
  }
  pretraining = experiments.Run(
    'pretraining',
    'egogestar_config.py:pretrain',
    {
      'data.path': out / 'testing.csv',
      'init_from.path': encoders['built-in'],
    },
  )
  knn: dict[str, float] = {}
  if set(arms) & {'pretrained', 'probe'}:
    knn = experiments.run_all([pretraining], out, args.jobs)['pretraining']

  tuning: dict[tuple[str, str], experiments.Run] = {
    (arm, attempt): _classify(out, arm, attempt, _TUNING_SEED, encoders)
    for arm, attempt in itertools.product(arms, _ATTEMPTS)
    if not (arm == 'probe' and 'model.pooling' in _ATTEMPTS[attempt])
  }
  outcome = experiments.run_all(tuning.values(), out, args.jobs)
  tuned = {k: outcome[run.name]['accuracy/top1'] for k, run in tuning.items()}
  best = {
    arm: max(_ATTEMPTS, key=lambda a: tuned.get((arm, a), 0.0)) for arm in arms
  }

  seeds = range(args.seeds)
  testing: dict[tuple[str, int], experiments.Run] = {
    (arm, seed): _classify(out, arm, best[arm], seed, encoders)
    for seed in seeds
    for arm in arms
  }
  outcome = experiments.run_all(testing.values(), out, args.jobs)
  top1 = {k: outcome[run.name]['accuracy/top1'] for k, run in testing.items()}
  for arm, seed in [key for key in top1 if key[0] == 'pretrained']:
    workdir = out / testing[arm, seed].name
    top1[_SHUFFLED, seed] = _without_order(workdir, listed, out)
  print(experiments.table(
    ['attempt', *arms],
    [[attempt, *(
        f'{100 * tuned[arm, attempt]:.1f}' if (arm, attempt) in tuned else ''
        for arm in arms
      )] for attempt in _ATTEMPTS],
  ))  # fmt: skip
  rows: list[list[str]] = []
  scratch = [top1[_SCRATCH, seed] for seed in seeds]
  for arm in dict.fromkeys(arm for arm, _ in top1):
    mine = [top1[arm, seed] for seed in seeds]
    gain = [a - b for a, b in zip(mine, scratch, strict=True)]
    gained = '' if arm == _SCRATCH else experiments.percent(gain)
    rows.append([arm, best.get(arm, ''), experiments.percent(mine), gained])
  rows += [
    [name, '', f'{100 * value:.1f}', ''] for name, value in knn.items()
    if name.startswith('knn/') and name.endswith('top1')
  ]  # fmt: skip
  regressed = regressions.by_eye(listed, args.videos)
  if knn:
    config = Path(__file__).parent / 'egogestar_config.py'
    regressed |= regressions.by_tokens(
      listed, args.videos, config, encoders['pretrained']
    )
  rows += [
    [name, '', f'{100 * value:.1f}', ''] for name, value in regressed.items()
  ]
  print(experiments.table(['', 'attempt', 'top-1', 'gain, paired'], rows))
  if 'pretrained' in arms:
    print(_few_labels(listed, out, args.jobs, seeds, encoders))


def _few_labels(
  rows: Sequence[_Video],
  out: Path,
  jobs: int,
  seeds: range,
  encoders: Mapping[str, Path],
) -> str:
  """Runs what is missing with few labels, and returns the tables."""
  arms = (_SCRATCH, 'pretrained')
  for seed in (_TUNING_SEED, *seeds):
    _write_few(rows, out, seed)
  tuning = {
    (arm, attempt): _classify(out, arm, attempt, _TUNING_SEED, encoders, _FEW)
    for arm, attempt in itertools.product(arms, _FEW_ATTEMPTS)
  }
  outcome = experiments.run_all(tuning.values(), out, jobs)
  tuned = {k: outcome[run.name]['accuracy/top1'] for k, run in tuning.items()}
  best = {
    arm: max(_FEW_ATTEMPTS, key=lambda attempt: tuned[arm, attempt])
    for arm in arms
  }
  testing = {
    (arm, seed): _classify(out, arm, best[arm], seed, encoders, _FEW)
    for seed in seeds
    for arm in arms
  }
  outcome = experiments.run_all(testing.values(), out, jobs)
  scratch, pretrained = (
    [outcome[testing[arm, seed].name]['accuracy/top1'] for seed in seeds]
    for arm in arms
  )
  gain = [a - b for a, b in zip(pretrained, scratch, strict=True)]
  attempts = experiments.table(
    [f'attempt, {_FEW} a class', *arms],
    [[attempt, *(f'{100 * tuned[arm, attempt]:.1f}' for arm in arms)]
     for attempt in _FEW_ATTEMPTS],
  )  # fmt: skip
  results = experiments.table(
    ['labelled videos a class', *arms, 'gain, paired'],
    [[_FEW, *map(experiments.percent, (scratch, pretrained, gain))]],
  )
  return f'{attempts}\n\n{results}'


def _classify(
  out: Path,
  arm: str,
  attempt: str,
  seed: int,
  encoders: Mapping[str, Path],
  labels: int | None = None,
) -> experiments.Run:
  name = 'tuning' if seed == _TUNING_SEED else 'testing'
  if labels is not None:
    name = f'labels_{labels}_{seed}'
  settings = {
    'data.path': out / f'{name}.csv',
    'seed': seed,
    **_ATTEMPTS[attempt],
  }
  if arm in encoders:
    settings['init_from.path'] = encoders[arm]
  stage = 'probe' if arm == 'probe' else 'classify'
  slug = attempt.replace(', ', '_').replace(' ', '-')
  few = '' if labels is None else f'{labels}_'
  return experiments.Run(
    f'{arm}_{few}{slug}_seed{seed}', f'egogestar_config.py:{stage}', settings
  )


def _copies(videos: Path, out: Path) -> list[_Video]:
  """Writes small copies; returns the rows of labels.csv."""
  with (videos / 'labels.csv').open(newline='') as file:
    rows: list[_Video] = list(csv.DictReader(file))
  for row in rows:
    copy = out / row['path']
    if not copy.exists():
      copy.parent.mkdir(parents=True, exist_ok=True)
      frames = regressions.read(videos / row['path'], _FRAMES, _SIZE)
      encode.write_video(copy, frames, 15, crf=12)
  return rows


def _without_order(workdir: Path, rows: Sequence[_Video], out: Path) -> float:
  """The accuracy of a run on test videos whose frames are shuffled."""
  lines = []
  for i, row in enumerate(row for row in rows if row['split'] == 'test'):
    copy = out / 'shuffled' / row['path']
    if not copy.exists():
      copy.parent.mkdir(parents=True, exist_ok=True)
      frames = regressions.read(out / row['path'], _FRAMES, _SIZE)
      frames = np.random.default_rng(i).permutation(frames)
      encode.write_video(copy, frames, 15, crf=12)
    lines.append([str(copy), row['label'], 'validation'])
  _write_list(out / 'shuffled.csv', lines)
  _, numbers = evaluate.evaluate(
    str(workdir),
    segments=1,
    crops=1,
    out=str(out / 'shuffled'),
    overrides=[('data.path', str(out / 'shuffled.csv'))],
  )
  return numbers['top1']


def _write_lists(rows: Sequence[_Video], out: Path) -> None:
  """Lists what to train on and what to hold out, for tuning and for testing."""
  trained = sorted(
    {int(row['session']) for row in rows if row['split'] == 'train'}
  )
  held_out = set(trained[::3])
  lists = {'tuning': [], 'testing': []}
  for row in rows:
    label = '' if row['split'] == 'unlabelled' else row['label']
    line = [str(out / row['path']), label]
    if row['split'] == 'test':
      lists['testing'].append([*line, 'validation'])
      continue
    lists['testing'].append([*line, 'train'])
    if row['split'] == 'train':
      split = 'validation' if int(row['session']) in held_out else 'train'
      lists['tuning'].append([*line, split])
  for name, lines in lists.items():
    _write_list(out / f'{name}.csv', lines)


def _write_few(rows: Sequence[_Video], out: Path, seed: int) -> None:
  """Lists few labelled videos of each class, and those that it is for."""
  name = 'tuning' if seed == _TUNING_SEED else 'testing'
  with (out / f'{name}.csv').open(newline='') as file:
    lines = list(csv.reader(file))[1:]
  rng = np.random.default_rng([_FEW, seed])
  chosen = [line for line in lines if line[2] == 'validation']
  for label in sorted(
    {row['label'] for row in rows if row['split'] == 'train'}
  ):
    mine = [line for line in lines if line[1:] == [label, 'train']]
    chosen += [mine[i] for i in rng.choice(len(mine), _FEW, replace=False)]
  _write_list(out / f'labels_{_FEW}_{seed}.csv', chosen)


def _write_list(path: Path, lines: Sequence[Sequence[str]]) -> None:
  with path.open('w', newline='') as file:
    csv.writer(file).writerows([('path', 'label', 'split'), *lines])


if __name__ == '__main__':
  main()
