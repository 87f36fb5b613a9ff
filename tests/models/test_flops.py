import functools
import math

import jax
import jax.numpy as jnp
import pytest

from vivit_mae.models import flops, variants


# 10^9 multiply-adds of one view of 16 x 224 x 224, as PySlowFast's model zoo
# lists them for MAE-ST's encoders.
@pytest.mark.parametrize(
  ('size', 'published'), [('B', 180), ('L', 598), ('H', 1193)]
)
def test_encoders_cost_what_is_published(size, published):
  model = variants.build(f'{size}/16x2')
  whole = flops.transformer_flops(1568, model.width, model.mlp_dim, model.depth)
  embedding = 2 * 1568 * model.patch_dim * model.width
  assert (whole + embedding) / 2e9 == pytest.approx(published, rel=5e-3)


def test_one_block_by_hand():
  # 3 tokens of width 4, MLP of 8: query, key, value and output 4 x 3*4*4; the
  # MLP 2 x 3*4*8; scores and weighted sum 2 x 3*3*4 multiply-adds.
  assert flops.transformer_flops(3, 4, 8, 1) == 2 * (192 + 192 + 72)
  assert flops.transformer_flops(3, 4, 8, 5) == 5 * 2 * (192 + 192 + 72)
  # With one token asked for: a third of the output, the MLP and the attention.
  last = 2 * (144 + 16 + 64 + 24)
  assert flops.transformer_flops(3, 4, 8, 1, last=1) == last
  assert flops.transformer_flops(3, 4, 8, 2, last=1) == last + 2 * 456


def test_pretraining_by_hand():
  model = variants.build(
    'Ti/4x2', num_frames=4, image_size=(8, 8), width=8, depth=2, heads=2,
    mlp_dim=16, decoder_width=4, decoder_depth=1, decoder_heads=1,
    decoder_mlp_dim=8,
  )  # fmt: skip
  # 8 tokens of 2*4*4*3 = 96 pixels: 2 are seen, 6 are predicted.
  embedding = 2 * 96 * 8
  encoder = 2 * (2 * (4 * 64 + 2 * 128) + 2 * 2 * 2 * 8)
  bridge = 2 * 8 * 4
  # All 8 have queries, keys and values in the one block; 6 go on from there.
  decoder = 8 * 3 * 16 + 6 * (16 + 2 * 32) + 2 * 6 * 8 * 4
  head = 6 * 4 * 96
  total = 2 * (embedding + encoder + bridge + decoder + head)
  assert flops.video_mae_flops(model, 2, 6) == total
  # A target of one frame is half as wide.
  half = model.clone(target_dim=48)
  assert flops.video_mae_flops(half, 2, 6) == total - head


def test_masking_is_what_makes_pretraining_cheap():
  model = variants.build('L/16x2')
  masked = flops.video_mae_flops(model, 160, 1408)
  unmasked = flops.transformer_flops(
    1568, model.width, model.mlp_dim, model.depth
  )
  assert masked < unmasked / 3


@pytest.mark.parametrize(
  'fields',
  [
    {},
    {'class_token': 'before_positions'},
    {'factorisation': 'encoder', 'temporal_depth': 3},
    {'factorisation': 'encoder', 'spatial_only': True},
    {'factorisation': 'self_attention'},
    {'factorisation': 'dot_product'},
    {'embedding': 'uniform_frames'},
    {'head': 'attentive'},
    {'representation_size': 64},
  ],
)
def test_classification_is_what_xla_counts(fields):
  # Wide enough that the matrix products outweigh all else.
  model = variants.build_classifier(
    'Ti/8x2', 50, num_frames=8, image_size=(32, 32), width=128, heads=4,
    depth=2, mlp_dim=512, attention='xla', **fields,
  )  # fmt: skip
  video = jax.ShapeDtypeStruct((1, 8, 32, 32, 3), jnp.float32)
  shapes = jax.eval_shape(
    functools.partial(model.init, deterministic=True), jax.random.key(0), video
  )
  apply = jax.jit(functools.partial(model.apply, deterministic=True))
  analysis = apply.lower(shapes, video).compile().cost_analysis()
  assert analysis
  assert 0.85 < flops.vivit_flops(model) / analysis['flops'] <= 1


def test_factorisation_saves_attention_only():
  joint, encoder, self_attention, dot_product = (
    flops.encoder_flops(
      variants.build_classifier(
        'B/16x2', 400, num_frames=32, factorisation=kind
      ),
      3136,
    )
    for kind in ('none', 'encoder', 'self_attention', 'dot_product')
  )
  # The projections of queries, keys, values and output, once more.
  again = 12 * 2 * 3136 * 4 * 768**2
  attention = 12 * 4 * 3136 * (16 + 196) * 768
  assert math.isclose(
    dot_product, joint - 12 * 4 * 3136**2 * 768 + attention / 2
  )
  assert math.isclose(self_attention, dot_product + again + attention / 2)
  assert dot_product < encoder < self_attention < joint
