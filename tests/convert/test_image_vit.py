"""Weights of image models, against the originals in plain numpy."""

import dataclasses
import math
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.convert import (
  original_shapes,
  original_states,
  original_tables,
  originals,
)
from tests.convert import scenic_originals as scenic
from tests.convert.original_shapes import Sizes
from vivit_mae import masking
from vivit_mae.convert import files, weights
from vivit_mae.convert.family import HALF, IMAGENET

_SIZES = Sizes(
  depth=2, decoder_depth=1, frames=1, tubelet=1, image=(16, 16), classes=7
)
_HEADS: dict[str, Any] = {'heads': 4}
_BASE = Sizes(
  width=768,
  depth=12,
  heads=12,
  hidden=3072,
  decoder_width=512,
  decoder_depth=8,
  decoder_heads=16,
  decoder_hidden=2048,
  patch=16,
  frames=1,
  tubelet=1,
  image=(224, 224),
  classes=1000,
)

_HUB = (
  ('^cls_token', 'embeddings.cls_token'),
  ('^pos_embed', 'embeddings.position_embeddings'),
  (r'patch_embed\.proj', 'embeddings.patch_embeddings.projection'),
  (r'blocks\.', 'encoder.layer.'),
  ('norm1', 'layernorm_before'),
  ('norm2', 'layernorm_after'),
  (r'attn\.(query|key|value)', r'attention.attention.\1'),
  (r'attn\.proj', 'attention.output.dense'),
  (r'mlp\.fc1', 'intermediate.dense'),
  (r'mlp\.fc2', 'output.dense'),
  (r'^norm', 'layernorm'),
)
# Since transformers 5.
_LATER = (
  (r'encoder\.layer\.', 'layers.'),
  (r'attention\.attention\.(q|k|v)\w+', r'attention.\1_proj'),
  (r'attention\.output\.dense', 'attention.o_proj'),
  (r'intermediate\.dense', 'mlp.fc1'),
  (r'(?<!attention\.)output\.dense', 'mlp.fc2'),
)
_HUB_DECODER = (
  ('^mask_token', 'decoder.mask_token'),
  (r'^decoder_(embed|norm|pred|pos)', r'decoder.decoder_\1'),
  (r'^decoder_encoder\.layer', 'decoder.decoder_layers'),
)


@dataclasses.dataclass(frozen=True)
class _Shapes(files.Checkpoint):
  """A file of which only the shapes are known."""

  arrays: Any


@pytest.fixture
def rng():
  return np.random.default_rng(0)


def _checkpoint(arrays, config=None):
  path = pathlib.Path('image.safetensors')
  return files.Checkpoint(arrays, path, 'safetensors', config=config)


def _abstract(shapes):
  arrays = {k: jax.ShapeDtypeStruct(v, np.float32) for k, v in shapes.items()}
  return _Shapes(arrays, pathlib.Path('image.safetensors'), 'safetensors')


def _images(rng):
  return rng.standard_normal((2, 3, *_SIZES.image), np.float32)


def _clips(images, frames=1):
  """Images [b, 3, h, w] as still clips [b, t, h, w, 3]."""
  return np.repeat(images.transpose(0, 2, 3, 1)[:, None], frames, axis=1)


def _apply(model, params, *inputs, **options):
  @jax.jit
  def apply(params, *inputs):
    return model.apply(
      {'params': params}, *inputs, deterministic=True, **options
    )

  return apply(*jax.tree.map(jnp.asarray, (params, *inputs)))


def _logits(converted, images):
  output = _apply(converted.model, converted.params, _clips(images))
  return np.asarray(output.logits['label'])


def _features(model, params, clips):
  return np.asarray(_apply(model, params, clips, method='features'))


def _reconstructed(converted, images, kept):
  masked = np.stack([np.setdiff1d(np.arange(_SIZES.tokens), k) for k in kept])
  mask = masking.TokenMask(jnp.asarray(kept), jnp.asarray(masked))

  def predict(model, clips, mask, deterministic):
    encoded = model.encode(clips, mask, deterministic=deterministic)
    return model.decode_all(encoded, mask, deterministic=deterministic)

  return np.asarray(
    _apply(
      converted.model, converted.params, _clips(images), mask, method=predict
    )
  )


