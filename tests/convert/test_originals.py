"""The oracle's models, against `transformers` and each other.

They were also compared once with `transformers` (VideoMAE, ViTMAE), timm and,
written anew with torch's functions, MAE-ST, PySlowFast and V2: equal to 1e-15
in float64.
"""

import dataclasses
import pathlib

import numpy as np
import pytest

from tests.convert import (
  original_shapes,
  original_states,
  original_tables,
  original_targets,
  originals,
)
from tests.convert.original_shapes import Sizes

_SIZES = Sizes()


@pytest.fixture
def rng():
  return np.random.default_rng(0)


def test_videomae_is_that_of_transformers():
  path = pathlib.Path(__file__).parents[1] / 'data' / 'videomae_golden.npz'
  golden = np.load(path)
  state = _from_transformers(golden)
  unit = golden['unit'].transpose(0, 4, 1, 2, 3)
  shift = original_targets.IMAGENET_MEAN[:, None, None, None]
  scale = original_targets.IMAGENET_STD[:, None, None, None]
  video, mask = (unit - shift) / scale, golden['mask']
  predictions = originals.videomae_pretrain(state, video, mask, 3, 2)
  np.testing.assert_allclose(predictions, golden['logits'], atol=2e-5)
  targets = original_targets.videomae_targets(video, 8)
  loss = original_targets.videomae_loss(predictions, targets, mask)
  assert loss == pytest.approx(float(golden['loss']), rel=1e-6)


def test_tokens_are_the_convolution_of_their_places(rng):
  sizes = dataclasses.replace(_SIZES, depth=0)
  state = original_states.videomae_finetune_state(sizes, rng, ava=True)
  video = original_states.random_video(sizes, rng)
  maps = originals.videomae_ava_maps(state, video, sizes.heads)
  assert maps.shape == (2, 4, 2, sizes.width)

  kernel = state['patch_embed.proj.weight'].astype(float)
  table = original_tables.sincos_1d(sizes.tokens, sizes.width)
  expected = np.zeros(sizes.width)
  for t in range(4):  # of row 2, column 1
    block = video[1, :, 2 * t : 2 * t + 2, 8:12, 4:8]
    token = np.array([np.sum(block * each) for each in kernel])
    token += state['patch_embed.proj.bias'] + table[8 * t + 2 * 2 + 1]
    token = (token - token.mean()) / np.sqrt(token.var() + 1e-6)
    expected += (token * state['norm.weight'] + state['norm.bias']) / 4
  np.testing.assert_allclose(maps[1, 2, 1], expected, atol=1e-10)


def test_v2_decoding_what_is_masked_is_v1(rng):
  state = original_states.videomae_pretrain_state(_SIZES, rng, True, True)
  video = original_states.random_video(_SIZES, rng)
  mask = _tube_masks(rng)
  v1 = originals.videomae_pretrain(state, video, mask, 4, 2)
  v2 = originals.videomae_pretrain(state, video, mask, 4, 2, ~mask)
  np.testing.assert_array_equal(v1, v2)
  targets = original_targets.videomae_targets(video, _SIZES.patch)
  assert original_targets.videomae_loss(v1, targets, mask) == pytest.approx(
    original_targets.videomae_v2_loss(v1, targets, mask, ~mask)
  )


def test_cosine_attention_forgets_lengths_and_is_clamped(rng):
  state = original_states.videomae_finetune_state(_SIZES, rng, cosine=True)
  video = original_states.random_video(_SIZES, rng)
  before = originals.videomae_finetune(state, video, 4)
  longer = dict(state)
  name = 'blocks.1.attn.qkv.weight'
  longer[name] = state[name] * np.repeat([3, 1, 1], _SIZES.width)[:, None]
  longer['blocks.1.attn.q_bias'] = state['blocks.1.attn.q_bias'] * 3
  longer['blocks.0.attn.scale'] = state['blocks.0.attn.scale'].copy()
  longer['blocks.0.attn.scale'][0] = 9.0
  after = originals.videomae_finetune(longer, video, 4)
  np.testing.assert_allclose(after, before, rtol=1e-5)
  longer['blocks.0.attn.scale'][0] = 1.0
  after = originals.videomae_finetune(longer, video, 4)
  assert np.abs(after - before).max() > 1e-3


