"""Writes videos as a dataset ready for training: `dataset prepare`."""

import argparse
import os
import re
from collections.abc import Iterable, Sequence

from vivit_mae.data import beam, reencode, writer
from vivit_mae.data.frames import Frames
from vivit_mae.data.listing import Example
from vivit_mae.data.opening import CHECKS
from vivit_mae.tools import prepare_text, sources
from vivit_mae.tools.sources import read_sources

__all__ = ['add_parser', 'prepare', 'read_sources', 'run']


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
  sources.add_kinds(parser, 'src')
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
    choices=CHECKS,
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


def prepare(
  src: str,
  out: str,
  *,
  csv: str | None = None,
  layout: str | None = None,
  official_split: int | None = None,
  source: str | None = None,
  fps: float | int = 30.0,
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
    source: A key of `sources.KINDS`, if it is none of the above.
    fps: Pictures per second, where videos are stored as pictures.
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
  if not 0 < fps < float('inf'):
    raise ValueError(f'--fps is {fps:g}; it is above 0.')
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
  if source in ('tfds', 'dmvr'):
    _refuse(f'--source={source}', csv, layout, official_split, eval_fraction)
    videos = sources.records(source, src, split, unlabelled, fps)
  else:
    pictures = source == 'frames'
    if pictures:
      _refuse('--source=frames', csv, layout, official_split)
    listing = sources.read_sources(
      src, csv, unlabelled, layout, official_split, pictures
    )
    videos = sources.listed(listing, src, split, eval_fraction, fps)
  if encoding is None:
    encoding = _needed_encoding(videos.known, copy, progress)
  if progress:
    print(*videos.left_out, sep='\n', end='\n' * bool(videos.left_out))
  return writer.write_dataset(
    out,
    videos.splits,
    name=name,
    class_names=videos.class_names,
    multi_label=videos.multi_label,
    boxes=any(example.boxes is not None for example in videos.known),
    shards=shards or videos.shards,
    check=check or 'full',
    encoding=encoding,
    fingerprint=videos.fingerprint,
    num_threads=threads or os.cpu_count() or 1,
    isolated=True,
    write_shards=write_shards,
    progress=progress,
  )


def _refuse(
  option: str,
  csv: str | None,
  layout: str | None,
  official_split: int | None,
  eval_fraction: float | int = 0,
) -> None:
  """Refuses options that say what the videos are, beside one that does."""
  for name, value in (
    ('csv', csv),
    ('layout', layout),
    ('official_split', official_split),
    ('eval_fraction', eval_fraction or None),
  ):
    if value is not None:
      raise ValueError(f'{option} and --{name}={value} do not go together.')


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


def _needed_encoding(
  examples: Sequence[Example], copy: bool, progress: bool
) -> reencode.Settings | None:
  """The usual encoding where there are pictures; parts must ask for one."""
  pictures = [e for e in examples if isinstance(e.video, Frames)]
  parts = [e for e in examples if e.segment is not None]
  default = reencode.Settings()
  if pictures and copy:
    raise ValueError(
      f'Videos such as {pictures[0].id!r} are stored as pictures, which --copy '
      'can not turn into a video. Leave it out and they are encoded, or train '
      'on them where they lie.'
    )
  if parts and not pictures:
    raise ValueError(
      f'Videos such as {parts[0].id!r} are parts of longer videos: there are '
      'no bytes of their own to copy. Train on them where they lie, or have '
      'each part encoded: --short_side=256, or --crf=23 for the size it has.'
    )
  if not pictures:
    return None
  if progress:
    print(
      f'Videos such as {pictures[0].id!r} are stored as pictures: all are '
      f'encoded, with gop {default.gop}, crf {default.crf}, preset '
      f'{default.preset}, tune {default.tune}, in the size they have. --help '
      'tells what can be set.'
    )
  return default