def _kept(rng):
  return np.stack(
    [
      np.sort(original_tables.random_kept(_SIZES.tokens, 0.75, rng))
      for _ in range(2)
    ]
  )


def _close(got, want):
  assert np.abs(got - want).max() < 1e-5 * np.abs(want).max()


def _renamed(state, *changes):
  """A state whose fused products are split, by other names."""
  renamed = {}
  for name, value in state.items():
    parts = {name: value}
    if '.attn.qkv.' in name:
      parts = {
        name.replace('qkv', part): third
        for part, third in zip(
          ('query', 'key', 'value'), np.split(value, 3), strict=True
        )
      }
    for new, array in parts.items():
      for old, other in changes:
        new = re.sub(old, other, new)
      renamed[new] = array
  return renamed


def _augreg(rng, sizes=_SIZES, **tree):
  """A tree of big_vision, and the same with Scenic's name of the head."""
  shapes = scenic.vivit_shapes(sizes, sampled=1, **tree)
  state = scenic.random_state(shapes, rng)
  names = {name: name.replace('output_projection', 'head') for name in state}
  return {names[name]: value for name, value in state.items()}, state


def test_timm(rng):
  state = original_states.timm_vit_state(_SIZES, rng)
  converted = weights.convert(_checkpoint(state), **_HEADS)
  assert converted.family == 'ViT of timm, classifier'
  assert converted.description.preprocess == HALF
  images = _images(rng)
  _close(_logits(converted, images), originals.timm_vit(state, images, 4))


def test_config_of_timm_tells_statistics_and_pooling(rng):
  state = original_states.timm_vit_state(_SIZES, rng)
  config = {
    'global_pool': 'avg',
    'pretrained_cfg': {'mean': [0.1, 0.2, 0.3], 'std': [0.4, 0.5, 0.6]},
  }
  description = weights.describe(_checkpoint(state, config))
  assert description.preprocess['std'] == (0.4, 0.5, 0.6)
  assert description.model['pooling'] == 'mean'


def test_fine_tuned_mae_pools_the_mean_before_its_norm(rng):
  state = original_states.timm_vit_state(_SIZES, rng)
  state = _swapped(state, (r'^norm\.', 'fc_norm.'))
  converted = weights.convert(_checkpoint(state), **_HEADS)
  assert converted.description.preprocess == IMAGENET
  model = converted.model
  assert (model.pooling, model.norm) == ('mean', 'after_pooling')
  assert 'norm' in converted.params['head']


def _swapped(state, *changes):
  swapped = {}
  for name, value in state.items():
    for old, new in changes:
      name = re.sub(old, new, name)
    swapped[name] = value
  return swapped


def test_layer_scale_and_a_class_token_without_position(rng):
  shapes = original_shapes.timm_vit_shapes(_SIZES)
  shapes['pos_embed'] = (1, 16, 40)
  shapes |= {f'blocks.{i}.ls{j}.gamma': (40,) for i in (0, 1) for j in (1, 2)}
  state = original_states.random_state(shapes, rng)
  converted = weights.convert(_checkpoint(state), **_HEADS)
  assert converted.model.class_token == 'after_positions'
  assert 'scale1' in converted.params['encoder']['block_00']


@pytest.mark.parametrize('name', ['reg_token', 'blocks.0.attn.q_norm.weight'])
def test_timm_of_another_make_is_refused(rng, name):
  state = original_states.timm_vit_state(_SIZES, rng)
  state[name] = np.zeros((1, 4, 40), np.float32)
  with pytest.raises(ValueError, match=rf'{name} .* left'):
    weights.convert(_checkpoint(state), **_HEADS)


