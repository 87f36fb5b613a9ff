"""Foreign weights as a model and parameters of ours.

Which family a file is of, its names tell; what sizes its model has, its shapes.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from vivit_mae import masking
from vivit_mae.convert import (
  av_mae,
  big_vision,
  files,
  hf_videomae,
  hf_vit,
  hf_vivit,
  image_vit,
  mae_st,
  ours,
  rules,
  scenic,
  videomae,
)
from vivit_mae.convert import coverage as coverage_lib
from vivit_mae.convert.family import Description, Family
from vivit_mae.models import tubelets, variants, video_mae, vivit

FAMILIES: tuple[Family, ...] = (
  ours.FAMILY,
  *videomae.FAMILIES,
  *mae_st.FAMILIES,
  *hf_videomae.FAMILIES,
  # Before those of clips, which have the same names.
  *hf_vit.FAMILIES,
  *hf_vivit.FAMILIES,
  *image_vit.FAMILIES,
  *scenic.FAMILIES,
  *av_mae.FAMILIES,
  *big_vision.FAMILIES,
)

ClassNames = tuple[str, ...] | Mapping[str, tuple[str, ...]]

# The parameters of a decoder, all or none of which a file of pretraining has.
_DECODER = re.compile(r'(bridge|decoder)/.*|mask_token')
# Fields of a description whose change resizes tables of positions.
_RESIZING = ('num_frames', 'image_size')
_SHOWN = 4


@dataclasses.dataclass(frozen=True)
class Converted:
  """Foreign weights as ours.

  Attributes:
    family: What they are, for people.
    description: What model that is; `description.model` holds the fields of a
      config's section `model`, those that were given included.
    model: The Flax module.
    params: Its parameters, nested, float32 arrays of numpy.
    coverage: What became of each array.
    has_decoder: Whether a decoder came along, in pretraining.
    class_names: The names of the classes that the file tells, for several
      heads those of each; None without.
  """

  family: str
  description: Description
  model: video_mae.VideoMAE | vivit.ViViT
  params: dict[str, Any]
  coverage: coverage_lib.Coverage
  has_decoder: bool
  class_names: ClassNames | None


def recognise(checkpoint: files.Checkpoint) -> Family:
  """The family of a checkpoint.

  Raises:
    ValueError: It is none that is known.
  """
  for family in FAMILIES:
    if family.recognises(checkpoint.arrays):
      return family
  names = sorted(checkpoint.arrays)
  more = f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''
  raise ValueError(
    f'{checkpoint.path} holds no model that is known here, but '
    f'{", ".join(names[:_SHOWN])}{more}. Known are '
    f'{"; ".join(family.name for family in FAMILIES)}.'
  )


def describe(checkpoint: files.Checkpoint) -> Description:
  """What the names and shapes of a checkpoint say of its model.

  Raises:
    ValueError: It is of no known family, or its sizes cannot be told.
  """
  family = recognise(checkpoint)
  try:
    return family.describe(_shapes(checkpoint.arrays), checkpoint.config)
  except KeyError as error:
    raise ValueError(
      f'{checkpoint.path} was read as {family.name} and lacks {error}, without '
      'which its sizes cannot be told.'
    ) from error


def renamed(
  checkpoint: files.Checkpoint,
) -> tuple[dict[str, Any], list[str]]:
  """The arrays by our names and in our layouts, whatever model they make.

  Args:
    checkpoint: See `convert`.

  Returns:
    Our arrays by name, and the foreign names that no rule knows.

  Raises:
    ValueError: The checkpoint is of no known family, or an array has an
      impossible shape.
  """
  family = recognise(checkpoint)
  arrays: dict[str, Any] = {}
  known: set[str] = set()
  for match in rules.matches(family.table, checkpoint.arrays):
    known.update(match.theirs)
    arrays[match.ours] = match.apply(checkpoint.arrays)
  left = [
    name
    for name in checkpoint.arrays
    if name not in known and not family.ignores(name)
  ]
  return arrays, left


def convert(
  checkpoint: files.Checkpoint, *, partial: bool = False, **fields: Any
) -> Converted:
  """Makes a model and its parameters of a foreign checkpoint.

  Args:
    checkpoint: What `files.read` has read. Arrays that are only shapes
      (`jax.ShapeDtypeStruct`) stay shapes.
    partial: Takes what fits, where arrays are unknown, missing or of another
      shape, and leaves these out of the parameters.
    **fields: Fields of the model (of `VideoMAE` or `ViViT`) that the file does
      not tell, such as `heads` at an unpublished width, or that should differ:
      another number of frames or image size resizes the positions. None
      leaves a field as it is.

  Returns:
    The model and its parameters.

  Raises:
    ValueError: The checkpoint is of no known family, a field is needed, or
      arrays are left, missing or of another shape and `partial` is False.
  """
  family = recognise(checkpoint)
  given = {name: value for name, value in fields.items() if value is not None}
  description = _completed(describe(checkpoint), given, checkpoint)
  model = build(description)
  leaves = traverse_util.flatten_dict(shapes_of(model), sep='/')
  expected = _shapes(leaves)
  arrays, rows = _matched(family, checkpoint, model, expected)
  # A file has all of a decoder or none of it: a part of one is a fault.
  has_decoder = any(_DECODER.fullmatch(name) for name in arrays)
  rows += [
    coverage_lib.Row((), name, coverage_lib.MISSING, shape)
    for name, shape in expected.items()
    if name not in arrays
    and not any(row.ours == name for row in rows)
    and (has_decoder or not _DECODER.fullmatch(name))
  ]
  coverage = coverage_lib.Coverage(tuple(rows))
  if coverage.faults and not partial:
    raise ValueError(
      f'{checkpoint.path} was read as {family.name}, and does not fit: '
      f'{coverage.summary}.\n{coverage.table(coverage.faults)}\n'
      'To take what fits, ask for a partial load (partial=True, --partial).'
    )
  return Converted(
    family=family.name,
    description=description,
    model=model,
    params=traverse_util.unflatten_dict(arrays, sep='/'),
    coverage=coverage,
    has_decoder=has_decoder
    and all(n in arrays for n in expected if _DECODER.fullmatch(n)),
    class_names=_class_names(checkpoint.config),
  )


def build(description: Description) -> video_mae.VideoMAE | vivit.ViViT:
  """Builds the model of a description.

  Raises:
    ValueError: see `variants.build` and `variants.build_classifier`.
  """
  if description.task == 'mae':
    return variants.build(
      **description.model, target_dim=description.target_dim
    )
  return variants.build_classifier(**description.model)


def shapes_of(model: video_mae.VideoMAE | vivit.ViViT) -> Any:
  """The shapes of a model's parameters, nested, without making any."""
  video = jax.ShapeDtypeStruct(
    (1, model.num_frames, *model.image_size, model.channels), jnp.float32
  )

  def init(video: Any) -> Any:
    key = jax.random.key(0)
    if isinstance(model, vivit.ViViT):
      return model.init(key, video, deterministic=True)
    # Enough of a mask for every parameter to be met.
    frames, *places = model.grid
    first = jnp.arange(frames, dtype=jnp.int32)[None] * int(np.prod(places))
    mask = masking.TokenMask(visible=first, masked=first)
    return model.init(key, video, mask, deterministic=True)

  return jax.eval_shape(init, video)['params']