def test_layer_scale_scales_the_branches(rng):
  state = original_states.videomae_finetune_state(_SIZES, rng, True)
  video = original_states.random_video(_SIZES, rng)
  folded = {name: value for name, value in state.items() if 'gamma' not in name}
  for i in range(_SIZES.depth):
    for gamma, layer in (('gamma_1', 'attn.proj'), ('gamma_2', 'mlp.fc2')):
      scale = state[f'blocks.{i}.{gamma}'].astype(float)
      folded[f'blocks.{i}.{layer}.weight'] = (
        state[f'blocks.{i}.{layer}.weight'] * scale[:, None]
      )
      folded[f'blocks.{i}.{layer}.bias'] = (
        state[f'blocks.{i}.{layer}.bias'] * scale
      )
  np.testing.assert_allclose(
    originals.videomae_finetune(state, video, 4),
    originals.videomae_finetune(folded, video, 4),
    rtol=1e-10,
  )


def test_ava_states_have_the_other_norm(rng):
  state = original_states.videomae_finetune_state(_SIZES, rng, ava=True)
  video = original_states.random_video(_SIZES, rng)
  assert not any(name.startswith('fc_norm') for name in state)
  assert originals.videomae_finetune(state, video, 4).shape == (2, 7)


@pytest.mark.parametrize('separable', [True, False])
def test_order_of_kept_tokens_does_not_matter(rng, separable):
  state = original_states.mae_st_pretrain_state(_SIZES, rng, separable)
  video = original_states.random_video(_SIZES, rng)
  kept = _kept(rng)
  before = originals.mae_st_pretrain(state, video, kept, 4, 2)
  assert before.shape == (2, _SIZES.tokens, 48)
  after = originals.mae_st_pretrain(state, video, kept[:, ::-1], 4, 2)
  np.testing.assert_allclose(after, before, atol=1e-10)
  others = originals.mae_st_pretrain(state, video, kept, 4, 5)
  assert np.abs(others - before).max() > 1e-3


def test_separable_positions_are_sums(rng):
  state = original_states.mae_st_pretrain_state(_SIZES, rng)
  video, kept = original_states.random_video(_SIZES, rng), _kept(rng)
  joint = {k: v for k, v in state.items() if 'pos_embed' not in k}
  for name in ('pos_embed', 'decoder_pos_embed'):
    time = np.repeat(state[f'{name}_temporal'].astype(float), 8, axis=1)
    space = np.tile(state[f'{name}_spatial'], (1, 4, 1))
    joint[name] = np.concatenate([state[f'{name}_class'], time + space], axis=1)
  assert {name: value.shape for name, value in joint.items()} == (
    original_shapes.mae_st_pretrain_shapes(_SIZES, separable=False)
  )
  np.testing.assert_allclose(
    originals.mae_st_pretrain(state, video, kept, 4, 2),
    originals.mae_st_pretrain(joint, video, kept, 4, 2),
    atol=1e-10,
  )


def test_image_mae_is_pyslowfast_of_one_frame(rng):
  state = original_states.image_mae_pretrain_state(_SIZES, rng)
  images = rng.standard_normal((2, 3, *_SIZES.image))
  kept = np.stack([rng.permutation(8)[:3] for _ in range(2)])
  renamed = {}
  for name, value in state.items():
    name = name.replace('decoder_blocks', 'pred_head.transforms.0')
    name = name.replace('decoder_norm', 'pred_head.transforms.0.2')
    name = name.replace('decoder_pred', 'pred_head.projections.0')
    if 'attn.qkv' in name:
      for part, rows in zip('qkv', np.split(value, 3), strict=True):
        renamed[name.replace('qkv', part)] = rows
    else:
      renamed[name] = value
  renamed['patch_embed.proj.weight'] = renamed['patch_embed.proj.weight'][
    :, :, None
  ]
  video = images[:, :, None]
  np.testing.assert_allclose(
    originals.image_mae_pretrain(state, images, kept, 4, 2),
    originals.pyslowfast_pretrain(renamed, video, kept, 4, 2),
    atol=1e-10,
  )


