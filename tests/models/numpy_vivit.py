"""ViViT models 1-4 and VideoMAE's classifier in plain numpy, float64.

The formulas of Scenic's projects/vivit/model.py, written token by token and
head by head, and sharing no code with the library: what the library's models
are compared with. Parameters are the library's tree, as nested dicts of arrays.
"""

import dataclasses
import math
from typing import Any

import numpy as np

_erf = np.vectorize(math.erf, otypes=[np.float64])


@dataclasses.dataclass(frozen=True)
class Form:
  """What the parameters do not tell.

  Attributes:
    model: 1 joint, 2 factorised encoder, 3 factorised self-attention, 4
      factorised dot-product attention.
    heads: attention heads.
    pooling: 'token', 'mean', 'max', 'sum' or 'first'.
    gelu: 'tanh' or 'erf'.
    cls_has_position: the class token is there before positions are added.
    sincos: VideoMAE's fixed table in place of a learned one.
    norm_after_pooling: `head/norm` in place of `encoder/norm`.
    order: of model 3's two attentions.
    spatial_only: the mean over time in place of model 2's second stage.
    sampled_frames: frames that uniform sampling picks; None for all.
  """

  model: int
  heads: int
  pooling: str
  gelu: str = 'tanh'
  cls_has_position: bool = True
  sincos: bool = False
  norm_after_pooling: bool = False
  order: tuple[str, str] = ('time', 'space')
  spatial_only: bool = False
  sampled_frames: int | None = None


def logits(params: Any, video: np.ndarray, form: Form) -> dict[str, np.ndarray]:
  """The logits `[b, c]` of each head for clips `[b, t, h, w, c]`."""
  params = _float64(params)
  features = np.stack(
    [_features(params, clip, form) for clip in video.astype(np.float64)]
  )
  head = params['head']
  if 'pre_logits' in head:
    features = np.tanh(_linear(features, head['pre_logits']))
  own = ('norm', 'pre_logits')
  return {
    name: _linear(features, layer)
    for name, layer in head.items()
    if name not in own
  }


def _features(params, clip, form):
  if form.sampled_frames is not None:
    clip = clip[_uniform_frames(len(clip), form.sampled_frames)]
  encoder = params['encoder']
  tokens = _embed(clip, encoder['embedding'])
  if form.model == 2:
    pooled = _factorised_encoder(encoder, tokens, form)
  else:
    frames, places, width = tokens.shape
    tokens = tokens.reshape(frames * places, width)
    pooled = _stage(encoder, tokens, form, frames)
  if form.norm_after_pooling:
    pooled = _layer_norm(pooled, params['head']['norm'])
  return pooled


def _factorised_encoder(encoder, tokens, form):
  frames = np.stack(
    [_stage(encoder['spatial'], frame, form, 1) for frame in tokens]
  )
  if form.spatial_only:
    return frames.mean(axis=0)
  return _stage(encoder['temporal'], frames, form, len(frames))


def _stage(params, tokens, form, frames):
  """Class token, positions, blocks, norm, pooling: `[n, d]` to `[d]`."""
  cls = params.get('cls_token')
  if cls is not None and form.cls_has_position:
    tokens = np.concatenate([cls.reshape(1, -1), tokens])
  if form.sincos:
    tokens = tokens + _sincos(*tokens.shape)
  else:
    tokens = tokens + params['position_embedding'].reshape(tokens.shape)
  if cls is not None and not form.cls_has_position:
    tokens = np.concatenate([cls.reshape(1, -1), tokens])
  depth = sum(name.startswith('block_') for name in params)
  for i in range(depth):
    tokens = _block(params[f'block_{i:02d}'], tokens, form, frames)
  if not form.norm_after_pooling:
    tokens = _layer_norm(tokens, params['norm'])
  if form.pooling in ('token', 'first'):
    return tokens[0]
  pool = {'mean': np.mean, 'max': np.max, 'sum': np.sum}[form.pooling]
  return pool(tokens if cls is None else tokens[1:], axis=0)


