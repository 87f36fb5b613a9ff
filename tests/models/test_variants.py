import math

import jax
import jax.numpy as jnp
import pytest

from vivit_mae import masking
from vivit_mae.models import variants


def _count(model):
  def init():
    video = jnp.zeros((1, model.num_frames, *model.image_size, model.channels))
    mask = masking.sample(
      jax.random.split(jax.random.key(0), 1), 'tube', 0.9, model.grid
    )
    return model.init(jax.random.key(0), video, mask, deterministic=True)

  leaves = jax.tree.leaves(jax.eval_shape(init)['params'])
  return sum(math.prod(leaf.shape) for leaf in leaves)


@pytest.mark.parametrize(
  ('variant', 'recipe', 'count'),
  [
    # reference: videomae.md 2.1 and 2.2
    ('S/16x2', 'videomae', 24_029_376),
    ('B/16x2', 'videomae', 94_210_944),
    ('L/16x2', 'videomae', 342_996_992),
    ('H/16x2', 'videomae', 692_487_296),
    ('S/16x2', 'videomae_v2', 24_029_376),
    ('B/16x2', 'videomae_v2', 94_210_944),
    ('L/16x2', 'videomae_v2', 317_782_016),
    ('H/16x2', 'videomae_v2', 645_659_392),
    ('g/14x2', 'videomae_v2', 1_026_306_560),
  ],
)
def test_published_parameter_counts(variant, recipe, count):
  assert _count(variants.build(variant, recipe=recipe)) == count


@pytest.mark.parametrize(
  ('variant', 'target_dim', 'count'),
  [
    # reference: videomae.md 2.3
    ('B/16x2', 768, 99_898_880),
    ('L/16x2', 768, 317_731_584),
    ('H/14x2', 588, 645_232_460),
  ],
)
def test_published_parameter_counts_of_mae_st(variant, target_dim, count):
  model = variants.build(variant, recipe='mae_st', target_dim=target_dim)
  assert _count(model) == count


