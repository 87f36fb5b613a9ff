"""Starts a model of video from the file of an image model."""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from vivit_mae.convert import coverage as coverage_lib
from vivit_mae.convert import files, rules, weights
from vivit_mae.convert.family import Family
from vivit_mae.models import inflate, video_mae, vivit

_ENCODER = 'encoder/'
_TABLE = 'encoder/position_embedding'
# What model 3 has once for each axis.
_ATTENTION = re.compile(r'(block_\d+/)attention_(?:space|time)/')
_PER_AXIS = re.compile(r'(block_\d+/)(norm|scale)_(?:space|time)/')


def inflated(
  checkpoint: files.Checkpoint,
  fresh: Mapping[str, Any],
  model: video_mae.VideoMAE | vivit.ViViT,
  *,
  kernel: str = 'central_frame',
  positions: str = 'resize_tile',
  temporal: str = 'copy',
  image_grid: tuple[int, int] | None = None,
  partial: bool = False,
) -> tuple[dict[str, Any], coverage_lib.Coverage]:
  """Puts the encoder of an image model into a freshly initialised video model.

  The head, the decoder and the temporal encoder of model 2 stay fresh, and the
  pixels and the GELU of the image model should be those of the video model:
  see its description (`weights.describe`).

  Args:
    checkpoint: What `files.read` has read: a ViT of timm, Hugging Face,
      big_vision or Scenic, or MAE, with its decoder or without.
    fresh: The video model's parameters, nested.
    model: The video model: one of ViViT's models 1 to 4, or a masked
      autoencoder.
    kernel: See `models.inflate.inflate`.
    positions: Likewise.
    temporal: Likewise.
    image_grid: Likewise.
    partial: Takes the encoder though there are arrays that no rule knows.

  Returns:
    The parameters, those of the encoder float32, and what became of each
    array; 'missing' are those that stay fresh.

  Raises:
    ValueError: The checkpoint is of no known family or no model of images, it
      holds arrays that are not known and `partial` is False, or it does not
      fit the model.
  """
  family = _family(checkpoint)
  matches = {
    match.ours: match
    for match in rules.matches(family.table, checkpoint.arrays)
  }
  image = {
    name.removeprefix(_ENCODER): match.apply(checkpoint.arrays)
    for name, match in matches.items()
    if name.startswith(_ENCODER)
  }
  if len(image['embedding/kernel']) != 1:
    raise ValueError(
      f'{checkpoint.path} was read as {family.name}, which is no model of '
      'images: load it as it is.'
    )
  image['embedding/kernel'] = image['embedding/kernel'][0]
  ours: dict[str, Any] = traverse_util.flatten_dict(fresh, sep='/')
  made = inflate.inflate(
    image,
    ours,
    grid=model.grid,
    image_grid=image_grid,
    kernel=kernel,
    positions=positions,
    temporal=temporal,
  )
  rows = [
    _row(name, value, image[_source(name)], matches[_ENCODER + _source(name)])
    for name, value in made.items()
  ]
  rows += _untaken(family, checkpoint, matches, rows)
  coverage = coverage_lib.Coverage(tuple(rows))
  left = coverage.of(coverage_lib.LEFT)
  if left and not partial:
    raise ValueError(
      f'{checkpoint.path} was read as {family.name}, and there is more in it '
      f'than that:\n{coverage.table(left)}\n'
      'To take its encoder, ask for a partial load (partial=True, --partial).'
    )
  fresh_rows = (
    coverage_lib.Row((), name, coverage_lib.MISSING, tuple(x.shape), 'fresh')
    for name, x in ours.items()
    if name not in made
  )
  params = traverse_util.unflatten_dict({**ours, **made}, sep='/')
  return params, coverage_lib.Coverage((*rows, *fresh_rows))


def _family(checkpoint: files.Checkpoint) -> Family:
  """The family of a file; of MAE, that which reads its fixed positions."""
  for family in weights.FAMILIES:
    tables = {rule.ours for rule in family.table}
    if _TABLE in tables and family.recognises(checkpoint.arrays):
      return family
  return weights.recognise(checkpoint)


def _source(name: str) -> str:
  """The name in the image model of what a parameter is made of."""
  name = name.removeprefix(_ENCODER).removeprefix('spatial/')
  name = _ATTENTION.sub(r'\1attention/', name)
  return _PER_AXIS.sub(r'\1\g<2>1/', name)


def _row(
  name: str, value: Any, source: Any, match: rules.Match
) -> coverage_lib.Row:
  """What became of the arrays that a parameter is made of."""
  row = coverage_lib.Row(match.theirs, name, coverage_lib.LOADED, value.shape)
  if np.array_equal(value, source):
    return row
  last = name.rpartition('/')[2]
  reason = 'inflated'
  if last == 'cls_token':
    reason = 'with its position'
  elif '_time/' in name:
    reason = 'zeros'
  return dataclasses.replace(row, fate=coverage_lib.RESIZED, reason=reason)


def _untaken(
  family: Family,
  checkpoint: files.Checkpoint,
  matches: Mapping[str, rules.Match],
  rows: Iterable[coverage_lib.Row],
) -> list[coverage_lib.Row]:
  """A row for each array that no parameter is made of."""
  taken = {name for row in rows for name in row.theirs}
  known = {
    name: match.ours for match in matches.values() for name in match.theirs
  }
  untaken = []
  for name, array in checkpoint.arrays.items():
    if name in taken:
      continue
    fate, reason = coverage_lib.IGNORED, family.reason(name)
    if known.get(name, '').startswith(_ENCODER):
      reason = 'without a place in this model'
    elif name in known:
      reason = 'only the encoder is inflated'
    elif not family.ignores(name):
      fate = coverage_lib.LEFT
    shape = tuple(array.shape)
    untaken.append(coverage_lib.Row((name,), '', fate, shape, reason))
  return untaken
