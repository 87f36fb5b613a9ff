"""Names and shapes of the published models' state dicts.

Reference: videomae.md 3 and videomae_keys.txt; for images, models_mae.py of
facebookresearch/mae and timm's VisionTransformer. Layouts are the originals',
too: linear weights [out, in], convolutions [out, in, t, h, w]. Nothing is
shared with the library.
"""

import dataclasses
import math

Shapes = dict[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Sizes:
  """One model's sizes; by default tiny, and hardly two alike.

  Attributes:
    width: of the encoder's tokens.
    depth: blocks of the encoder.
    heads: of the encoder.
    hidden: width within the encoder's MLPs.
    decoder_width: of the decoder's tokens.
    decoder_depth: blocks of the decoder.
    decoder_heads: of the decoder.
    decoder_hidden: width within the decoder's MLPs.
    patch: pixels along a side of a token.
    tubelet: frames of a token.
    frames: of a clip.
    image: (height, width) of a frame.
    classes: of the classifier.
  """

  width: int = 40
  depth: int = 3
  heads: int = 4
  hidden: int = 160
  decoder_width: int = 20
  decoder_depth: int = 2
  decoder_heads: int = 2
  decoder_hidden: int = 80
  patch: int = 4
  tubelet: int = 2
  frames: int = 8
  image: tuple[int, int] = (16, 8)
  classes: int = 7

  @property
  def grid(self) -> tuple[int, int, int]:
    """Tokens along (t, h, w)."""
    height, width = (size // self.patch for size in self.image)
    return self.frames // self.tubelet, height, width

  @property
  def tokens(self) -> int:
    """Tokens of a clip."""
    return math.prod(self.grid)


def videomae_pretrain_shapes(
  sizes: Sizes, layer_scale: bool = False, cosine: bool = False
) -> Shapes:
  """VideoMAE V1 and V2: `PretrainVisionTransformer`.

  Args:
    sizes: of the model.
    layer_scale: `gamma_1` and `gamma_2` in every block.
    cosine: V2's cosine attention, `attn.scale` in every block.
  """
  encoder, decoder = _encoder(sizes), _decoder(sizes)
  pixels = sizes.tubelet * sizes.patch**2 * 3
  kind = {'attention': 'qv', 'layer_scale': layer_scale, 'cosine': cosine}
  return {
    'mask_token': (1, 1, sizes.decoder_width),
    **_patch_embed('encoder.', sizes),
    **_blocks('encoder.blocks.', *encoder, **kind),
    **_norm('encoder.norm', sizes.width),
    **_blocks('decoder.blocks.', *decoder, **kind),
    **_norm('decoder.norm', sizes.decoder_width),
    **_linear('decoder.head', sizes.decoder_width, pixels),
    'encoder_to_decoder.weight': (sizes.decoder_width, sizes.width),
  }


def videomae_finetune_shapes(
  sizes: Sizes,
  layer_scale: bool = False,
  cosine: bool = False,
  ava: bool = False,
) -> Shapes:
  """VideoMAE V1 and V2: `VisionTransformer`.

  Args:
    sizes: of the model.
    layer_scale: `gamma_1` and `gamma_2` in every block.
    cosine: V2's cosine attention, `attn.scale` in every block.
    ava: `norm` in place of `fc_norm`, as AVA's detectors have.
  """
  kind = {'attention': 'qv', 'layer_scale': layer_scale, 'cosine': cosine}
  return {
    **_patch_embed('', sizes),
    **_blocks('blocks.', *_encoder(sizes), **kind),
    **_norm('norm' if ava else 'fc_norm', sizes.width),
    **_linear('head', sizes.width, sizes.classes),
  }


def mae_st_pretrain_shapes(
  sizes: Sizes, separable: bool = True, predicted: int | None = None
) -> Shapes:
  """MAE-ST's own `MaskedAutoencoderViT`, with class tokens.

  Args:
    sizes: of the model.
    separable: positions of space, time and the class token; else one table
      each, whose first row is the class token's.
    predicted: frames to predict; None for one a tubelet.
  """
  frames = sizes.tubelet * (predicted or sizes.grid[0]) // sizes.frames
  return {
    'cls_token': (1, 1, sizes.width),
    'decoder_cls_token': (1, 1, sizes.decoder_width),
    **_positions('pos_embed', sizes, sizes.width, separable),
    'mask_token': (1, 1, sizes.decoder_width),
    **_positions('decoder_pos_embed', sizes, sizes.decoder_width, separable),
    **_patch_embed('', sizes),
    **_blocks('blocks.', *_encoder(sizes), attention='split'),
    **_norm('norm', sizes.width),
    **_linear('decoder_embed', sizes.width, sizes.decoder_width),
    **_blocks('decoder_blocks.', *_decoder(sizes), attention='split'),
    **_norm('decoder_norm', sizes.decoder_width),
    **_linear('decoder_pred', sizes.decoder_width, frames * sizes.patch**2 * 3),
  }


def mae_st_finetune_shapes(sizes: Sizes, separable: bool = True) -> Shapes:
  """MAE-ST's own `VisionTransformer`, with a class token."""
  return {
    'cls_token': (1, 1, sizes.width),
    **_positions('pos_embed', sizes, sizes.width, separable),
    **_patch_embed('', sizes),
    **_blocks('blocks.', *_encoder(sizes), attention='split'),
    **_norm('norm', sizes.width),
    **_linear('head', sizes.width, sizes.classes),
  }


def pyslowfast_pretrain_shapes(sizes: Sizes) -> Shapes:
  """PySlowFast's MAE, of the released MAE-ST weights.

  The decoder's positions are one table, and it has no class token of its own.
  """
  head = 'pred_head.transforms.0.'
  return {
    'cls_token': (1, 1, sizes.width),
    **_positions('pos_embed', sizes, sizes.width, True),
    'decoder_pos_embed': (1, 1 + sizes.tokens, sizes.decoder_width),
    'mask_token': (1, 1, sizes.decoder_width),
    **_patch_embed('', sizes),
    **_blocks('blocks.', *_encoder(sizes), attention='split'),
    **_blocks(head, *_decoder(sizes), attention='split'),
    **_norm(f'{head}{sizes.decoder_depth}', sizes.decoder_width),
    **_linear(
      'pred_head.projections.0', sizes.decoder_width, sizes.patch**2 * 3
    ),
    **_norm('norm', sizes.width),
    **_linear('decoder_embed', sizes.width, sizes.decoder_width),
  }


def pyslowfast_finetune_shapes(sizes: Sizes) -> Shapes:
  """PySlowFast's classifier of the released MAE-ST weights."""
  shapes = mae_st_finetune_shapes(sizes)
  names = {'head.weight', 'head.bias'}
  return {
    **{name: shape for name, shape in shapes.items() if name not in names},
    **_linear('head.projection', sizes.width, sizes.classes),
  }


def image_mae_pretrain_shapes(sizes: Sizes) -> Shapes:
  """The image MAE's `MaskedAutoencoderViT` (facebookresearch/mae)."""
  image = dataclasses.replace(sizes, frames=1, tubelet=1)
  rows = 1 + image.tokens
  return {
    'cls_token': (1, 1, sizes.width),
    'pos_embed': (1, rows, sizes.width),
    'mask_token': (1, 1, sizes.decoder_width),
    'decoder_pos_embed': (1, rows, sizes.decoder_width),
    **_patch_embed('', sizes, image=True),
    **_blocks('blocks.', *_encoder(sizes), attention='fused'),
    **_norm('norm', sizes.width),
    **_linear('decoder_embed', sizes.width, sizes.decoder_width),
    **_blocks('decoder_blocks.', *_decoder(sizes), attention='fused'),
    **_norm('decoder_norm', sizes.decoder_width),
    **_linear('decoder_pred', sizes.decoder_width, sizes.patch**2 * 3),
  }


def timm_vit_shapes(sizes: Sizes) -> Shapes:
  """timm's plain ViT with a class token."""
  image = dataclasses.replace(sizes, frames=1, tubelet=1)
  return {
    'cls_token': (1, 1, sizes.width),
    'pos_embed': (1, 1 + image.tokens, sizes.width),
    **_patch_embed('', sizes, image=True),
    **_blocks('blocks.', *_encoder(sizes), attention='fused'),
    **_norm('norm', sizes.width),
    **_linear('head', sizes.width, sizes.classes),
  }


def published_sizes() -> dict[str, Sizes]:
  """Sizes of the published models, named '<family>_<stage>_<size>'.

  MAE-ST's own huge model has patches of 14 for pretraining and, in spite of its
  name, of 16 for fine-tuning; PySlowFast's, which was trained, of 16 for both.
  """
  found = {}
  for family, decoders in _DECODERS.items():
    for size, decoder in decoders.items():
      sizes = _published(size, decoder)
      found[f'{family}_pretrain_{size}'] = sizes
      if family != 'videomae_v2':
        found[f'{family}_finetune_{size}'] = sizes
  for name in ('mae_st_pretrain_huge', 'videomae_v2_pretrain_giant'):
    found[name] = dataclasses.replace(found[name], patch=14)
  found['videomae_v2_finetune_giant'] = dataclasses.replace(
    found['videomae_v2_pretrain_giant'], classes=710
  )
  return found


def published() -> dict[str, Shapes]:
  """Names and shapes of the published models of `published_sizes`."""
  return {
    name: _SHAPES[name.rpartition('_')[0]](sizes)
    for name, sizes in PUBLISHED_SIZES.items()
  }


def _published(size, decoder):
  width, depth, heads = _ENCODERS[size]
  ratio = 48 / 11 if size == 'giant' else 4.0
  decoder_width, decoder_depth, decoder_heads = decoder
  return Sizes(
    width=width,
    depth=depth,
    heads=heads,
    hidden=int(width * ratio),
    decoder_width=decoder_width,
    decoder_depth=decoder_depth,
    decoder_heads=decoder_heads,
    decoder_hidden=int(decoder_width * ratio),
    patch=16,
    frames=16,
    image=(224, 224),
    classes=400,
  )


def _encoder(sizes):
  return sizes.depth, sizes.width, sizes.hidden, sizes.heads


def _decoder(sizes):
  return (
    sizes.decoder_depth,
    sizes.decoder_width,
    sizes.decoder_hidden,
    sizes.decoder_heads,
  )


def _linear(name, inputs, outputs):
  return {f'{name}.weight': (outputs, inputs), f'{name}.bias': (outputs,)}


def _norm(name, width):
  return {f'{name}.weight': (width,), f'{name}.bias': (width,)}


def _patch_embed(prefix, sizes, image=False):
  kernel = () if image else (sizes.tubelet,)
  name = f'{prefix}patch_embed.proj'
  return {
    f'{name}.weight': (sizes.width, 3, *kernel, sizes.patch, sizes.patch),
    f'{name}.bias': (sizes.width,),
  }


def _positions(name, sizes, width, separable):
  if not separable:
    return {name: (1, 1 + sizes.tokens, width)}
  frames, *places = sizes.grid
  return {
    f'{name}_spatial': (1, math.prod(places), width),
    f'{name}_temporal': (1, frames, width),
    f'{name}_class': (1, 1, width),
  }


def _blocks(
  prefix,
  depth,
  width,
  hidden,
  heads,
  *,
  attention,
  layer_scale=False,
  cosine=False,
):
  shapes = {}
  for i in range(depth):
    block = f'{prefix}{i}.'
    if layer_scale:
      shapes |= {f'{block}gamma_1': (width,), f'{block}gamma_2': (width,)}
    shapes |= _norm(f'{block}norm1', width)
    if cosine:
      shapes[f'{block}attn.scale'] = (heads, 1, 1)
    if attention == 'qv':
      shapes |= {f'{block}attn.{x}_bias': (width,) for x in 'qv'}
      shapes[f'{block}attn.qkv.weight'] = (3 * width, width)
    elif attention == 'fused':
      shapes |= _linear(f'{block}attn.qkv', width, 3 * width)
    else:
      for part in 'qkv':
        shapes |= _linear(f'{block}attn.{part}', width, width)
    shapes |= _linear(f'{block}attn.proj', width, width)
    shapes |= _norm(f'{block}norm2', width)
    shapes |= _linear(f'{block}mlp.fc1', width, hidden)
    shapes |= _linear(f'{block}mlp.fc2', hidden, width)
  return shapes


# (width, blocks, heads) of the encoders, and of the decoders of each family.
_ENCODERS = {
  'small': (384, 12, 6),
  'base': (768, 12, 12),
  'large': (1024, 24, 16),
  'huge': (1280, 32, 16),
  'giant': (1408, 40, 16),
}
_DECODERS = {
  'videomae': {
    'small': (192, 4, 3),
    'base': (384, 4, 6),
    'large': (512, 12, 8),
    'huge': (640, 12, 8),
  },
  'videomae_v2': {
    'small': (192, 4, 3),
    'base': (384, 4, 6),
    'large': (512, 4, 8),
    'huge': (512, 4, 8),
    'giant': (512, 4, 8),
  },
  'mae_st': dict.fromkeys(('base', 'large', 'huge'), (512, 4, 16)),
  'pyslowfast': dict.fromkeys(('base', 'large', 'huge'), (512, 4, 8)),
}
_SHAPES = {
  'videomae_pretrain': videomae_pretrain_shapes,
  'videomae_finetune': videomae_finetune_shapes,
  'videomae_v2_pretrain': videomae_pretrain_shapes,
  'videomae_v2_finetune': videomae_finetune_shapes,
  'mae_st_pretrain': mae_st_pretrain_shapes,
  'mae_st_finetune': mae_st_finetune_shapes,
  'pyslowfast_pretrain': pyslowfast_pretrain_shapes,
  'pyslowfast_finetune': pyslowfast_finetune_shapes,
}

PUBLISHED_SIZES = published_sizes()
PUBLISHED = published()