@pytest.mark.parametrize('recipe', variants.PRETRAINING)
@pytest.mark.parametrize('size', variants.SIZES)
def test_every_size_has_every_recipe(size, recipe):
  patch = 14 if size == 'g' else 16
  frames = 2 if recipe == 'image_mae' else 16
  model = variants.build(f'{size}/{patch}x2', recipe=recipe, num_frames=frames)
  assert model.grid == (frames // 2, 224 // patch, 224 // patch)
  if recipe.startswith('videomae'):
    assert model.decoder_width <= model.width


@pytest.mark.parametrize(
  ('variant', 'expected'),
  [
    ('B/16x2', ('B', (2, 16, 16))),
    ('g/14x2', ('g', (2, 14, 14))),
    ('Ti/8x4', ('Ti', (4, 8, 8))),
  ],
)
def test_parse(variant, expected):
  assert variants.parse(variant) == expected


def test_overrides_replace_fields_and_none_keeps_them():
  model = variants.build(
    'B/16x2', depth=3, mlp_dim=None, image_size=[64, 96], target_dim=768
  )
  assert (model.depth, model.mlp_dim) == (3, 3072)
  assert model.image_size == (64, 96)
  assert model.target_dim == 768
  assert model.grid == (8, 4, 6)


@pytest.mark.parametrize('variant', ['B', 'B/16', 'B16x2', 'B/16x2x', ''])
def test_a_malformed_variant_says_the_form(variant):
  with pytest.raises(ValueError, match=r"such as 'B/16x2'.*'Ti'"):
    variants.build(variant)


def test_unknown_names_list_the_choices():
  with pytest.raises(ValueError, match=r"'X' is unknown.*'Ti', 'S', 'B'"):
    variants.build('X/16x2')
  with pytest.raises(ValueError, match=r"'v3' is unknown.*'videomae_v2'"):
    variants.build('B/16x2', recipe='v3')
  with pytest.raises(ValueError, match=r"'dept'; did you mean 'depth'"):
    variants.build('B/16x2', dept=3)


@pytest.mark.parametrize(
  ('overrides', 'message'),
  [
    ({'heads': 7}, 'width 768 is not a multiple of heads 7'),
    ({'decoder_heads': 5}, 'decoder_width 384 is not .* decoder_heads 5'),
    ({'image_size': (224, 225)}, 'image_size width 225'),
    ({'num_frames': 15}, 'num_frames 15'),
    ({'dtype': 'float16'}, r"dtype 'float16' is unknown.*'bfloat16'"),
    ({'remat': 'some'}, r"remat 'some' is unknown.*'full', 'dots'"),
    ({'attention': 'flash'}, r"attention 'flash' is unknown.*'cudnn'"),
    ({'qkv_bias': 'q'}, r"qkv_bias 'q' is unknown.*'qkv'"),
    ({'drop_path': 1.0}, r'drop_path 1.0 .* \[0, 1\)'),
    ({'depth': 0}, 'depth 0'),
    ({'channels': 0}, 'channels 0'),
    ({'recipe': 'image_mae'}, "'sincos_2d' tell one frame's .* not 8 frames'"),
    ({'decoder_positions': 'sincos'}, "'sincos' is unknown.*'separable'"),
    (
      {'positions': 'separable', 'factorisation': 'encoder'},
      "'separable' .* factorisation 'encoder' has not",
    ),
  ],
)
def test_impossible_combinations_are_refused(overrides, message):
  with pytest.raises(ValueError, match=message):
    variants.build('B/16x2', **overrides)


@pytest.mark.parametrize(
  ('size', 'fields', 'count'),
  [
    # reference: scenic.md 2.2
    ('B', {}, 88_954_000),
    ('B', {'factorisation': 'encoder'}, 115_062_928),
    ('L', {'factorisation': 'encoder', 'temporal_depth': 24}, 606_827_920),
    ('B', {'factorisation': 'self_attention'}, 117_319_312),
    ('B', {'factorisation': 'dot_product'}, 88_952_464),
  ],
)
def test_published_parameter_counts_of_vivit(size, fields, count):
  model = variants.build_classifier(
    f'{size}/16x2', 400, recipe='vivit', scan=True, **fields
  )
  assert _count_classifier(model) == count


@pytest.mark.parametrize(
  ('size', 'count'),
  [
    # reference: videomae.md 2.1
    ('S', 22_033_936),
    ('B', 86_534_800),
    ('L', 304_270_736),
    ('H', 632_119_440),
  ],
)
def test_published_parameter_counts_of_fine_tuning(size, count):
  assert _count_classifier(variants.build_classifier(f'{size}/16x2', 400)) == (
    count
  )


@pytest.mark.parametrize(
  ('size', 'count'),
  # reference: videomae.md 2.3
  [('B', 86_702_224), ('L', 304_506_256), ('H', 632_424_080)],
)
def test_published_parameter_counts_of_fine_tuning_mae_st(size, count):
  model = variants.build_classifier(f'{size}/16x2', 400, recipe='mae_st')
  assert _count_classifier(model) == count


def _count_classifier(model):
  def init():
    video = jnp.zeros((1, model.num_frames, *model.image_size, model.channels))
    return model.init(jax.random.key(0), video, deterministic=True)

  leaves = jax.tree.leaves(jax.eval_shape(init)['params'])
  return sum(math.prod(leaf.shape) for leaf in leaves)


def test_recipes_of_classifiers():
  model = variants.build_classifier('B/16x2', 7, drop_path=0.1, pooling=None)
  assert (model.num_classes, model.drop_path) == (7, 0.1)
  assert (model.num_frames, model.pooling) == (16, 'mean')
  assert model.initialisation == 'videomae_finetune'
  model = variants.build_classifier(
    'B/16x2', (('noun', 3), ('verb', 4)), recipe='vivit', pooling='max'
  )
  assert (model.num_frames, model.pooling) == (32, 'max')
  assert model.class_token == 'before_positions'
  with pytest.raises(
    ValueError, match=r"'vit' is unknown.*'videomae', 'mae_st', 'vivit'"
  ):
    variants.build_classifier('B/16x2', 7, recipe='vit')
  with pytest.raises(ValueError, match=r"ViViT has no field 'heds'.*'heads'"):
    variants.build_classifier('B/16x2', 7, heds=3)
  with pytest.raises(ValueError, match='class_token'):
    variants.build_classifier(
      'B/16x2', 7, recipe='vivit', factorisation='dot_product',
      class_token='before_positions',
    )  # fmt: skip
