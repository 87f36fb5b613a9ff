"""Tests a trained classifier with several views of each video.

    python -m vivit_mae.tools.evaluate --workdir=/tmp/run --segments=5 --crops=3

Fields of the run's config can be set: --config.data.num_workers=4.
"""

import functools
import json
import sys
from collections.abc import Mapping, Sequence

import jax
from etils import epath
from ml_collections import ConfigDict

from vivit_mae import command, evaluation, tasks
from vivit_mae import config as config_lib
from vivit_mae.data import datasets, sampling
from vivit_mae.evaluation import predictions, scoring
from vivit_mae.tools import arguments
from vivit_mae.training import checkpoints, origin, sharding

# Numbers as people call them; shares are printed in percent.
_SHARES = {
  'top1': 'top-1',
  'top5': 'top-5',
  'mean_class_accuracy': 'mean class accuracy',
  'mean_average_precision': 'mean average precision',
}


def _build_parser() -> arguments.Parser:
  parser = arguments.Parser(
    prog='python -m vivit_mae.tools.evaluate',
    description=(
      'Tests the classifier of a workdir with several views of each video, '
      'prints the numbers, and writes the predictions and the confusion matrix.'
    ),
    epilog="--config.field=value sets a field of the run's config.",
  )
  add = parser.add_argument
  add('--workdir', required=True, help='folder of the run')
  add(
    '--step', type=int, metavar='N', help='which checkpoint (default: the last)'
  )
  add('--split', help="which videos (default: the config's data.eval_split)")
  add(
    '--segments',
    type=int,
    default=5,
    metavar='N',
    help='places in time (default: 5)',
  )
  add(
    '--crops',
    type=int,
    default=3,
    metavar='N',
    help='places along the longer side of the frame (default: 3)',
  )
  add(
    '--sampling',
    default='',
    choices=sorted(sampling.SAMPLINGS),
    help="how frames are chosen (default: the config's data.sampling)",
  )
  add(
    '--average',
    default='softmax',
    choices=scoring.AVERAGES,
    help='what is averaged over the views (default: softmax)',
  )
  add(
    '--batch_size',
    type=int,
    default=16,
    metavar='N',
    help='views at a time, over all devices (default: 16)',
  )
  add(
    '--num_videos',
    type=int,
    metavar='N',
    help='so many videos only, taken evenly (default: all)',
  )
  add(
    '--predictions',
    default='csv',
    choices=sorted(predictions.FORMATS),
    help='format of the predictions (default: csv)',
  )
  add(
    '--out',
    metavar='DIR',
    help='where the folder predictions is written (default: the workdir)',
  )
  return parser


def read_config(workdir: epath.Path) -> ConfigDict:
  """The config of a run that trained a classifier.

  Args:
    workdir: of the run.

  Returns:
    The config, with today's defaults for fields that it did not have.

  Raises:
    ValueError: it is no workdir of a classifier.
  """
  path = workdir / 'config.json'
  if not path.exists():
    missing = 'has no config.json' if workdir.exists() else 'does not exist'
    raise ValueError(
      f'--workdir={workdir} {missing}; give the folder of a run, as it was '
      'given to vivit_mae.main.'
    )
  saved = json.loads(path.read_text())
  if saved['task'] != 'classify':
    raise ValueError(
      f'--workdir={workdir} holds a run of task {saved["task"]!r}, which tells '
      'no classes apart. Train a classifier from it first: python -m '
      'vivit_mae.main --config=configs/own_videos_finetune.py '
      f'--config.init_from.path={workdir} --workdir=...'
    )
  config = config_lib.from_saved(saved)
  # With other frames or sizes by the command line, its tables are resized.
  config.model.position_grid = origin.learned_on(saved['model'])
  return config


def evaluate(
  workdir: str,
  *,
  step: int | None = None,
  split: str | None = None,
  segments: int = 5,
  crops: int = 3,
  sampling: str = '',
  average: str = 'softmax',
  batch_size: int = 16,
  num_videos: int | None = None,
  predictions: str = 'csv',
  out: str | None = None,
  overrides: Sequence[tuple[str, str]] = (),
) -> tuple[str, dict[str, float]]:
  """Tests a classifier; the arguments are those of the command.

  Args:
    workdir: Folder of the run.
    step: Which checkpoint; None for the last.
    split: Which videos; None for the config's `data.eval_split`.
    segments: Places in time.
    crops: Places along the longer side of the frame.
    sampling: How frames are chosen; '' for the config's `data.sampling`.
    average: What is averaged over the views.
    batch_size: Views at a time, over all devices.
    num_videos: So many videos only; None for all.
    predictions: Format of the predictions.
    out: Where the folder `predictions` is written; None for the workdir.
    overrides: Fields of the config and their new values, as text.

  Returns:
    What was tested, in one line, and the numbers.

  Raises:
    ValueError: There is no such run, checkpoint or split, or an argument is
      impossible.
  """
  folder = epath.Path(workdir).expanduser()
  config = read_config(folder)
  for field, text in overrides:
    command.override(config, field, text)
  split = split or config.data.eval_split
  with config.unlocked():
    config.evals = ConfigDict(
      {
        'test': dict(
          kind='multiview',
          split=split,
          segments=segments,
          crops=crops,
          sampling=sampling,
          average=average,
          batch_size=batch_size,
          num_clips=num_videos,
          predictions=predictions,
        )
      }
    )
  source = datasets.source_from(config.data.to_dict(), split)
  task = tasks.build(
    config, class_names=source.class_names, multi_label=source.multi_label
  )
  mesh = sharding.make_mesh()
  with jax.set_mesh(mesh):
    evaluator = evaluation.build(
      config,
      task,
      put=functools.partial(
        sharding.put_batch, sharding=sharding.batch_sharding(mesh)
      ),
      num_devices=mesh.size,
      workdir=epath.Path(out).expanduser() if out else folder,
    )['test']
    variables, step = checkpoints.load_variables(folder, task.init, step)
    numbers = {
      name: value
      for name, value in evaluator.run(variables, step)
      if isinstance(value, float)
    }
  count = min(len(source), num_videos or len(source))
  return (
    f'{folder}, step {step}: {count} videos of {source.name}, {segments} x '
    f'{crops} views'
  ), numbers


def table(numbers: Mapping[str, float]) -> str:
  """The numbers, one in a line."""
  rows = []
  for name, value in numbers.items():
    known = next((k for k in _SHARES if name.endswith(k)), None)
    if known is None:
      rows.append((name.replace('_', ' '), f'{value:.4f}'))
    else:
      head = name.removesuffix(known).rstrip('_')
      label = f'{head} {_SHARES[known]}'.strip()
      rows.append((label, f'{100 * value:.2f} %'))
  width = max((len(label) for label, _ in rows), default=0)
  return '\n'.join(f'  {label:<{width}}  {text:>9}' for label, text in rows)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command.

  Args:
    argv: Arguments; those of the process if None.

  Returns:
    The exit status.
  """
  words, overrides = command.split_argv(sys.argv[1:] if argv is None else argv)
  options = vars(_build_parser().parse_args(words))
  try:
    tested, numbers = evaluate(**options, overrides=overrides)
  except ValueError as error:
    print(f'error: {error}', file=sys.stderr)
    return 1
  except KeyboardInterrupt:
    print('interrupted', file=sys.stderr)
    return 130
  print(tested)
  print(table(numbers) or '  no video has a label: there are predictions only')
  out = epath.Path(options['out'] or options['workdir']) / 'predictions'
  print(f'predictions are in {out}')
  return 0


if __name__ == '__main__':
  sys.exit(main())
