"""Scenic's ViViT and AV-MAE in plain numpy, float64, under their own names.

Parameter trees with `/` between the names and Flax's layouts, and the formulas
of projects/vivit/model.py and projects/av_mae/vivit.py, after scenic.md 2.1 and
2.2. Nothing is shared with the library. Clips are `[b, t, h, w, 3]`.
"""

import math
import re
from collections.abc import Iterator, Mapping

import numpy as np
from jaxtyping import Float, Float64, Int

from tests.convert import original_tables
from tests.convert.original_shapes import Sizes

Shapes = dict[str, tuple[int, ...]]
State = Mapping[str, np.ndarray]

_POSITIONS = 'posembed_input/pos_embedding'


def vivit_shapes(
  sizes: Sizes,
  model: int = 1,
  *,
  token: bool = True,
  temporal_depth: int = 4,
  sampled: int | None = None,
  representation: int | None = None,
) -> Shapes:
  """The tree of projects/vivit.

  Args:
    sizes: Of the model; the decoder's have no part in it.
    model: 1 to 4, those of the paper.
    token: A class token, or none.
    temporal_depth: Blocks of model 2's second encoder, 0 for none.
    sampled: Frames that uniform sampling takes; None for tubelets.
    representation: Width of `pre_logits`.
  """
  frames, *places = sizes.grid
  frames = sampled or frames
  per_frame = math.prod(places)
  shapes = {**_embedding('embedding', sizes, image=sampled is not None)}
  if model != 2:
    rows = frames * per_frame + int(token)
    shapes[f'Transformer/{_POSITIONS}'] = (1, rows, sizes.width)
    if token:
      shapes['cls'] = (1, 1, sizes.width)
    shapes |= _stage('Transformer', sizes, factorised=model == 3)
  else:
    for name, rows, depth in (
      ('SpatialTransformer', per_frame, sizes.depth),
      ('TemporalTransformer', frames, temporal_depth),
    ):
      if not depth:
        continue
      shapes[f'{name}/{_POSITIONS}'] = (1, rows + int(token), sizes.width)
      if token:
        shapes[f'cls_{name}'] = (1, 1, sizes.width)
      shapes |= _stage(name, sizes, depth)
  width = representation or sizes.width
  if representation:
    shapes |= _dense('pre_logits', sizes.width, width)
  return shapes | _dense('output_projection', width, sizes.classes)


def mae_shapes(
  sizes: Sizes,
  *,
  token: bool = False,
  positions: str = 'sincos',
  decoder_positions: str = 'sincos',
  bias: bool = True,
) -> Shapes:
  """The tree of ViViTMaskedAutoencoder.

  Args:
    sizes: Of the model.
    token: A class token, or none.
    positions: 'sincos', 'learned' or 'space_time'.
    decoder_positions: Likewise, of the decoder.
    bias: Whether `decoder_projection` has one.
  """
  width = sizes.decoder_width
  pixels = sizes.tubelet * sizes.patch**2 * 3
  shapes = {
    **_embedding('embedding', sizes),
    **_tables('posembed_input', sizes, sizes.width, positions),
    **_stage('Transformer', sizes),
    **_dense('decoder_projection', sizes.width, width),
    'mask_token': (1, 1, width),
    **_tables('posembed_decoder', sizes, width, decoder_positions),
    **_stage('Decoder', sizes, decoder=True),
    **_dense('output_projection', width, pixels),
  }
  if token:
    shapes['cls'] = (1, 1, sizes.width)
  if not bias:
    del shapes['decoder_projection/bias']
  return shapes


def mae_classifier_shapes(
  sizes: Sizes, *, token: bool = False, inside: bool = False
) -> Shapes:
  """The tree of av_mae's classifiers, with fixed positions.

  Args:
    sizes: Of the model.
    token: A class token, or none.
    inside: The norm before pooling (token, MBT) instead of behind it.
  """
  shapes = {
    **_embedding('embedding', sizes),
    **_stage('Transformer', sizes, norm=inside),
    **_dense('output_projection', sizes.width, sizes.classes),
  }
  if not inside:
    shapes |= _norm('encoder_norm', sizes.width)
  if token:
    shapes['cls'] = (1, 1, sizes.width)
  return shapes