@pytest.mark.parametrize('later', [(), _LATER])
def test_hugging_face(rng, later):
  state = original_states.timm_vit_state(_SIZES, rng)
  renamed = _renamed(
    state,
    *_HUB,
    *later,
    (r'^(emb|enc|layer)', r'vit.\1'),
    ('head', 'classifier'),
  )
  assert len(renamed) == 4 + 16 * 2 + 2 + 2
  renamed['vit.pooler.dense.weight'] = np.zeros((40, 40), np.float32)
  converted = weights.convert(
    _checkpoint(renamed, {'num_attention_heads': 4, 'hidden_act': 'gelu'})
  )
  assert converted.family == 'ViT of Hugging Face, classifier'
  images = _images(rng)
  _close(_logits(converted, images), originals.timm_vit(state, images, 4))
  (row,) = converted.coverage.of('ignored')
  assert row.reason == 'no classifier reads the pooler'


def test_hugging_face_without_classes(rng):
  state = original_states.timm_vit_state(_SIZES, rng)
  without = {k: v for k, v in state.items() if not k.startswith('head')}
  converted = weights.convert(_checkpoint(_renamed(without, *_HUB)), **_HEADS)
  assert 'learned positions' in converted.family
  assert converted.description.task == 'mae'
  assert not converted.has_decoder
  images = _images(rng)
  tokens = originals.timm_vit_tokens(state, images, 4)
  got = _features(converted.model, converted.params, _clips(images))
  _close(got, tokens[:, 1:])


def test_clips_of_hugging_face_are_no_images(rng):
  shapes = original_shapes.timm_vit_shapes(_SIZES)
  shapes['patch_embed.proj.weight'] = (40, 3, 2, 4, 4)
  state = original_states.random_state(shapes, rng)
  state = {k: v for k, v in state.items() if not k.startswith('head')}
  family = weights.recognise(_checkpoint(_renamed(state, *_HUB)))
  assert family.name == 'ViViT of Hugging Face, encoder'


@pytest.mark.parametrize('dtype', ['float32', 'float16'])
def test_mae_with_its_fixed_positions(rng, dtype):
  state = original_states.image_mae_pretrain_state(_SIZES, rng)
  state = {k: v.astype(dtype).astype(np.float32) for k, v in state.items()}
  kept = {k: v.astype(dtype) for k, v in state.items()}
  converted = weights.convert(_checkpoint(kept), **_HEADS, decoder_heads=2)
  assert converted.family == 'MAE for images, fixed positions'
  assert converted.description.preprocess == IMAGENET
  assert converted.model.positions == 'sincos_2d'
  assert converted.model.decoder_positions == 'sincos_2d'
  assert {
    (*row.theirs, row.reason) for row in converted.coverage.of('ignored')
  } == {
    ('pos_embed', 'the fixed table, made anew'),
    ('decoder_pos_embed', 'the fixed table, made anew'),
  }
  if dtype == 'float32':
    images, visible = _images(rng), _kept(rng)
    _close(
      _reconstructed(converted, images, visible),
      originals.image_mae_pretrain(state, images, visible, 4, 2),
    )


def test_mae_with_positions_that_are_not_those(rng):
  state = original_states.image_mae_pretrain_state(_SIZES, rng)
  state['decoder_pos_embed'] = state['decoder_pos_embed'] + np.float32(0.01)
  converted = weights.convert(_checkpoint(state), **_HEADS, decoder_heads=2)
  assert converted.family == 'MAE for images, learned positions'
  assert converted.model.decoder_positions == 'learned_1d'
  images, kept = _images(rng), _kept(rng)
  _close(
    _reconstructed(converted, images, kept),
    originals.image_mae_pretrain(state, images, kept, 4, 2),
  )


def test_mae_without_its_decoder(rng):
  state = original_states.image_mae_pretrain_state(_SIZES, rng)
  encoder = {
    name: value
    for name, value in state.items()
    if not name.startswith(('decoder', 'mask'))
  }
  converted = weights.convert(_checkpoint(encoder), **_HEADS)
  assert not converted.has_decoder
  assert set(converted.params) == {'encoder'}
  assert converted.model.positions == 'sincos_2d'
  images = _images(rng)
  tokens = originals.timm_vit_tokens(encoder, images, 4)
  got = _features(converted.model, converted.params, _clips(images))
  _close(got, tokens[:, 1:])


