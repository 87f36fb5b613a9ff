"""Says what a collection of videos holds and what is odd: `dataset check`."""

import argparse
import dataclasses
import json
import os
from collections.abc import Sequence
from typing import Any

import tqdm
from etils import epath

from vivit_mae.data import (
  datasets,
  frame_folders,
  inspection,
  picture_files,
  record_files,
  scan,
)
from vivit_mae.data.inspection import Finding
from vivit_mae.data.listing import Example
from vivit_mae.data.overview import Overview, summarise
from vivit_mae.tools import check_text, sources
from vivit_mae.tools.check_text import Collection

# Exit status with --strict where a video is broken.
_STRICT = 2


def add_parser(commands: argparse._SubParsersAction) -> None:
  """Adds `check` to the commands of `vivit_mae.tools.dataset`."""
  parser = commands.add_parser(
    'check',
    help='say what a collection of videos holds, and name the odd ones',
    description=(
      'Reads every video and prints one table of what there is, then every '
      'broken, suspicious, short, rotated or duplicate file. Changes nothing.'
    ),
    epilog=(
      'Exit status: 0, also where some videos are broken; 1 if there is '
      'nothing to read or no video can be read; 2 with --strict if a video is '
      'broken.'
    ),
  )
  add = parser.add_argument
  add(
    'path',
    help=(
      'what prepare takes (a folder of videos, a csv file, a folder of lists), '
      'a prepared dataset, or a single video'
    ),
  )
  sources.add_kinds(parser, 'path')
  add(
    '--unlabelled',
    nargs='+',
    default=(),
    metavar='NAME',
    help='class folders or labels that mean no label',
  )
  add(
    '--full',
    action='store_true',
    help=(
      'decode every frame, which also finds damage inside the videos; without '
      'it packets are counted only'
    ),
  )
  add(
    '--num_frames',
    type=int,
    default=16,
    metavar='N',
    help='frames of a clip (default: 16)',
  )
  add(
    '--stride',
    type=int,
    default=4,
    metavar='N',
    help=(
      'distance of its frames (default: 4); videos of fewer than num_frames x '
      'stride frames are short'
    ),
  )
  add(
    '--workers',
    type=int,
    default=os.cpu_count() or 1,
    metavar='N',
    help='videos read at the same time (default: one per core)',
  )
  add(
    '--timeout',
    type=float,
    default=60.0,
    metavar='S',
    help='seconds for each file (default: 60)',
  )
  add('--report', metavar='FILE', help='csv file to write, with every finding')
  add(
    '--overwrite',
    action='store_true',
    help='replace the report if there is one',
  )
  add('--json', action='store_true', help='print JSON for other programs')
  add(
    '--strict',
    action='store_true',
    help='exit with status 2 if a video is broken',
  )


def run(arguments: argparse.Namespace) -> int:
  """Runs the command; returns the exit status."""
  for name in ('num_frames', 'stride', 'workers', 'timeout', 'fps'):
    value = getattr(arguments, name)
    if not value > 0:
      raise ValueError(f'--{name} is {value:g}; it is above 0.')
  report = (
    epath.Path(arguments.report).expanduser() if arguments.report else None
  )
  if report is not None and report.exists() and not arguments.overwrite:
    raise ValueError(
      f'--report={report} exists; give another name, or --overwrite.'
    )
  found = collect(
    arguments.path,
    csv=arguments.csv,
    layout=arguments.layout,
    official_split=arguments.official_split,
    source=arguments.source,
    unlabelled=arguments.unlabelled,
    fps=arguments.fps,
  )
  span = arguments.num_frames * arguments.stride
  overview, findings = check(
    found,
    span=span,
    full=arguments.full,
    num_workers=arguments.workers,
    timeout=arguments.timeout,
  )
  problem = None
  if report is not None:
    try:
      check_text.write(report, check_text.to_csv(findings).encode())
    except ValueError as error:  # what was found is said all the same
      report, problem = None, error
  if arguments.json:
    lines = [check_text.to_json(arguments.path, found, overview, findings)]
  else:
    lines = [
      *check_text.table(arguments.path, found, overview),
      *check_text.list_findings(findings, span, report),
    ]
  check_text.say(lines)
  if problem is not None:
    raise problem
  broken = sum(finding.group == 'broken' for finding in findings)
  if overview.durations is None:
    raise ValueError(
      f'none of the {broken} videos of {arguments.path} can be read.'
    )
  return _STRICT if arguments.strict and broken else 0