def with_sound_shapes(sizes: Sizes, fused: int = 1) -> Shapes:
  """A tree of ViViTMultiMaskedAutoencoder: two encoders, then one of both."""
  width, sound = sizes.decoder_width, 16 * 16
  pixels = sizes.tubelet * sizes.patch**2 * 3
  shapes = {
    **_embedding('embedding_rgb', sizes),
    'embedding_spectrogram/kernel': (16, 16, 1, sizes.width),
    'embedding_spectrogram/bias': (sizes.width,),
    **_stage('Transformer_concat', sizes, fused),
    **_stage('Decoder', sizes, decoder=True),
  }
  for name, values in (('rgb', pixels), ('spectrogram', sound)):
    shapes |= {
      **_stage(f'Transformer_{name}', sizes),
      **_dense(f'decoder_projection_{name}', sizes.width, width),
      f'mask_token_{name}': (1, 1, width),
      **_dense(f'output_projection_{name}', width, values),
    }
  return shapes


def mbt_shapes(sizes: Sizes) -> Shapes:
  """The tree of MBT, a classifier of video and sound."""
  sound = {
    re.sub(r'encoderblock_\d+', r'\g<0>_spec', name): shape
    for name, shape in _stage('Transformer', sizes, norm=False).items()
  }
  return {
    **mae_classifier_shapes(sizes, inside=True),
    **sound,
    'embedding_spectrogram/kernel': (16, 16, 1, sizes.width),
    'embedding_spectrogram/bias': (sizes.width,),
    'bottleneck': (1, 4, sizes.width),
  }


def random_state(shapes: Shapes, rng: np.random.Generator) -> State:
  """Random values, float32, at which nothing is near its initial value."""
  return {name: _random(name, shape, rng) for name, shape in shapes.items()}


def vivit(
  state: State,
  clips: Float[np.ndarray, 'b t h w 3'],
  model: int = 1,
  order: tuple[str, str] = ('time', 'space'),
  sampled: int | None = None,
) -> Float64[np.ndarray, 'b c']:
  """Logits of a tree of `vivit_shapes`.

  Args:
    state: Of the model.
    clips: In [-1, 1].
    model: 1 to 4.
    order: Of model 3's attentions.
    sampled: Frames that uniform sampling takes.
  """
  if sampled is not None:
    clips = clips[:, _uniform(clips.shape[1], sampled)]
  net = _Net(state)
  tokens = net.embed('embedding', clips)
  if model == 2:
    # As many clips of one frame as there are frames.
    flat = tokens.reshape(-1, 1, *tokens.shape[2:])
    x = net.pooled('SpatialTransformer', flat, 'cls_SpatialTransformer')
    x = x.reshape(*tokens.shape[:2], -1)
    if any(name.startswith('TemporalTransformer') for name in state):
      x = net.pooled(
        'TemporalTransformer', x[:, :, None], 'cls_TemporalTransformer'
      )
    else:
      x = x.mean(axis=1)
  else:
    axes = {1: ('joint',), 3: order, 4: ('halves',)}[model]
    x = net.pooled('Transformer', tokens, 'cls', axes)
  if 'pre_logits/kernel' in state:
    x = np.tanh(net.dense('pre_logits', x))
  return net.dense('output_projection', x)


def masked_autoencoder(
  state: State,
  clips: Float[np.ndarray, 'b t h w 3'],
  visible: Int[np.ndarray, 'b v'],
) -> Float64[np.ndarray, 'b n p']:
  """Predictions of a tree of `mae_shapes` for all tokens, in raster order."""
  net = _Net(state)
  tokens = net.embed('embedding', clips)
  grid = tokens.shape[1:3]
  count = math.prod(grid)
  tokens = net.positioned(
    'posembed_input', tokens.reshape(len(clips), count, -1), grid
  )
  seen = np.stack([x[i] for x, i in zip(tokens, visible, strict=True)])
  seen = net.encoded('Transformer', net.with_token('cls', seen))
  seen = net.dense('decoder_projection', seen)
  first = int('cls' in state)
  full = np.repeat(net['mask_token'], len(clips), axis=0)
  full = np.repeat(full, count, axis=1)
  for row, x, i in zip(full, seen, visible, strict=True):
    row[i] = x[first:]
  full = net.positioned('posembed_decoder', full, grid)
  full = np.concatenate([seen[:, :first], full], axis=1)
  full = net.encoded('Decoder', full)
  return net.dense('output_projection', full[:, first:])


def mae_encoder(
  state: State, clips: Float[np.ndarray, 'b t h w 3'], of: str = ''
) -> Float64[np.ndarray, 'b n d']:
  """All encoded tokens of av_mae's encoder whose names end so."""
  net = _Net(state)
  tokens = net.embed(f'embedding{of}', clips)
  grid = tokens.shape[1:3]
  tokens = tokens.reshape(len(clips), math.prod(grid), -1)
  tokens = net.positioned(f'posembed_input{of}', tokens, grid)
  return net.encoded(f'Transformer{of}', net.with_token('cls', tokens))


