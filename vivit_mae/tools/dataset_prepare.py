"""Writes videos as a dataset ready for training: `dataset prepare`."""

import argparse
import math
import os
import re
from collections.abc import Iterable, Sequence

from etils import epath

from vivit_mae.data import beam, layouts, lists, reencode, writer
from vivit_mae.data.frames import Frames
from vivit_mae.data.listing import SPLITS, Example, Listing, hold_out, shown
from vivit_mae.tools import prepare_text

# Shards of this many bytes are quick to copy and few enough to keep open.
_SHARD_BYTES = 2**28


def add_parser(commands: argparse._SubParsersAction) -> None:
  """Adds `prepare` to the commands of `vivit_mae.tools.dataset`."""
  parser = commands.add_parser(
    'prepare',
    help='write videos as a dataset for training',
    description=(
      'Checks every video and writes the readable ones, as they are or encoded '
      'anew, to a dataset that TFDS and data.source=tfds open. Gives the '
      'reason for each video that is left out. The same command goes on after '
      'an interruption.'
    ),
  )
  add = parser.add_argument
  add(
    'src',
    help=(
      'a folder of videos (the first level of subfolders names the class; '
      'folders train, validation and test are splits), a csv file of `path '
      'label`, or a folder with train.csv, val.csv and test.csv'
    ),
  )
  add('--out', required=True, metavar='DIR', help='where to write the dataset')
  add(
    '--csv',
    metavar='FILE',
    help='list of the videos; its relative paths then start from src',
  )
  add(
    '--layout',
    choices=tuple(layouts.LAYOUTS),
    metavar='NAME',
    help=(
      'src is a public dataset as its owners publish it: '
      f'{", ".join(layouts.LAYOUTS)}'
    ),
  )
  add(
    '--official_split',
    type=int,
    metavar='N',
    help='which one, where a layout has several (default: 1)',
  )
  add(
    '--split',
    nargs='+',
    metavar='NAME',
    help='write these splits only, such as train (default: all there are)',
  )
  add(
    '--unlabelled',
    nargs='+',
    default=(),
    metavar='NAME',
    help="class folders or labels that mean no label; '*' drops all labels",
  )
  add(
    '--eval_fraction',
    type=float,
    default=0.0,
    metavar='SHARE',
    help='share of the videos held out as validation if there is no such split',
  )
  add(
    '--shards',
    type=int,
    metavar='N',
    help='files per split (default: one per 256 MB)',
  )
  add(
    '--check',
    choices=writer.CHECKS,
    help=(
      'full: decode every frame (default); packets: count frames only, several '
      'times faster, misses damage inside the video; encoding anew decodes '
      'every frame anyhow'
    ),
  )
  add('--name', default='videos', help='name of the dataset (default: videos)')
  add(
    '--threads',
    type=int,
    metavar='N',
    help=(
      'videos checked or encoded at the same time (default: one per core; '
      'with Beam 1 in each worker)'
    ),
  )
  _add_encoding(parser)
  _add_beam(parser)


def _add_encoding(parser: argparse.ArgumentParser) -> None:
  group = parser.add_argument_group(
    'encoding',
    'The bytes of the videos are kept, unless one of the options below --copy '
    'is given: then every video is encoded anew (H.264, yuv420p, MP4), frame '
    'by frame, without its sound, upright, and with its colour tags. Takes '
    'longer and loses a little; reading clips is quicker ever after.',
  )
  add = group.add_argument
  default = reencode.Settings()
  add('--copy', action='store_true', help='keep the bytes (default)')
  add(
    '--short_side',
    type=int,
    metavar='PIXELS',
    help='scale the shorter side to this where it is longer (default: do not)',
  )
  add(
    '--gop',
    type=int,
    metavar='FRAMES',
    help=f'greatest distance of key frames (default: {default.gop})',
  )
  add(
    '--crf',
    type=int,
    metavar='N',
    help=f'quality: 0 lossless, 51 worst (default: {default.crf})',
  )
  add(
    '--preset',
    choices=reencode.PRESETS,
    metavar='NAME',
    help=(
      f"x264's trade of time against size: {', '.join(reencode.PRESETS)} "
      f'(default: {default.preset})'
    ),
  )
  add(
    '--tune',
    choices=reencode.TUNES,
    metavar='NAME',
    help=(
      f'{", ".join(reencode.TUNES)} (default: {default.tune}, which leaves out '
      'what is slow to decode)'
    ),
  )