def _block(params, x, form, frames):
  if form.model == 3:
    for axis in form.order:
      groups = _groups(axis, len(x), frames)
      normed = _layer_norm(x, params[f'norm_{axis}'])
      attention = params[f'attention_{axis}']
      x = x + _attention(attention, normed, [groups] * form.heads)
  else:
    groups = [[np.arange(len(x))]] * form.heads
    if form.model == 4:
      half = form.heads // 2
      groups = [_groups('time', len(x), frames)] * half
      groups += [_groups('space', len(x), frames)] * half
    normed = _layer_norm(x, params['norm1'])
    x = x + _attention(params['attention'], normed, groups)
  hidden = _linear(_layer_norm(x, params['norm2']), params['mlp']['fc1'])
  return x + _linear(_gelu(hidden, form.gelu), params['mlp']['fc2'])


def _groups(axis, tokens, frames):
  """Indices of the tokens that attend to each other, t-major."""
  places = tokens // frames
  if axis == 'space':
    return [t * places + np.arange(places) for t in range(frames)]
  return [p + places * np.arange(frames) for p in range(places)]


def _attention(params, x, groups_of_heads):
  """Each head attends within its own groups of tokens."""
  width = x.shape[1]
  kernel = params['qkv']['kernel']
  zeros = np.zeros(width)
  query, key, value = (
    x @ kernel[:, i * width : (i + 1) * width]
    + params.get(f'{name}_bias', zeros)
    for i, name in enumerate('qkv')
  )
  size = width // len(groups_of_heads)
  out = np.full(x.shape, np.nan)
  for head, groups in enumerate(groups_of_heads):
    columns = slice(head * size, (head + 1) * size)
    for group in groups:
      q, k, v = (part[group, columns] for part in (query, key, value))
      scores = np.exp(q @ k.T / math.sqrt(size))
      weights = scores / scores.sum(axis=1, keepdims=True)
      out[group, columns] = weights @ v
  return _linear(out, params['proj'])


def _embed(clip, params):
  """Tokens `[t, places, d]`, the convolution tubelet by tubelet."""
  kernel = params['kernel']
  steps = kernel.shape[:3]
  nt, nh, nw = (
    size // step for size, step in zip(clip.shape[:3], steps, strict=True)
  )
  tokens = np.zeros((nt, nh * nw, kernel.shape[-1]))
  for t in range(nt):
    for h in range(nh):
      for w in range(nw):
        at = tuple(
          slice(i * step, (i + 1) * step)
          for i, step in zip((t, h, w), steps, strict=True)
        )
        tokens[t, h * nw + w] = np.tensordot(clip[at], kernel, axes=4)
  return tokens + params['bias']


def _uniform_frames(available, wanted):
  if wanted >= available:
    return np.arange(available)
  step = available / (wanted + 1)
  places = np.round(np.arange(1, wanted + 1) * step).astype(int)
  return np.clip(places, 0, available - 1)


def _sincos(length, width):
  """VideoMAE's table, element by element."""
  table = np.zeros((length, width))
  for place in range(length):
    for column in range(width):
      angle = place / 10000 ** (2 * (column // 2) / width)
      table[place, column] = (math.cos if column % 2 else math.sin)(angle)
  return table


def _layer_norm(x, params):
  mean = x.mean(axis=-1, keepdims=True)
  variance = ((x - mean) ** 2).mean(axis=-1, keepdims=True)
  normed = (x - mean) / np.sqrt(variance + 1e-6)
  return normed * params['scale'] + params['bias']


def _gelu(x, kind):
  if kind == 'erf':
    return x * (1 + _erf(x / math.sqrt(2))) / 2
  inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
  return x * (1 + np.tanh(inner)) / 2


def _linear(x, params):
  return x @ params['kernel'] + params['bias']


def _float64(tree):
  if isinstance(tree, dict):
    return {name: _float64(value) for name, value in tree.items()}
  return np.asarray(tree, np.float64)