def mae_classifier(
  state: State, clips: Float[np.ndarray, 'b t h w 3']
) -> Float64[np.ndarray, 'b c']:
  """Logits of a tree of `mae_classifier_shapes`."""
  net = _Net(state)
  tokens = mae_encoder(state, clips)
  x = tokens[:, 0] if 'cls' in state else tokens.mean(axis=1)
  if 'encoder_norm/scale' in state:
    x = net.norm('encoder_norm', x)
  return net.dense('output_projection', x)


def before_linen(state: State) -> State:
  """The same under the names that Flax gave before Linen."""
  changes = {
    'MultiHeadDotProductAttention_0': 'MultiHeadDotProductAttention_1',
    'LayerNorm_1': 'LayerNorm_2',
    'MlpBlock_0': 'MlpBlock_3',
  }
  renamed = {}
  for name, value in state.items():
    for new, old in changes.items():
      name = name.replace(new, old)
    renamed[name] = value
  return renamed


class _Net:
  """Layers that read their weights from a state, in float64."""

  def __init__(self, state: State):
    self._state = state

  def __getitem__(self, name: str) -> np.ndarray:
    return self._state[name].astype(np.float64)

  def dense(self, name, x):
    x = x @ self[f'{name}/kernel']
    bias = f'{name}/bias'
    return x + self[bias] if bias in self._state else x

  def norm(self, name, x):
    x = x - x.mean(axis=-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6)
    return x * self[f'{name}/scale'] + self[f'{name}/bias']

  def embed(self, name, clips):
    """The convolution, tokens `[b, t, places, d]`."""
    kernel = self[f'{name}/kernel']
    if kernel.ndim == 4:
      kernel = kernel[None]
    a, p, q = kernel.shape[:3]
    b, t, h, w, c = clips.shape
    split = clips.reshape(b, t // a, a, h // p, p, w // q, q, c)
    tokens = np.einsum('btahpwqc,apqcd->bthwd', split, kernel)
    tokens = tokens + self[f'{name}/bias']
    return tokens.reshape(b, t // a, -1, tokens.shape[-1])

  def with_token(self, name, x):
    if name not in self._state:
      return x
    return np.concatenate([np.repeat(self[name], len(x), axis=0), x], axis=1)

  def positioned(self, name, x, grid):
    if f'{name}/pos_embedding' in self._state:
      return x + self[f'{name}/pos_embedding']
    if f'{name}/pos_embedding_space' in self._state:
      both = x.reshape(len(x), *grid, -1)
      both = both + self[f'{name}/pos_embedding_space']
      return (both + self[f'{name}/pos_embedding_time']).reshape(x.shape)
    return x + original_tables.sincos_1d(*x.shape[1:])

  def pooled(self, name, tokens, token, axes=('joint',)):
    """ViViT's stage: class token, positions, blocks, norm, pooling."""
    b, t, p, d = tokens.shape
    x = self.with_token(token, tokens.reshape(b, t * p, d))
    x = x + self[f'{name}/{_POSITIONS}']
    x = self.encoded(name, x, axes, (t, p))
    return x[:, 0] if token in self._state else x.mean(axis=1)

  def encoded(self, name, x, axes=('joint',), grid=None):
    for i in self._blocks(name):
      x = self._block(f'{name}/encoderblock_{i}', x, axes, grid)
    if f'{name}/encoder_norm/scale' in self._state:
      x = self.norm(f'{name}/encoder_norm', x)
    return x

  def _blocks(self, name) -> Iterator[int]:
    i = 0
    while any(n.startswith(f'{name}/encoderblock_{i}/') for n in self._state):
      yield i
      i += 1

  def _block(self, name, x, axes, grid):
    if len(axes) == 2:
      for axis in axes:
        y = self.norm(f'{name}/LayerNorm_{axis}', x)
        attention = f'{name}/MultiHeadDotProductAttention_{axis}'
        x = x + self._attention(attention, y, axis, grid)
      norm, mlp = f'{name}/LayerNorm_mlp', f'{name}/MlpBlock'
    else:
      y = self.norm(f'{name}/LayerNorm_0', x)
      attention = f'{name}/MultiHeadDotProductAttention_0'
      x = x + self._attention(attention, y, axes[0], grid)
      norm, mlp = f'{name}/LayerNorm_1', f'{name}/MlpBlock_0'
    y = self.dense(f'{mlp}/Dense_0', self.norm(norm, x))
    cube = y + 0.044715 * y**3
    y = y * (1 + np.tanh(math.sqrt(2 / math.pi) * cube)) / 2
    return x + self.dense(f'{mlp}/Dense_1', y)

  def _attention(self, name, x, axis, grid):
    shape = x.shape
    if axis != 'joint':
      x = x.reshape(shape[0], *grid, shape[-1])
    query, key, value = (
      np.einsum('...d,dhk->...hk', x, self[f'{name}/{part}/kernel'])
      + self[f'{name}/{part}/bias']
      for part in ('query', 'key', 'value')
    )
    if axis == 'halves':
      half = query.shape[-2] // 2
      of_time, of_space = slice(half), slice(half, None)
      parts = [
        _attend(query[..., i, :], key[..., i, :], value[..., i, :], along)
        for i, along in ((of_time, 1), (of_space, 2))
      ]
      y = np.concatenate(parts, axis=-2)
    else:
      y = _attend(query, key, value, 2 if axis == 'space' else 1)
    y = np.einsum('...hk,hkd->...d', y, self[f'{name}/out/kernel'])
    return (y + self[f'{name}/out/bias']).reshape(shape)


def _attend(query, key, value, axis):
  """Attention of each head along an axis of tokens `[b, ..., heads, k]`."""
  query, key, value = (np.moveaxis(y, axis, -3) for y in (query, key, value))
  scores = np.einsum('...qhk,...mhk->...hqm', query, key)
  scores = np.exp(scores / math.sqrt(query.shape[-1]))
  scores = scores / scores.sum(axis=-1, keepdims=True)
  y = np.einsum('...hqm,...mhk->...qhk', scores, value)
  return np.moveaxis(y, -3, axis)


def _uniform(available, wanted):
  step = available / (wanted + 1)
  places = np.round(np.arange(step, available, step)).astype(int)
  return np.minimum(places, available - 1)


def _random(name, shape, rng):
  noise = rng.standard_normal(shape)
  last = name.rpartition('/')[-1]
  if last == 'scale':
    value = 1 + 0.3 * noise
  elif last == 'kernel':
    # What a kernel sums over: all but the outputs, which may be two axes.
    outputs = shape[1:] if name.split('/')[-2] in _SPLIT else shape[-1:]
    value = noise / math.sqrt(math.prod(shape) / math.prod(outputs))
  elif last == 'bias':
    value = 0.3 * noise
  else:
    value = 0.5 * noise
  return value.astype(np.float32)


_SPLIT = ('query', 'key', 'value')


def _dense(name, inputs, outputs):
  return {f'{name}/kernel': (inputs, outputs), f'{name}/bias': (outputs,)}


def _norm(name, width):
  return {f'{name}/scale': (width,), f'{name}/bias': (width,)}


def _embedding(name, sizes, image=False):
  frames = () if image else (sizes.tubelet,)
  return {
    f'{name}/kernel': (*frames, sizes.patch, sizes.patch, 3, sizes.width),
    f'{name}/bias': (sizes.width,),
  }


def _tables(name, sizes, width, kind):
  frames, *places = sizes.grid
  if kind == 'learned':
    return {f'{name}/pos_embedding': (1, sizes.tokens, width)}
  if kind == 'space_time':
    return {
      f'{name}/pos_embedding_space': (1, 1, math.prod(places), width),
      f'{name}/pos_embedding_time': (1, frames, 1, width),
    }
  return {}


def _attention_shapes(name, width, heads):
  head = (heads, width // heads)
  shapes = {}
  for part in _SPLIT:
    shapes |= {
      f'{name}/{part}/kernel': (width, *head),
      f'{name}/{part}/bias': head,
    }
  return shapes | {
    f'{name}/out/kernel': (*head, width),
    f'{name}/out/bias': (width,),
  }


def _stage(name, sizes, depth=None, factorised=False, decoder=False, norm=True):
  width, heads, hidden = sizes.width, sizes.heads, sizes.hidden
  depth = depth or sizes.depth
  if decoder:
    width, heads = sizes.decoder_width, sizes.decoder_heads
    depth, hidden = sizes.decoder_depth, sizes.decoder_hidden
  shapes = {}
  for i in range(depth):
    block = f'{name}/encoderblock_{i}'
    last, mlp = ('LayerNorm_1', 'MlpBlock_0')
    if factorised:
      last, mlp = 'LayerNorm_mlp', 'MlpBlock'
    for axis in ('time', 'space') if factorised else ('0',):
      shapes |= _norm(f'{block}/LayerNorm_{axis}', width)
      shapes |= _attention_shapes(
        f'{block}/MultiHeadDotProductAttention_{axis}', width, heads
      )
    shapes |= _norm(f'{block}/{last}', width)
    shapes |= _dense(f'{block}/{mlp}/Dense_0', width, hidden)
    shapes |= _dense(f'{block}/{mlp}/Dense_1', hidden, width)
  return shapes | _norm(f'{name}/encoder_norm', width) if norm else shapes