def test_masked_pixels_are_not_seen(rng):
  video = original_states.random_video(_SIZES, rng)
  kept = _kept(rng)
  mask = original_tables.mask_without(kept, _SIZES.tokens)
  hidden = mask.reshape(2, 1, *_SIZES.grid)
  for axis, times in ((2, 2), (3, 4), (4, 4)):
    hidden = np.repeat(hidden, times, axis=axis)
  changed = np.where(hidden, video + 1, video)
  made = original_states.videomae_pretrain_state(_SIZES, rng)
  np.testing.assert_array_equal(
    originals.videomae_pretrain(made, video, mask, 4, 2),
    originals.videomae_pretrain(made, changed, mask, 4, 2),
  )
  made = original_states.pyslowfast_pretrain_state(_SIZES, rng)
  np.testing.assert_array_equal(
    originals.pyslowfast_pretrain(made, video, kept, 4, 2),
    originals.pyslowfast_pretrain(made, changed, kept, 4, 2),
  )


def test_classifiers_of_mae_st_differ_in_a_name(rng):
  state = original_states.pyslowfast_finetune_state(_SIZES, rng)
  renamed = {k.replace('head.projection', 'head'): v for k, v in state.items()}
  video = original_states.random_video(_SIZES, rng)
  logits = originals.pyslowfast_finetune(state, video, 4)
  assert logits.shape == (2, 7)
  np.testing.assert_array_equal(
    logits, originals.mae_st_finetune(renamed, video, 4)
  )


def test_timm_reads_the_class_token(rng):
  state = original_states.timm_vit_state(_SIZES, rng)
  images = rng.standard_normal((2, 3, *_SIZES.image))
  tokens = originals.timm_vit_tokens(state, images, 4)
  assert tokens.shape == (2, 9, _SIZES.width)
  np.testing.assert_allclose(
    originals.timm_vit(state, images, 4),
    tokens[:, 0] @ state['head.weight'].T + state['head.bias'],
    rtol=1e-6,
  )


def _tube_masks(rng):
  masks = [original_tables.tube_mask(_SIZES.grid, 0.75, rng) for _ in range(2)]
  return np.stack(masks)


def _kept(rng):
  return np.stack(
    [original_tables.random_kept(_SIZES.tokens, 0.75, rng) for _ in range(2)]
  )


def _from_transformers(golden):
  """The golden file's weights under VideoMAE's own names."""
  changes = [
    ('videomae.encoder.layer.', 'encoder.blocks.'),
    (
      'videomae.embeddings.patch_embeddings.projection',
      'encoder.patch_embed.proj',
    ),
    ('videomae.layernorm', 'encoder.norm'),
    ('decoder.decoder_layers.', 'decoder.blocks.'),
    ('layernorm_before', 'norm1'),
    ('layernorm_after', 'norm2'),
    ('intermediate.dense', 'mlp.fc1'),
    ('attention.output.dense', 'attn.proj'),
    ('output.dense', 'mlp.fc2'),
    ('attention.attention.query.bias', 'attn.q_bias'),
    ('attention.attention.value.bias', 'attn.v_bias'),
    ('attention.attention.', 'attn.'),
  ]
  state = {}
  for name in golden.files:
    if name.startswith('weights/'):
      value, name = golden[name], name.removeprefix('weights/')
      for old, new in changes:
        name = name.replace(old, new)
      state[name] = value
  for name in [name for name in state if name.endswith('query.weight')]:
    block = name.removesuffix('query.weight')
    parts = [state.pop(f'{block}{x}.weight') for x in ('query', 'key', 'value')]
    state[f'{block}qkv.weight'] = np.concatenate(parts)
  return state
