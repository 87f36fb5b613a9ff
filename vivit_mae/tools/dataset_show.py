"""Draws what training will see of a collection of videos: `dataset show`."""

import argparse
import contextlib
import dataclasses
import io
from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath
from jaxtyping import Int
from ml_collections import ConfigDict
from PIL import Image

from vivit_mae import command
from vivit_mae import config as config_lib
from vivit_mae.data import (
  datasets,
  decode,
  labels,
  lists,
  loading,
  pipeline,
)
from vivit_mae.data.datasets import Source
from vivit_mae.data.labels import ClassNames
from vivit_mae.data.listing import Example
from vivit_mae.tools import check_text, contact_sheet, sources

_COLUMNS = 8
_SEPARATOR = '   |   '


def add_parser(commands: argparse._SubParsersAction) -> None:
  """Adds `show` to the commands of `vivit_mae.tools.dataset`."""
  parser = commands.add_parser(
    'show',
    help='draw a contact sheet of what training will see',
    description=(
      'Writes one picture of the first clips of a training run: each row is a '
      'clip as the pipeline hands it to the device, cropped and augmented as '
      'the config says. What the device itself does is not shown: '
      'normalisation, random erasing, mixup and cutmix.'
    ),
    epilog=(
      '--config.data.crop=center sets a field of the config, whether --config '
      'is given or not; --config.data.source=frames says what path is, if it '
      'does not say so itself.'
    ),
  )
  add = parser.add_argument
  add(
    'path',
    nargs='?',
    help=(
      'a folder of videos, a csv file, a folder of lists, or a prepared '
      "dataset (default: the config's own data, else the built-in videos)"
    ),
  )
  add('--out', required=True, metavar='FILE', help='the picture, a .png file')
  add(
    '--config',
    metavar='FILE',
    help='experiment, such as configs/k400_mae.py:L (default: the defaults)',
  )
  sources.add_layout(parser, 'path')
  add('--split', metavar='NAME', help="which videos (default: the config's)")
  add(
    '--videos',
    type=int,
    default=8,
    metavar='N',
    help='how many of them (default: 8)',
  )
  add(
    '--frames',
    type=int,
    default=_COLUMNS,
    metavar='N',
    help=f'how many of each clip, spread evenly (default: {_COLUMNS})',
  )
  add(
    '--seed',
    type=int,
    metavar='N',
    help="decides which videos, and all that is random (default: the config's)",
  )
  add(
    '--overwrite', action='store_true', help='replace the picture if it exists'
  )


def run(arguments: argparse.Namespace) -> int:
  """Runs the command; returns the exit status."""
  for name in ('videos', 'frames'):
    if getattr(arguments, name) < 1:
      raise ValueError(
        f'--{name} is {getattr(arguments, name)}; 1 is the least.'
      )
  out = epath.Path(arguments.out).expanduser()
  if out.suffix.lower() != '.png':
    raise ValueError(f'--out={out} is no name of a picture: it ends in .png.')
  if out.exists() and not arguments.overwrite:
    raise ValueError(f'--out={out} exists; give another name, or --overwrite.')
  config = read_config(arguments.config, arguments.overrides)
  if arguments.seed is not None:
    config.seed = arguments.seed
  if arguments.path is not None:
    config.data.path = arguments.path
    if arguments.layout or 'data.source' not in dict(arguments.overrides):
      config.data.source = arguments.layout or kind_of(arguments.path)
  elif arguments.layout:
    raise ValueError('--layout says what path is, and there is no path.')
  split = arguments.split or config.data.split
  picture = show(config, split, arguments.videos, arguments.frames)
  content = io.BytesIO()
  picture.save(content, 'png', optimize=True)
  check_text.write(out, content.getvalue())
  print(f'Wrote {out}.')
  return 0


def read_config(
  spec: str | None, overrides: Sequence[tuple[str, str]]
) -> ConfigDict:
  """The experiment that the clips are for.

  Args:
    spec: See `command.load`; None = the defaults of pretraining.
    overrides: Pairs of a field's dotted path and its new value as text.

  Returns:
    The config.

  Raises:
    ValueError: If there is no such file, field or value.
  """
  if spec is not None:
    return command.load(spec, overrides)
  config = config_lib.defaults('mae')
  for field, text in overrides:
    command.override(config, field, text)
  return config


def kind_of(path: str) -> str:
  """The `data.source` that reads what lies at a path."""
  place = epath.Path(path).expanduser()
  if (place / 'dataset_info.json').exists():
    return 'tfds'
  if place.is_file() or lists.has_split_lists(place):
    return 'csv'
  return 'folder'


