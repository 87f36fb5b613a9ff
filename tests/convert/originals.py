"""The published models in plain numpy, float64: what ours are compared with.

VideoMAE V1 and V2, MAE-ST, the PySlowFast model behind MAE-ST's released
weights, the image MAE and timm's ViT, each from a state dict under its original
names and layouts (`original_states`). Reference: videomae.md 2; for images,
models_mae.py of facebookresearch/mae and timm's VisionTransformer. Nothing is
shared with the library.

Clips are `[b, 3, t, h, w]` and images `[b, 3, h, w]`, normalised. Masks are
true where masked. What a state dict tells (depths, layer scale, cosine
attention, separable positions) is read from its names; the heads are told.
"""

import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from tests.convert import original_tables, original_targets

State = Mapping[str, np.ndarray]

_erf = np.vectorize(math.erf, otypes=[np.float64])


def videomae_pretrain(
  state: State,
  video: Float[np.ndarray, 'b 3 t h w'],
  mask: Bool[np.ndarray, 'b n'],
  heads: int,
  decoder_heads: int,
  decode_mask: Bool[np.ndarray, 'b n'] | None = None,
) -> Float64[np.ndarray, 'b k p']:
  """Predictions of VideoMAE for the decoded tokens, in raster order.

  Args:
    state: of the model.
    video: normalised clips.
    mask: of the encoder; as many masked tokens in every row.
    heads: of the encoder.
    decoder_heads: of the decoder.
    decode_mask: V2's, true where not decoded: what is decoded does not depend
      on what the encoder sees, so a visible token may be there twice. None for
      V1, which decodes what is masked.
  """
  weights = _Weights(state)
  tokens = weights.embed('encoder.patch_embed.proj', video)
  tokens = tokens + original_tables.sincos_1d(*tokens.shape[1:])
  seen = original_targets.chosen_rows(tokens, ~mask)
  seen = weights.blocks('encoder.blocks.', seen, heads)
  seen = weights.norm('encoder.norm', seen)

  seen = seen @ weights['encoder_to_decoder.weight'].T
  table = original_tables.sincos_1d(tokens.shape[1], seen.shape[2])
  table = np.broadcast_to(table, (len(seen), *table.shape))
  decoded = mask if decode_mask is None else ~decode_mask
  asked = weights['mask_token'] + original_targets.chosen_rows(table, decoded)
  seen = seen + original_targets.chosen_rows(table, ~mask)
  both = np.concatenate([seen, asked], axis=1)
  both = weights.blocks('decoder.blocks.', both, decoder_heads)
  asked = weights.norm('decoder.norm', both[:, seen.shape[1] :])
  return weights.linear('decoder.head', asked)


def videomae_features(
  state: State, video: Float[np.ndarray, 'b 3 t h w'], heads: int
) -> Float64[np.ndarray, 'b d']:
  """What VideoMAE's head reads: `fc_norm` of the mean of all tokens.

  With `norm` in place of `fc_norm`, the originals' `--use_cls`: the first
  token's, though it is no class token.
  """
  weights = _Weights(state)
  tokens = _videomae_tokens(weights, video, heads)
  if 'fc_norm.weight' in state:
    return weights.norm('fc_norm', tokens.mean(axis=1))
  return weights.norm('norm', tokens)[:, 0]


def videomae_finetune(
  state: State, video: Float[np.ndarray, 'b 3 t h w'], heads: int
) -> Float64[np.ndarray, 'b c']:
  """Logits of VideoMAE's classifier, from `videomae_features`."""
  features = videomae_features(state, video, heads)
  return _Weights(state).linear('head', features)


def videomae_ava_maps(
  state: State, video: Float[np.ndarray, 'b 3 t h w'], heads: int
) -> Float64[np.ndarray, 'b h w d']:
  """What AVA's detectors pool over boxes: normalised tokens, mean over time."""
  weights = _Weights(state)
  tokens = weights.norm('norm', _videomae_tokens(weights, video, heads))
  kernel = state['patch_embed.proj.weight'].shape[2:]
  grid = [
    size // step for size, step in zip(video.shape[2:], kernel, strict=True)
  ]
  return tokens.reshape(len(tokens), *grid, -1).mean(axis=1)


def mae_st_pretrain(
  state: State,
  video: Float[np.ndarray, 'b 3 t h w'],
  kept: Int[np.ndarray, 'b v'],
  heads: int,
  decoder_heads: int,
) -> Float64[np.ndarray, 'b n p']:
  """Predictions of MAE-ST for all tokens, in raster order.

  Args:
    state: of the model.
    video: normalised clips.
    kept: the visible tokens, in the order in which the encoder sees them.
    heads: of the encoder.
    decoder_heads: of the decoder; 16 as published, 8 for released weights.
  """
  weights = _Weights(state)
  tokens = weights.embed('patch_embed.proj', video)
  seen = _mae_encoder(weights, tokens, kept, heads)
  seen = weights.linear('decoder_embed', seen[:, 1:])
  first = np.broadcast_to(
    weights['decoder_cls_token'], (len(seen), 1, seen.shape[2])
  )
  full = _unshuffled(weights, first, seen, kept, tokens.shape[1])
  full = full + weights.positions('decoder_pos_embed')
  full = weights.blocks('decoder_blocks.', full, decoder_heads)
  full = weights.norm('decoder_norm', full)
  return weights.linear('decoder_pred', full)[:, 1:]


