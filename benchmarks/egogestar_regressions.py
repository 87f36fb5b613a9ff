"""What logistic regression makes of the gestures, for `egogestar.py`.

It sees whole frames, squeezed to squares: as pictures, as differences of
neighbouring frames, or as the tokens of a pretrained encoder that stays as it
is. Each kind of feature goes through a PCA of 40.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from sklearn import decomposition, linear_model, pipeline, preprocessing

from vivit_mae import command
from vivit_mae.data import decode
from vivit_mae.models import transformer
from vivit_mae.tasks import mae
from vivit_mae.training import checkpoints, sharding

Row = Mapping[str, str]  # of labels.csv
_SPLITS = ('train', 'test')
# What is left of features by time, height and width.
_KEPT: dict[str, Callable[[np.ndarray], np.ndarray]] = {
  'no time, no place': lambda x: x.mean(axis=(1, 2, 3)),
  'time': lambda x: x.mean(axis=(2, 3)),
  'time and place': lambda x: x,
}


def read(path: Path, count: int, size: tuple[int, int]) -> np.ndarray:
  """So many frames of a video at equal distances, or all if there are fewer."""

  def plan(info: decode.VideoInfo) -> list[decode.Clip]:
    parts = np.arange(min(count, info.num_frames))
    frames = ((parts + 0.5) * info.num_frames / len(parts)).astype(int)
    return [decode.Clip(frames, size)]

  return decode.read_clips(path, plan)[0]


def by_eye(rows: Sequence[Row], videos: Path) -> dict[str, float]:
  """Top-1 of what needs no network.

  Args:
    rows: those of labels.csv.
    videos: the folder that its paths are in.

  Returns:
    Numbers of chance, of the mean frame, and of motion energy.
  """
  large = _clips(rows, videos, 16, 64)
  numbers = {
    'chance': 1 / len({row['label'] for row in rows if row['split'] == 'test'}),
    'appearance': _top1(rows, large.mean(axis=1)),
  }
  for side, clips in ((64, large), (24, _clips(rows, videos, 16, 24))):
    energy = _motion_energy(clips)
    for kept, keep in _KEPT.items():
      name = f'motion energy {side}x{side}, {kept}'
      numbers[name] = _top1(rows, keep(energy))
  return numbers


def by_tokens(
  rows: Sequence[Row], videos: Path, config: Path, encoder: Path
) -> dict[str, float]:
  """Top-1 of the tokens after each block of a pretrained encoder.

  Args:
    rows: those of labels.csv.
    videos: the folder that its paths are in.
    config: the experiment that trained the encoder.
    encoder: its workdir.

  Returns:
    Numbers by block and by what is kept of time and place.
  """
  task = mae.from_config(command.load(f'{config}:pretrain'))
  model = task.model
  with jax.set_mesh(sharding.make_mesh()):
    variables, _ = checkpoints.load_variables(encoder, task.init)

  @jax.jit
  def blocks(video: jax.Array) -> dict[str, jax.Array]:
    _, inputs = task.inputs(video)
    _, captured = model.apply(
      variables,
      inputs,
      deterministic=True,
      method='features',
      capture_intermediates=lambda m, _: isinstance(m, transformer.Block),
    )
    found: Any = captured['intermediates']['encoder']
    return {name: found[name]['__call__'][0] for name in sorted(found)}

  tokens = jax.device_get(
    blocks(_clips(rows, videos, model.num_frames, model.image_size[0]))
  )
  numbers = {}
  for name, each in tokens.items():
    grid = each.reshape(len(each), *model.grid, -1)
    places = _coarse(grid, 3)
    for kept, keep in _KEPT.items():
      numbers[f'{name}, {kept}'] = _top1(rows, keep(places))
  return numbers


def _clips(
  rows: Sequence[Row], videos: Path, count: int, side: int
) -> np.ndarray:
  """The labelled clips, in the order of the rows."""
  clips = [
    read(videos / row['path'], count, (side, side))
    for row in rows
    if row['split'] in _SPLITS
  ]
  return np.stack(clips)


def _motion_energy(clips: np.ndarray) -> np.ndarray:
  """Differences of neighbouring frames, in 5 parts of time and 8x8 of space."""
  grey = clips.mean(axis=-1, dtype=np.float32)
  energy = np.abs(np.diff(grey, axis=1))
  parts = energy.reshape(len(clips), 5, 3, *energy.shape[2:]).mean(axis=2)
  return _coarse(parts[..., None], 8)


def _coarse(x: np.ndarray, side: int) -> np.ndarray:
  """Features by time, height and width, with `side` places in both."""
  clips, time, height, width, channels = x.shape
  size = (clips, time, side, height // side, side, width // side, channels)
  return x.reshape(size).mean(axis=(3, 5))


def _top1(rows: Sequence[Row], features: np.ndarray) -> float:
  """Learns from the training videos, and tests on the others."""
  known = [row for row in rows if row['split'] in _SPLITS]
  features = features.reshape(len(known), -1)
  train, test = (
    [i for i, row in enumerate(known) if row['split'] == split]
    for split in _SPLITS
  )
  labels = np.array([row['label'] for row in known])
  model = pipeline.make_pipeline(
    preprocessing.StandardScaler(),
    decomposition.PCA(min(40, features.shape[1]), svd_solver='full'),
    linear_model.LogisticRegression(max_iter=10_000),
  ).fit(features[train], labels[train])
  return float(model.score(features[test], labels[test]))