def _add_beam(parser: argparse.ArgumentParser) -> None:
  group = parser.add_argument_group(
    'Apache Beam',
    'Writes the same files, in several processes or on many machines.',
  )
  add = group.add_argument
  add(
    '--beam_runner',
    metavar='NAME',
    help='DirectRunner (this machine), DataflowRunner, SparkRunner, ...',
  )
  add(
    '--beam_options',
    metavar='OPTIONS',
    help=(
      "Beam's own, with commas between them: "
      '--beam_options="--direct_num_workers=2,'
      '--direct_running_mode=multi_processing"'
    ),
  )


def run(arguments: argparse.Namespace) -> int:
  """Runs the command; returns the exit status."""
  print(prepare_text.report(prepare(**vars(arguments))))
  return 0


def read_sources(
  src: str,
  csv: str | None,
  unlabelled: Sequence[str],
  layout: str | None = None,
  official_split: int | None = None,
) -> Listing:
  """Lists what `src` names: a folder, a list, or a folder of lists.

  Args:
    src: A path; see `--help`.
    csv: A list whose relative paths start from `src`.
    unlabelled: Labels that mean none.
    layout: A key of `layouts.LAYOUTS`, if it is such a dataset.
    official_split: Which one, where a layout has several; None for the first.

  Returns:
    The listing.

  Raises:
    ValueError: If there is nothing to read, or if options contradict.
  """
  if layout and csv:
    raise ValueError(f'--csv and --layout={layout}: each says what there is.')
  if layout:
    return layouts.read(layout, src, unlabelled, official_split or 1)
  if official_split is not None:
    raise ValueError('--official_split belongs to a --layout; there is none.')
  if csv:
    return lists.read_csv(csv, unlabelled, root=src)
  path = epath.Path(src).expanduser()
  if path.is_file() or lists.has_split_lists(path):
    return lists.read_csv(path, unlabelled)
  return lists.read_folder(path, unlabelled)


def prepare(
  src: str,
  out: str,
  *,
  csv: str | None = None,
  layout: str | None = None,
  official_split: int | None = None,
  split: Sequence[str] | None = None,
  unlabelled: Sequence[str] = (),
  eval_fraction: float | int = 0.0,
  shards: int | None = None,
  check: str | None = None,
  name: str = 'videos',
  threads: int | None = 1,
  copy: bool = False,
  short_side: int | None = None,
  gop: int | None = None,
  crf: int | None = None,
  preset: str | None = None,
  tune: str | None = None,
  beam_runner: str | None = None,
  beam_options: str | None = None,
  progress: bool = True,
) -> writer.Prepared:
  """Writes videos as a dataset; the arguments are those of the command.

  Args:
    src: Folder, list, or folder of lists.
    out: Directory to write.
    csv: A list whose relative paths start from `src`.
    layout: A public dataset's name.
    official_split: Which one, where a layout has several.
    split: Splits to write; None = all.
    unlabelled: Class folders or labels that mean no label.
    eval_fraction: Share held out as validation if there is no such split.
    shards: Files per split; None = by size.
    check: 'full' or 'packets'; None = 'full'.
    name: Name of the dataset.
    threads: Videos opened at the same time; None = one per core.
    copy: Keep the bytes, which is the default.
    short_side: See `reencode.Settings`, as for the next four. Any of them has
      the videos encoded anew.
    gop: See there.
    crf: See there.
    preset: See there.
    tune: See there.
    beam_runner: Write with Beam, on this runner.
    beam_options: Beam's own, with commas between them.
    progress: Whether to show a progress bar.

  Returns:
    What was written and what was left out.

  Raises:
    ValueError: If there is nothing to read, if `out` holds something else, or
      if an argument is impossible.
  """
  for option, value in (('shards', shards), ('threads', threads)):
    if value is not None and value < 1:
      raise ValueError(f'--{option} is {value}; it is at least 1.')
  wanted = {
    'short_side': short_side,
    'gop': gop,
    'crf': crf,
    'preset': preset,
    'tune': tune,
  }
  given = {k: v for k, v in wanted.items() if v is not None}
  encoding = reencode.Settings(**given) if given else None
  if encoding and copy:
    raise ValueError(
      f'--copy keeps the bytes; leave it out, or {_flags(given)}.'
    )
  if encoding and check == 'packets':
    raise ValueError(
      f'--check=packets looks at packets only, and {_flags(given)} has every '
      'frame decoded; leave one of them out.'
    )
  write_shards = _beam(beam_runner, beam_options, threads)
  listing = read_sources(src, csv, unlabelled, layout, official_split)
  splits = _choose(hold_out(listing.splits, eval_fraction), split, src)
  examples = [example for part in splits.values() for example in part]
  if encoding is None:
    encoding = _needed_encoding(examples, copy, progress)
  if progress:
    _say_left_out(listing, layout)
  return writer.write_dataset(
    out,
    splits,
    name=name,
    class_names=listing.class_names,
    multi_label=listing.multi_label,
    boxes=any(example.boxes is not None for example in examples),
    shards=shards or {s: _count_shards(e) for s, e in splits.items()},
    check=check or 'full',
    encoding=encoding,
    num_threads=threads or os.cpu_count() or 1,
    write_shards=write_shards,
    progress=progress,
  )