def mae_st_finetune(
  state: State, video: Float[np.ndarray, 'b 3 t h w'], heads: int
) -> Float64[np.ndarray, 'b c']:
  """Logits of MAE-ST's classifier: `norm` of the mean without class token."""
  weights = _Weights(state)
  features = _mae_features(weights, video, heads)
  return weights.linear('head', features)


def pyslowfast_pretrain(
  state: State,
  video: Float[np.ndarray, 'b 3 t h w'],
  kept: Int[np.ndarray, 'b v'],
  heads: int,
  decoder_heads: int,
) -> Float64[np.ndarray, 'b n p']:
  """Predictions of PySlowFast's MAE for all tokens, in raster order.

  As `mae_st_pretrain`, but with one table of the decoder's positions and with
  the encoder's class token passed on to the decoder. The original predicts
  masked tokens only: the same numbers, of fewer tokens.
  """
  weights = _Weights(state)
  full = _class_kept(weights, video, kept, heads)
  prefix = 'pred_head.transforms.0.'
  depth = weights.depth(prefix)
  full = weights.blocks(prefix, full, decoder_heads)
  full = weights.norm(f'{prefix}{depth}', full)
  return weights.linear('pred_head.projections.0', full[:, 1:])


def pyslowfast_finetune(
  state: State, video: Float[np.ndarray, 'b 3 t h w'], heads: int
) -> Float64[np.ndarray, 'b c']:
  """Logits of PySlowFast's classifier (with USE_MEAN_POOLING), no softmax."""
  weights = _Weights(state)
  features = _mae_features(weights, video, heads)
  return weights.linear('head.projection', features)


def image_mae_pretrain(
  state: State,
  images: Float[np.ndarray, 'b 3 h w'],
  kept: Int[np.ndarray, 'b v'],
  heads: int,
  decoder_heads: int,
) -> Float64[np.ndarray, 'b n p']:
  """Predictions of the image MAE for all patches, in raster order.

  Args:
    state: of the model.
    images: normalised.
    kept: the visible patches, in the order in which the encoder sees them.
    heads: of the encoder.
    decoder_heads: of the decoder; 16 as published.
  """
  weights = _Weights(state)
  full = _class_kept(weights, images[:, :, None], kept, heads)
  full = weights.blocks('decoder_blocks.', full, decoder_heads)
  full = weights.norm('decoder_norm', full)
  return weights.linear('decoder_pred', full)[:, 1:]


def timm_vit_tokens(
  state: State, images: Float[np.ndarray, 'b 3 h w'], heads: int
) -> Float64[np.ndarray, 'b 1+n d']:
  """Normalised tokens of timm's ViT, the class token first."""
  weights = _Weights(state)
  tokens = weights.embed('patch_embed.proj', images[:, :, None])
  tokens = _with_class(weights, tokens) + weights['pos_embed']
  return weights.norm('norm', weights.blocks('blocks.', tokens, heads))


def timm_vit(
  state: State, images: Float[np.ndarray, 'b 3 h w'], heads: int
) -> Float64[np.ndarray, 'b c']:
  """Logits of timm's ViT, of the class token."""
  tokens = timm_vit_tokens(state, images, heads)
  return _Weights(state).linear('head', tokens[:, 0])


def _videomae_tokens(weights, video, heads):
  tokens = weights.embed('patch_embed.proj', video)
  tokens = tokens + original_tables.sincos_1d(*tokens.shape[1:])
  return weights.blocks('blocks.', tokens, heads)


def _mae_features(weights, video, heads):
  tokens = weights.embed('patch_embed.proj', video)
  tokens = _with_class(weights, tokens) + weights.positions('pos_embed')
  tokens = weights.blocks('blocks.', tokens, heads)
  return weights.norm('norm', tokens[:, 1:].mean(axis=1))


def _mae_encoder(weights, tokens, kept, heads):
  """The class token and the visible ones, encoded and normalised."""
  positions = weights.positions('pos_embed')
  places = positions[1:]
  seen = np.stack(
    [row[ids] + places[ids] for row, ids in zip(tokens, kept, strict=True)]
  )
  seen = _with_class(weights, seen, positions[0])
  return weights.norm('norm', weights.blocks('blocks.', seen, heads))


