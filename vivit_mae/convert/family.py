"""What the families of public weights have in common."""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from vivit_mae.convert import rules
from vivit_mae.masking import Grid
from vivit_mae.models import variants

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
# The config.json of Hugging Face, or None.
HubConfig = Mapping[str, Any] | None

IMAGENET = {'mean': (0.485, 0.456, 0.406), 'std': (0.229, 0.224, 0.225)}
MAE_ST = {'mean': (0.45, 0.45, 0.45), 'std': (0.225, 0.225, 0.225)}
HALF = {'mean': (0.5, 0.5, 0.5), 'std': (0.5, 0.5, 0.5)}


@dataclasses.dataclass(frozen=True)
class Description:
  """What a file says of its model.

  Attributes:
    task: 'mae' or 'classify'.
    model: Fields of a config's section `model`.
    preprocess: Likewise `preprocess`.
    mask: Likewise `mask`, of pretraining.
    target: Likewise `target`, of pretraining.
    target_dim: What the decoder predicts for each token.
    unknown: Fields of the model that the file does not tell, each with the
      reason; they have to be given.
    notes: What else a person should know, a sentence each.
  """

  task: str
  model: Mapping[str, Any]
  preprocess: Mapping[str, Any]
  mask: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  target: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  target_dim: int | None = None
  unknown: Mapping[str, str] = dataclasses.field(default_factory=dict)
  notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Family:
  """One kind of foreign weights.

  Attributes:
    name: For people.
    table: Our names and theirs.
    marks: Names that every file of it has.
    describe: Says what the model is, from the shapes and the hub's config.
    absent: Names that none has.
    when: What else the arrays have to be, where names are not enough; they may
      be only shapes. None for nothing.
    unused: Regular expressions of arrays that are left out, with the reason.
  """

  name: str
  table: rules.Table
  marks: tuple[str, ...]
  describe: Callable[[Shapes, HubConfig], Description]
  absent: tuple[str, ...] = ()
  when: Callable[[Mapping[str, Any]], bool] | None = None
  unused: Mapping[str, str] = dataclasses.field(default_factory=dict)

  def recognises(self, arrays: Mapping[str, Any]) -> bool:
    """Whether a file with these arrays is one of the family."""
    return (
      all(name in arrays for name in self.marks)
      and not any(name in arrays for name in self.absent)
      and (self.when is None or self.when(arrays))
    )

  def ignores(self, name: str) -> bool:
    """Whether an array of this name is left out."""
    return any(re.fullmatch(pattern, name) for pattern in self.unused)

  def reason(self, name: str) -> str:
    """Why an array of this name is left out; '' where nothing is to say."""
    return next(
      (
        why
        for pattern, why in self.unused.items()
        if re.fullmatch(pattern, name)
      ),
      '',
    )


def count(shapes: Shapes, pattern: str) -> int:
  """How many numbers there are for `{i}` in a pattern of a name."""
  return len(rules.matches((rules.rule('', pattern),), shapes))


def encoder_fields(
  width: int, depth: int, mlp_dim: int, tubelet: Grid, frames: int = 16
) -> tuple[dict[str, Any], dict[str, str]]:
  """The fields of an encoder of some size, by its published name if it has one.

  Args:
    width: Embedding dimension.
    depth: Blocks.
    mlp_dim: Hidden width of the MLPs.
    tubelet: Frames, height and width of a tubelet.
    frames: Frames of a clip.

  Returns:
    Fields of the model, and those that the sizes do not tell, with the reason:
    `heads`, where no published size is so wide.
  """
  named = next(
    (
      name
      for name, size in variants.SIZES.items()
      if (size.width, size.mlp_dim) == (width, mlp_dim)
    ),
    'B',
  )
  fields: dict[str, Any] = {
    'variant': f'{named}/{tubelet[1]}x{tubelet[0]}',
    'num_frames': frames,
    'image_size': (224 // tubelet[1] * tubelet[1],) * 2,
  }
  size = variants.SIZES[named]
  if (size.width, size.mlp_dim) != (width, mlp_dim):
    fields |= {'width': width, 'mlp_dim': mlp_dim}
    unknown = {'heads': f'no published encoder is {width} wide'}
  else:
    unknown = {}
  if size.depth != depth:
    fields['depth'] = depth
  return fields, unknown


def decoder_fields(
  recipe: str, encoder_width: int, width: int, depth: int, mlp_dim: int
) -> tuple[dict[str, Any], dict[str, str]]:
  """The fields of a decoder; see `encoder_fields`.

  Args:
    recipe: Whose decoder, one of `variants.PRETRAINING`.
    encoder_width: Embedding dimension of the encoder.
    width: Embedding dimension of the decoder.
    depth: Its blocks.
    mlp_dim: Hidden width of its MLPs.

  Returns:
    Fields of the model, and those that the sizes do not tell.
  """
  fields = {
    'decoder_width': width,
    'decoder_depth': depth,
    'decoder_mlp_dim': mlp_dim,
  }
  for name, size in variants.DECODERS[recipe].items():
    if variants.SIZES[name].width == encoder_width and size.width == width:
      return fields | {'decoder_heads': size.heads}, {}
  return fields, {'decoder_heads': f'no published decoder is {width} wide'}


def square(tokens: int, patch: int) -> tuple[dict[str, Any], dict[str, str]]:
  """The image size of a frame of so many tokens, if it is a square.

  Returns:
    Fields of the model, and those that the tokens do not tell.
  """
  side = math.isqrt(tokens)
  if side * side == tokens:
    return {'image_size': (side * patch, side * patch)}, {}
  return {}, {'image_size': f'{tokens} tokens of a frame are no square'}