def _shapes(arrays: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
  return {name: tuple(array.shape) for name, array in arrays.items()}


def _completed(
  description: Description,
  given: Mapping[str, Any],
  checkpoint: files.Checkpoint,
) -> Description:
  """The description with the given fields, and the grid that it came with."""
  wanting = [name for name in description.unknown if name not in given]
  if wanting:
    why = '; '.join(f'{name} ({description.unknown[name]})' for name in wanting)
    raise ValueError(
      f'{checkpoint.path} does not tell the field {why}: give the value that '
      'the model was trained with.'
    )
  model = dict(description.model)
  told = {**model, **{name: given[name] for name in description.unknown}}
  model |= given
  if 'position_grid' not in given and any(
    model[name] != told[name] for name in _RESIZING if name in model
  ):
    _, tubelet = variants.parse(model['variant'])
    height, width = told['image_size']
    model['position_grid'] = tubelets.grid(
      told['num_frames'], (height, width), tubelet
    )
  return dataclasses.replace(description, model=model)


def _matched(
  family: Family,
  checkpoint: files.Checkpoint,
  model: video_mae.VideoMAE | vivit.ViViT,
  expected: Mapping[str, tuple[int, ...]],
) -> tuple[dict[str, Any], list[coverage_lib.Row]]:
  """Our arrays by name, and a row for each of theirs."""
  arrays: dict[str, Any] = {}
  rows: list[coverage_lib.Row] = []
  known: set[str] = set()
  for match in rules.matches(family.table, checkpoint.arrays):
    known.update(match.theirs)
    value = match.apply(checkpoint.arrays)
    shape, wanted = tuple(value.shape), expected.get(match.ours)
    row = coverage_lib.Row(match.theirs, match.ours, coverage_lib.LOADED, shape)
    if wanted is None:
      row = dataclasses.replace(
        row, fate=coverage_lib.LEFT, reason='no such parameter in this model'
      )
    elif isinstance(value, np.ndarray):
      fitted = model.adapt(match.ours, value, wanted)
      if fitted is not None and not np.array_equal(fitted, value):
        row = dataclasses.replace(
          row, fate=coverage_lib.RESIZED, reason=f'to {wanted}'
        )
        value = fitted
    if wanted is not None and tuple(value.shape) != wanted:
      row = dataclasses.replace(
        row, fate=coverage_lib.MISFIT, reason=f'should be {wanted}'
      )
    if row.fate in (coverage_lib.LOADED, coverage_lib.RESIZED):
      arrays[match.ours] = value
    rows.append(row)
  for name, array in checkpoint.arrays.items():
    if name not in known:
      ignored = family.ignores(name)
      fate = coverage_lib.IGNORED if ignored else coverage_lib.LEFT
      shape, reason = tuple(array.shape), family.reason(name)
      rows.append(coverage_lib.Row((name,), '', fate, shape, reason))
  return arrays, rows


def _class_names(config: Mapping[str, Any] | None) -> ClassNames | None:
  """The labels in a config, unless they are placeholders."""
  told = ours.about(config).get('class_names')
  if isinstance(told, Mapping):
    return {head: tuple(names) for head, names in told.items()}
  if told:
    return tuple(told)
  labels = (config or {}).get('id2label')
  if not isinstance(labels, Mapping) or not labels:
    return None
  by_number = {int(number): str(name) for number, name in labels.items()}
  if set(by_number) != set(range(len(by_number))):
    return None
  names = tuple(by_number[number] for number in range(len(by_number)))
  if all(re.fullmatch(r'LABEL_\d+', name) for name in names):
    return None
  return names