def collect(
  path: str,
  *,
  csv: str | None = None,
  layout: str | None = None,
  official_split: int | None = None,
  source: str | None = None,
  unlabelled: Sequence[str] = (),
  fps: float | int = 30,
) -> Collection:
  """Lists what a path names.

  Args:
    path: A folder, a list, a folder of lists, a prepared dataset, or a video.
    csv: A list whose relative paths start from `path`.
    layout: The path is a public dataset, a key of `layouts.LAYOUTS`.
    official_split: Which one, where a layout has several; None for the first.
    source: 'frames', 'tfds' or 'dmvr', if the path does not say it.
    unlabelled: Labels that mean none.
    fps: Pictures per second, where videos are pictures.

  Returns:
    The videos.

  Raises:
    ValueError: If there is nothing to read, or if options contradict.
  """
  if source and (csv or layout):
    raise ValueError(
      f'--source={source} says what path is; leave out --csv and --layout.'
    )
  file = epath.Path(path).expanduser()
  if scan.is_video(file.name) and file.is_file():
    return Collection({'train': [Example(str(file), -1, file.name)]}, ())
  if source == 'dmvr':
    _, sets = record_files.find(path)
    splits = sorted(sets, key=lambda split: (split != 'train', split))
    return _open('dmvr', path, splits, unlabelled=unlabelled, fps=fps)
  info = file / 'dataset_info.json'
  if source == 'tfds' or (info.exists() and not (csv or layout or source)):
    return _open('tfds', path, _splits(info), unlabelled=unlabelled, fps=fps)
  if source == 'frames':
    video_of = picture_files.open_pictures
    listing = frame_folders.read_frame_folders(path, unlabelled)
  else:
    video_of = picture_files.open_if_pictures
    listing = sources.read_sources(
      path, csv, unlabelled, layout, official_split
    )
  return Collection(
    {
      split: [
        dataclasses.replace(e, video=video_of(str(e.video), fps))
        for e in examples
      ]
      for split, examples in listing.splits.items()
    },
    listing.class_names,
    listing.skipped,
    listing.missing,
    listing.duplicates,
  )


def _splits(info: epath.Path) -> list[str]:
  """The splits of a TFDS dataset that hold any video."""
  if not info.exists():
    return ['all']  # says what is wrong when it is opened
  return [
    split['name']
    for split in json.loads(info.read_text())['splits']
    if any(map(int, split['shardLengths']))
  ]


def _open(
  source: str, path: str, splits: Sequence[str], **options: Any
) -> Collection:
  """All splits of a dataset whose examples are read when they are asked for."""
  if not splits:
    raise ValueError(f'{path} is a dataset without a single video.')
  opened = {
    split: datasets.open_source(source, path, split, **options)
    for split in splits
  }
  return Collection(opened, opened[splits[0]].class_names)


def check(
  collection: Collection,
  *,
  span: int = 64,
  full: bool = False,
  num_workers: int = 1,
  timeout: int | float = 60,
  progress: bool = True,
) -> tuple[Overview, list[Finding]]:
  """Reads every video; the arguments are those of the command.

  Args:
    collection: The videos.
    span: Frames below which a video is short.
    full: Whether to decode every frame, strictly.
    num_workers: Videos read at the same time.
    timeout: Seconds for each file.
    progress: Whether to show a progress bar on a terminal.

  Returns:
    The numbers, and what is to be known of single videos.
  """
  total = sum(map(len, collection.splits.values()))
  with tqdm.tqdm(
    total=total,
    unit=' videos',
    desc='Checking',
    leave=False,
    disable=None if progress else True,
  ) as bar:
    rows = inspection.gather(
      collection.splits,
      full=full,
      num_workers=num_workers,
      timeout=timeout,
      progress=bar.update,
    )
  findings = inspection.find(rows, span, num_workers=num_workers)
  known = {row.id for row in rows}
  gone = [
    Finding('broken', 'missing', '', name, reason)
    for name, reason in collection.missing
    if name not in known
  ]
  again = [
    Finding('duplicate', 'listed_twice', '', name, reason)
    for name, reason in collection.duplicates
  ]
  overview = summarise(rows, collection.class_names, len(gone))
  return overview, gone + findings + again