def _class_kept(weights, video, kept, heads):
  """The decoder's input with the encoder's class token and one table."""
  tokens = weights.embed('patch_embed.proj', video)
  seen = _mae_encoder(weights, tokens, kept, heads)
  seen = weights.linear('decoder_embed', seen)
  first, seen = seen[:, :1], seen[:, 1:]
  full = _unshuffled(weights, first, seen, kept, tokens.shape[1])
  return full + weights['decoder_pos_embed']


def _unshuffled(weights, first, seen, kept, tokens):
  """The class token, then all tokens in raster order."""
  full = np.repeat(weights['mask_token'], len(seen) * tokens, axis=1)
  full = full.reshape(len(seen), tokens, -1)
  for row, visible, ids in zip(full, seen, kept, strict=True):
    row[ids] = visible
  return np.concatenate([first, full], axis=1)


def _with_class(weights, tokens, position=0.0):
  first = weights['cls_token'] + position
  first = np.broadcast_to(first, (len(tokens), 1, tokens.shape[2]))
  return np.concatenate([first, tokens], axis=1)


class _Weights:
  """A state dict in float64 and the layers that are read from it."""

  def __init__(self, state):
    self._state = state

  def __getitem__(self, name):
    return self._state[name].astype(np.float64)

  def depth(self, prefix):
    """Blocks whose names begin so."""
    names = [name for name in self._state if name.startswith(prefix)]
    return sum(name.endswith('.norm1.weight') for name in names)

  def linear(self, name, x):
    return x @ self[f'{name}.weight'].T + self[f'{name}.bias']

  def norm(self, name, x):
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = np.mean(centred**2, axis=-1, keepdims=True)
    normed = centred / np.sqrt(variance + 1e-6)
    return normed * self[f'{name}.weight'] + self[f'{name}.bias']

  def embed(self, name, video):
    """The convolution without overlap, tokens t-major: `[b, n, d]`."""
    kernel = self[f'{name}.weight']
    if kernel.ndim == 4:
      kernel = kernel[:, :, None]
    tubelet, patch = kernel.shape[2:4]
    pixels = original_targets.patches(video, tubelet, patch)
    kernel = kernel.reshape(*kernel.shape[:2], -1)
    tokens = np.einsum('bnkc,dck->bnd', pixels, kernel)
    return tokens + self[f'{name}.bias']

  def positions(self, name):
    """Rows of the class token and of all tokens, `[1 + n, d]`."""
    if name in self._state:
      return self[name][0]
    space, time = self[f'{name}_spatial'][0], self[f'{name}_temporal'][0]
    places = [moment + place for moment in time for place in space]
    return np.stack([self[f'{name}_class'][0, 0], *places])

  def blocks(self, prefix, x, heads):
    for i in range(self.depth(prefix)):
      block = f'{prefix}{i}.'
      attended = self._attention(
        f'{block}attn.', self.norm(f'{block}norm1', x), heads
      )
      x = x + self._scaled(f'{block}gamma_1', attended)
      hidden = self.linear(f'{block}mlp.fc1', self.norm(f'{block}norm2', x))
      hidden = hidden * (1 + _erf(hidden / math.sqrt(2))) / 2
      out = self.linear(f'{block}mlp.fc2', hidden)
      x = x + self._scaled(f'{block}gamma_2', out)
    return x

  def _scaled(self, name, x):
    return x * self[name] if name in self._state else x

  def _attention(self, prefix, x, heads):
    batch, count, width = x.shape
    query, key, value = (
      part.reshape(batch, count, heads, -1).transpose(0, 2, 1, 3)
      for part in self._query_key_value(prefix, x)
    )
    if f'{prefix}scale' in self._state:
      factor = np.exp(np.minimum(self[f'{prefix}scale'], 4.6052))
      query, key = (
        part / np.linalg.norm(part, axis=-1, keepdims=True)
        for part in (query, key)
      )
    else:
      factor = query.shape[-1] ** -0.5
    scores = query @ key.swapaxes(2, 3) * factor
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    mixed = scores / scores.sum(axis=-1, keepdims=True) @ value
    mixed = mixed.transpose(0, 2, 1, 3).reshape(batch, count, width)
    return self.linear(f'{prefix}proj', mixed)

  def _query_key_value(self, prefix, x):
    """Split linear maps, or the rows of a fused one, the bias q's and v's."""
    if f'{prefix}q.weight' in self._state:
      return [self.linear(f'{prefix}{name}', x) for name in 'qkv']
    parts = x @ self[f'{prefix}qkv.weight'].T
    if f'{prefix}qkv.bias' in self._state:
      parts = parts + self[f'{prefix}qkv.bias']
    else:
      query, value = self[f'{prefix}q_bias'], self[f'{prefix}v_bias']
      parts = parts + np.concatenate([query, np.zeros_like(query), value])
    return np.split(parts, 3, axis=-1)
