"""The blocks of Flax's vision transformers, which Scenic and big_vision share.

Kernels of the attention keep the heads as an axis of their own: queries, keys
and values [d, heads, d / heads], the output [heads, d / heads, d].
"""

from typing import Any

from vivit_mae.convert.family import Shapes, count, encoder_fields
from vivit_mae.convert.rules import COPY, Rule, Table, Transform, rule, under
from vivit_mae.masking import Grid

Fields = dict[str, Any]
Unknown = dict[str, str]


def _side_by_side(*kernels: Any) -> Any:
  concat = kernels[0].__array_namespace__().concat
  return concat([x.reshape(x.shape[0], -1) for x in kernels], axis=1)


_QKV = Transform(_side_by_side)
_FLAT = Transform(lambda x: x.reshape(-1))
_OUT = Transform(lambda x: x.reshape(-1, x.shape[-1]))
# The kernel of a frame is that of a tubelet of one.
TUBELET = Transform(lambda x: x if x.ndim == 5 else x[None])


def dense(ours: str, theirs: str, kernel: Transform = COPY) -> Table:
  """The rules of Flax's Dense or Conv with a bias."""
  return (
    rule(f'{ours}/kernel', f'{theirs}/kernel', kernel),
    rule(f'{ours}/bias', f'{theirs}/bias'),
  )


def norm(ours: str, theirs: str) -> Table:
  """The rules of Flax's LayerNorm."""
  return (
    rule(f'{ours}/scale', f'{theirs}/scale'),
    rule(f'{ours}/bias', f'{theirs}/bias'),
  )


def attention(ours: str, theirs: str) -> Table:
  """The rules of Flax's MultiHeadDotProductAttention with biases."""
  parts = ('query', 'key', 'value')
  return (
    Rule(
      f'{ours}/qkv/kernel',
      tuple(f'{theirs}/{part}/kernel' for part in parts),
      _QKV,
    ),
    *(
      rule(f'{ours}/{part[0]}_bias', f'{theirs}/{part}/bias', _FLAT)
      for part in parts
    ),
    *dense(f'{ours}/proj', f'{theirs}/out', _OUT),
  )


def mlp(theirs: str) -> Table:
  """The rules of an MlpBlock."""
  return (
    *dense('mlp/fc1', f'{theirs}/Dense_0'),
    *dense('mlp/fc2', f'{theirs}/Dense_1'),
  )


BLOCK: Table = (
  *norm('norm1', 'LayerNorm_0'),
  *attention('attention', 'MultiHeadDotProductAttention_0'),
  *norm('norm2', 'LayerNorm_1'),
  *mlp('MlpBlock_0'),
  # Before Linen all modules of a block were counted together.
  *attention('attention', 'MultiHeadDotProductAttention_1'),
  *norm('norm2', 'LayerNorm_2'),
  *mlp('MlpBlock_3'),
)


def stage(ours: str, theirs: str, block: Table = BLOCK) -> Table:
  """The rules of a stack of blocks and of the norm behind them."""
  return (
    *under(f'{ours}/block_{{i}}/', f'{theirs}/encoderblock_{{i}}/', block),
    *norm(f'{ours}/norm', f'{theirs}/encoder_norm'),
  )


def encoder_sizes(
  shapes: Shapes, theirs: str = 'Transformer', embedding: str = 'embedding'
) -> tuple[Fields, Grid]:
  """The fields of an encoder; Flax's kernels tell its heads.

  Args:
    shapes: Of a file.
    theirs: The name of its stack of blocks.
    embedding: The name of its embedding, of tubelets or of frames.

  Returns:
    Fields of the model, and frames, height and width of what the embedding
    sees.
  """
  *seen, _, width = shapes[f'{embedding}/kernel']
  frames, height, patch = (1, *seen) if len(seen) == 2 else seen
  depth, heads, mlp_dim = stack_sizes(shapes, theirs)
  fields, _ = encoder_fields(width, depth, mlp_dim, (frames, height, patch))
  return fields | {'heads': heads}, (frames, height, patch)


def stack_sizes(shapes: Shapes, theirs: str) -> tuple[int, int, int]:
  """Depth, heads and hidden width of the MLPs of a stack of blocks."""
  block = f'{theirs}/encoderblock_'

  def first(end: str) -> tuple[int, ...]:
    return next(
      shape
      for name, shape in shapes.items()
      if name.startswith(f'{block}0/') and name.endswith(end)
    )

  depth = sum(
    count(shapes, f'{block}{{i}}/LayerNorm_{kind}/scale')
    for kind in ('0', 'space')
  )
  return depth, first('/query/kernel')[1], first('/Dense_0/kernel')[1]


def head_fields(shapes: Shapes, logits: str) -> Fields:
  """The fields of a classifier, whose last layer has some name."""
  fields: Fields = {'num_classes': shapes[f'{logits}/kernel'][-1]}
  if 'pre_logits/kernel' in shapes:
    fields['representation_size'] = shapes['pre_logits/kernel'][-1]
  return fields