@pytest.mark.parametrize('saved_as', ['layers', 'encoder.layer'])
def test_mae_of_hugging_face(rng, saved_as):
  state = original_states.image_mae_pretrain_state(_SIZES, rng)
  renamed = _renamed(
    state, *_HUB, *_HUB_DECODER, (r'^(emb|enc|layernorm)', r'vit.\1')
  )
  renamed = _swapped(renamed, (r'decoder_layers', f'decoder_{saved_as}'))
  config = {
    'num_attention_heads': 4,
    'decoder_num_attention_heads': 2,
    'norm_pix_loss': False,
  }
  converted = weights.convert(_checkpoint(renamed, config))
  assert converted.family == 'MAE for images of Hugging Face, fixed positions'
  assert converted.description.target['normalise'] == 'none'
  images, kept = _images(rng), _kept(rng)
  _close(
    _reconstructed(converted, images, kept),
    originals.image_mae_pretrain(state, images, kept, 4, 2),
  )


@pytest.mark.parametrize('tree', [{}, {'representation': 12}, {'token': False}])
def test_big_vision(rng, tmp_path, tree):
  state, same = _augreg(rng, **tree)
  if not tree:
    state = scenic.before_linen(state)
  arrays: dict[str, Any] = dict(state)
  np.savez(tmp_path / 'B_16.npz', **arrays)
  converted = weights.convert(files.read(tmp_path / 'B_16.npz'))
  assert converted.family == 'ViT of big_vision, classifier'
  assert converted.model.gelu == 'tanh'
  assert converted.model.heads == 4
  assert converted.description.preprocess == HALF
  images = _images(rng)
  want = scenic.vivit(same, _clips(images), sampled=1)
  _close(_logits(converted, images), want)


def test_class_token_of_big_vision_has_no_position_of_its_own(rng):
  old, same = _augreg(rng)
  table = old.pop('Transformer/posembed_input/pos_embedding')
  new = old | {
    'cls': old['cls'] + table[:, :1],
    'pos_embedding': table[:, 1:],
  }
  converted = weights.convert(_checkpoint(new))
  assert converted.model.class_token == 'after_positions'
  images = _images(rng)
  want = scenic.vivit(same, _clips(images), sampled=1)
  _close(_logits(converted, images), want)


def test_of_a_head_that_attends_the_encoder_is_taken(rng):
  state, _ = _augreg(rng, token=False)
  state['MAPHead_0/probe'] = np.zeros((1, 1, 40), np.float32)
  converted = weights.convert(_checkpoint(state))
  assert set(converted.params) == {'encoder'}
  reasons = {row.reason for row in converted.coverage.of('ignored')}
  assert reasons == {'of a head that is not read here'}


def test_fixed_positions_of_big_vision_are_refused(rng):
  state, _ = _augreg(rng, token=False)
  del state['Transformer/posembed_input/pos_embedding']
  with pytest.raises(ValueError, match='There is no pos_embedding'):
    weights.convert(_checkpoint(state))


@pytest.mark.parametrize(
  ('shapes', 'numbers', 'told'),
  [
    (
      original_shapes.timm_vit_shapes(_BASE),
      86_567_656,
      {'recipe': 'vivit', 'variant': 'B/16x1', 'num_classes': 1000},
    ),
    (
      scenic.vivit_shapes(dataclasses.replace(_BASE, classes=21843), sampled=1),
      102_595_923,
      {'recipe': 'vivit', 'variant': 'B/16x1', 'num_frames': 1},
    ),
    (
      original_shapes.image_mae_pretrain_shapes(_BASE),
      111_907_840,
      {'recipe': 'image_mae', 'decoder_depth': 8, 'decoder_heads': 16},
    ),
  ],
)
def test_published_sizes(shapes, numbers, told):
  assert sum(map(math.prod, shapes.values())) == numbers
  converted = weights.convert(_abstract(shapes))
  assert told.items() <= converted.description.model.items()
  fixed = sum(math.prod(row.shape) for row in converted.coverage.of('ignored'))
  assert f'({numbers - fixed:,} numbers)' in converted.coverage.summary
  assert fixed in (0, 197 * (768 + 512))