def show(
  config: ConfigDict, split: str, num_videos: int, num_columns: int
) -> Image.Image:
  """Draws the first clips of a training run.

  Args:
    config: The experiment.
    split: Which videos.
    num_videos: How many of them, if there are as many.
    num_columns: Frames of each clip to show, if it has as many.

  Returns:
    The picture. Videos that cannot be read are logged, and others shown.

  Raises:
    ValueError: If there is nothing to read, or if `config.data` is wrong.
  """
  # Which process decodes makes no difference to what is decoded.
  data = {**config.data, 'num_workers': 0}
  source = datasets.source_from(data, split)
  if config.task == 'classify':
    source = datasets.labelled(source, config.data.labels_per_class)
  num_videos = min(num_videos, len(source))
  num_frames = config.model.num_frames
  watched = _Watched(source)
  with contextlib.closing(
    pipeline.train_iterator(
      watched,
      data,
      num_frames=num_frames,
      image_size=config.model.image_size,
      batch_size=num_videos,
      seed=config.seed,
    )
  ) as iterator:
    batch = next(iterator)
  video = batch['video']
  if 'to_rgb' in batch:
    import jax.numpy as jnp  # which takes a while to start

    from vivit_mae import preprocess

    planes, to_rgb = jnp.asarray(video), jnp.asarray(batch['to_rgb'])
    video = np.asarray(preprocess.rgb_of_planes(planes, to_rgb))
  columns = np.linspace(0, num_frames - 1, min(num_columns, num_frames))
  columns = np.round(columns).astype(np.int64)
  options = loading.ClipOptions.from_data(data)
  strips = []
  for row, index in enumerate(batch['index'].tolist()):
    example = source[index]
    info, frames = watched.frames(batch, row, num_frames, options, config.seed)
    caption = (
      *(example.id, _label_name(source, example.label)),
      f'{info.width}x{info.height}, {info.num_frames} '
      f'frame{"s"[: info.num_frames != 1]}, {info.fps:.4g} a second',
    )
    times = info.timestamps
    notes = [f'#{i}  {times[i]:.2f} s' for i in frames[columns]]
    strips.append(
      contact_sheet.Strip(
        _SEPARATOR.join(caption), video[row][columns], tuple(notes)
      )
    )
  heading = _heading(config, source, num_videos, len(columns), options)
  return contact_sheet.draw(heading, strips)


class _Watched:
  """A source that notes what it is asked for.

  Its labels count the calls: so each row of a batch tells which call it is of.
  """

  multi_label = False

  def __init__(self, source: Source):
    self.name = source.name
    self.class_names: ClassNames = ('call',)
    self._source = source
    self._calls: list[int] = []

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int, /) -> Example:
    self._calls.append(index)
    call = len(self._calls) - 1
    return dataclasses.replace(self._source[index], label=call)

  def frames(
    self,
    batch: Mapping[str, np.ndarray],
    row: int,
    num_frames: int,
    options: loading.ClipOptions,
    seed: int,
  ) -> tuple[decode.VideoInfo, Int[np.ndarray, 't']]:
    """Which frames of its video a row shows, and what the video holds.

    Args:
      batch: The first batch of the stream.
      row: A row of it.
      num_frames: Frames of a clip.
      options: How they were chosen.
      seed: The run's seed.

    Returns:
      The video's properties and the indices of its frames.
    """
    position, clip = divmod(row, options.repeats)
    index = int(batch['index'][row])
    before = row - clip - 1  # the last row of the video before
    asked = self._calls[batch['label'][before] + 1 if position else 0]
    attempt, rng = 0, loading.row_rng(seed, position)
    while asked != index:  # it was broken; another one was drawn
      attempt += 1
      rng = loading.row_rng(seed, position, attempt)
      asked = int(rng.integers(len(self)))
    example = self._source[index]
    info = decode.probe(example.video, example.id, segment=example.segment)
    windows = options.repeats if options.repeat == 'windows' else 1
    chosen = loading.sample_frames(
      info, num_frames, options, count=windows, rng=rng
    )
    return info, chosen[clip % windows]


def _label_name(source: Source, label: labels.Label) -> str:
  names = source.class_names
  if not names or not labels.is_partly_known(label):
    return 'no label'
  if isinstance(names, Mapping):
    assert isinstance(label, tuple)
    found = zip(names, names.values(), label, strict=True)
    return ', '.join(
      f'{head} {known[number] if number >= 0 else "-"}'
      for head, known, number in found
    )
  if isinstance(label, tuple):
    return ', '.join(names[number] for number in label) or 'no class applies'
  return names[label]


def _heading(
  config: ConfigDict,
  source: Source,
  num_videos: int,
  num_columns: int,
  options: loading.ClipOptions,
) -> list[str]:
  """Says what is shown."""
  height, width = config.model.image_size
  step = f'stride {options.stride}'
  if options.stride_seconds is not None:
    step = f'every {options.stride_seconds:g} s'
  parts = [
    f'{num_columns} of {config.model.num_frames} frames',
    f'{options.sampling} sampling, {step}',
    f'{options.crop} crop to {width}x{height}',
    'flip' if options.flip else 'no flip',
    options.rand_augment or 'no RandAugment',
  ]
  if options.repeats > 1:
    parts.append(f'{options.repeats} clips of a video ({options.repeat})')
  return [
    f'{source.name}: {num_videos} of {len(source)} videos, seed {config.seed}',
    _SEPARATOR.join(parts),
  ]