def _flags(names: Iterable[str]) -> str:
  return ', '.join(f'--{name}' for name in names)


def _beam(
  runner: str | None, options: str | None, threads: int | None
) -> beam.BeamWriter | None:
  if runner is None:
    if options is not None:
      raise ValueError('--beam_options belong to a --beam_runner; none is set.')
    return None
  separate = re.split(r',(?=-)', options) if options else ()
  return beam.BeamWriter(runner, tuple(separate), threads or 1)


def _choose(
  splits: dict[str, tuple[Example, ...]],
  wanted: Sequence[str] | None,
  src: str,
) -> dict[str, tuple[Example, ...]]:
  """The splits that are wanted, under any of their names."""
  if wanted is None:
    return splits
  known = [s if s in splits else SPLITS.get(s, s) for s in wanted]
  wrong = [s for s in known if s not in splits]
  if wrong:
    raise ValueError(
      f'{src} has no split {shown(wrong)}; it has {shown(splits)}.'
    )
  return {s: splits[s] for s in splits if s in known}


def _needed_encoding(
  examples: Sequence[Example], copy: bool, progress: bool
) -> reencode.Settings | None:
  """The usual encoding where there are pictures; parts must ask for one."""
  pictures = [e for e in examples if isinstance(e.video, Frames)]
  parts = [e for e in examples if e.segment is not None]
  default = reencode.Settings()
  if pictures and copy:
    raise ValueError(
      f'{_some(pictures, examples)} stored as pictures, which --copy can not '
      'turn into a video. Leave it out and they are encoded, or train on them '
      'where they lie.'
    )
  if parts and not pictures:
    raise ValueError(
      f'{_some(parts, examples)} parts of longer videos: there are no bytes of '
      'their own to copy. Train on them where they lie, or have each part '
      'encoded: --short_side=256, or --crf=23 for the size it has.'
    )
  if not pictures:
    return None
  if progress:
    print(
      f'{_some(pictures, examples)} stored as pictures: all are encoded, with '
      f'gop {default.gop}, crf {default.crf}, preset {default.preset}, tune '
      f'{default.tune}, in the size they have. --help tells what can be set.'
    )
  return default


def _some(found: Sequence[Example], examples: Sequence[Example]) -> str:
  return f'{len(found)} of {len(examples)} videos, such as {found[0].id!r}, are'


def _say_left_out(listing: Listing, layout: str | None) -> None:
  """Says what the listing leaves out; what a list misses is rejected later."""
  if listing.skipped:
    print(
      f'{len(listing.skipped)} files are not videos by their name: '
      f'{shown(name for name, _ in listing.skipped)}.'
    )


def _count_shards(examples: Sequence[Example]) -> int:
  paths = [epath.Path(str(example.video)) for example in examples]
  size = sum(path.stat().length for path in paths if path.exists())
  return max(1, math.ceil(size / _SHARD_BYTES))
