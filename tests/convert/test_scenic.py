"""Scenic's weights, against its models in plain numpy."""

import dataclasses
import math
import pathlib
from typing import Any

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from tests.convert import original_tables
from tests.convert import scenic_originals as scenic
from tests.convert.original_shapes import Sizes
from vivit_mae import masking
from vivit_mae.convert import files, weights

_SIZES = Sizes(depth=1, decoder_depth=1)
_DEEP = Sizes(depth=2)
# What so few tokens do not tell.
_CLIP = {'num_frames': 8, 'image_size': (16, 8), 'position_grid': (4, 4, 2)}
_BASE = Sizes(
  width=768,
  depth=12,
  heads=12,
  hidden=3072,
  decoder_width=384,
  decoder_depth=4,
  decoder_heads=6,
  decoder_hidden=1536,
  patch=16,
  frames=32,
  image=(224, 224),
  classes=400,
)
_PRETRAINING = dataclasses.replace(_BASE, frames=16)
_LARGE = dataclasses.replace(_BASE, width=1024, depth=24, heads=16, hidden=4096)


@pytest.fixture
def rng():
  return np.random.default_rng(0)


@dataclasses.dataclass(frozen=True)
class _Shapes(files.Checkpoint):
  """A file of which only the shapes are known."""

  arrays: Any


def _checkpoint(arrays):
  return files.Checkpoint(arrays, pathlib.Path('checkpoint'), 'msgpack')


def _abstract(shapes):
  arrays = {k: jax.ShapeDtypeStruct(v, np.float32) for k, v in shapes.items()}
  return _Shapes(arrays, pathlib.Path('checkpoint'), 'msgpack')


def _apply(converted, *inputs, **options):
  @jax.jit
  def apply(params, *inputs):
    return converted.model.apply(
      {'params': params}, *inputs, deterministic=True, **options
    )

  return apply(jax.tree.map(jnp.asarray, converted.params), *inputs)


def _clips(rng):
  shape = (2, _SIZES.frames, *_SIZES.image, 3)
  return rng.uniform(-1, 1, shape).astype(np.float32)


def _logits(converted, clips):
  logits = _apply(converted, jnp.asarray(clips)).logits
  return {name: np.asarray(x) for name, x in logits.items()}


def _close(got, want):
  assert np.abs(got - want).max() < 1e-5 * np.abs(want).max()


@pytest.mark.parametrize(
  ('tree', 'form', 'fields'),
  [
    ({}, {}, {}),
    ({'token': False}, {}, {'factorisation': 'none'}),
    ({'representation': 12}, {}, {}),
    ({'model': 2, 'temporal_depth': 2}, {'model': 2}, {}),
    (
      {'model': 2, 'temporal_depth': 1, 'token': False},
      {'model': 2},
      {},
    ),
    ({'model': 2, 'temporal_depth': 0}, {'model': 2}, {}),
    (
      {'model': 3, 'token': False},
      {'model': 3},
      {'attention_order': 'time_space'},
    ),
    (
      {'model': 3, 'token': False},
      {'model': 3, 'order': ('space', 'time')},
      {'attention_order': 'space_time'},
    ),
    (
      {'model': 4, 'token': False},
      {'model': 4},
      {'factorisation': 'dot_product'},
    ),
    ({'sampled': 4}, {'sampled': 4}, {'variant': 'B/4x2'}),
    (
      {'model': 2, 'temporal_depth': 1, 'sampled': 4},
      {'model': 2, 'sampled': 4},
      {'variant': 'B/4x2'},
    ),
  ],
)
def test_vivit_is_scenics(rng, tree, form, fields):
  state = scenic.random_state(scenic.vivit_shapes(_SIZES, **tree), rng)
  converted = weights.convert(_checkpoint(state), **_CLIP, **fields)
  clips = _clips(rng)
  _close(_logits(converted, clips)['label'], scenic.vivit(state, clips, **form))
  assert converted.description.preprocess == {
    'mean': (0.5, 0.5, 0.5),
    'std': (0.5, 0.5, 0.5),
  }
  assert not converted.coverage.faults


@pytest.mark.parametrize('model', [1, 2])
def test_head_of_epic_kitchens_is_of_nouns_and_verbs(rng, model):
  sizes = dataclasses.replace(_SIZES, classes=397)
  shapes = scenic.vivit_shapes(sizes, model, temporal_depth=1)
  state = scenic.random_state(shapes, rng)
  converted = weights.convert(_checkpoint(state), **_CLIP)
  assert 'nouns and verbs' in converted.family
  assert converted.description.model['num_classes'] == (
    ('noun', 300),
    ('verb', 97),
  )
  clips = _clips(rng)
  want = scenic.vivit(state, clips, model)
  got = _logits(converted, clips)
  assert list(got) == ['noun', 'verb']
  _close(np.concatenate([got['noun'], got['verb']], axis=1), want)
  rows = [
    row for row in converted.coverage.rows if 'output_projection' in str(row)
  ]
  assert [(row.ours, row.shape) for row in rows] == [
    ('head/noun/kernel', (40, 300)),
    ('head/noun/bias', (300,)),
    ('head/verb/kernel', (40, 97)),
    ('head/verb/bias', (97,)),
  ]


def test_names_of_before_linen(rng):
  state = scenic.random_state(scenic.vivit_shapes(_DEEP), rng)
  old = scenic.before_linen(state)
  assert old.keys() != state.keys()
  converted = weights.convert(_checkpoint(old), **_CLIP)
  clips = _clips(rng)
  _close(_logits(converted, clips)['label'], scenic.vivit(state, clips))


def test_file_of_an_old_train_state(rng, tmp_path):
  state = scenic.random_state(
    scenic.vivit_shapes(_SIZES, 2, temporal_depth=2), rng
  )
  tree = traverse_util.unflatten_dict(dict(state), sep='/')
  path = tmp_path / 'checkpoint'
  path.write_bytes(
    flax.serialization.msgpack_serialize(
      {
        'global_step': 7,
        'optimizer': {'target': tree, 'state': {'param_states': tree}},
        'model_state': {},
      }
    )
  )
  converted = weights.convert(files.read(tmp_path), **_CLIP)
  assert not converted.coverage.of('ignored', 'left')
  clips = _clips(rng)
  _close(_logits(converted, clips)['label'], scenic.vivit(state, clips, 2))


@pytest.mark.parametrize(
  ('sizes', 'tree', 'fields', 'numbers', 'told'),
  [
    (_BASE, {}, {}, 88_954_000, {'variant': 'B/16x2'}),
    (
      _BASE,
      {'model': 2},
      {},
      115_062_928,
      {'factorisation': 'encoder', 'temporal_depth': 4},
    ),
    (
      _LARGE,
      {'model': 2, 'temporal_depth': 24},
      {},
      606_827_920,
      {'variant': 'L/16x2', 'temporal_depth': 24},
    ),
    (
      _BASE,
      {'model': 3, 'token': False},
      {'attention_order': 'time_space'},
      117_319_312,
      {'factorisation': 'self_attention'},
    ),
    (
      _BASE,
      {'model': 4, 'token': False},
      {'factorisation': 'dot_product'},
      88_952_464,
      {'pooling': 'mean'},
    ),
  ],
)
def test_published_sizes(sizes, tree, fields, numbers, told):
  shapes = scenic.vivit_shapes(sizes, **tree)
  assert sum(map(math.prod, shapes.values())) == numbers
  converted = weights.convert(_abstract(shapes), **fields)
  assert f'({numbers:,} numbers)' in converted.coverage.summary
  assert not converted.coverage.of('ignored')
  told = {'num_frames': 32, 'image_size': (224, 224), **told}
  assert told.items() <= converted.description.model.items()


def test_something_something_has_larger_images():
  sizes = dataclasses.replace(_LARGE, image=(256, 256), classes=174)
  converted = weights.describe(_abstract(scenic.vivit_shapes(sizes, 2)))
  assert converted.model['image_size'] == (256, 256)
  assert not converted.unknown


@pytest.mark.parametrize(
  ('sampled', 'told'),
  [
    (8, {'variant': 'B/16x4', 'num_frames': 32, 'embedding': 'uniform_frames'}),
    (1, {'variant': 'B/16x1', 'num_frames': 1}),
  ],
)
def test_sampled_frames(sampled, told):
  shapes = scenic.vivit_shapes(_BASE, sampled=sampled)
  description = weights.describe(_abstract(shapes))
  assert not description.unknown
  assert told.items() <= description.model.items()
  assert description.model['image_size'] == (224, 224)


@pytest.mark.parametrize(
  ('tree', 'given', 'message'),
  [
    ({'model': 4, 'token': False}, _CLIP, "factorisation .'none', model 1"),
    ({'model': 3, 'token': False}, _CLIP, "attention_order .'time_space' has"),
    ({}, {}, 'num_frames .32 tokens leave it open.; image_size'),
    ({'sampled': 6}, _CLIP, 'variant .48 tokens leave it open'),
  ],
)
def test_what_names_do_not_tell_is_asked_for(tree, given, message):
  shapes = scenic.vivit_shapes(_SIZES, **tree)
  with pytest.raises(ValueError, match=message):
    weights.convert(_abstract(shapes), **given)


def test_heads_of_both_stages_have_to_agree():
  shapes = scenic.vivit_shapes(_SIZES, 2)
  for name, (width, heads, size) in [
    (name, shape)
    for name, shape in shapes.items()
    if name.startswith('Temporal') and name.endswith('/query/kernel')
  ]:
    shapes[name] = (width, heads // 2, size * 2)
  with pytest.raises(ValueError, match=r'\[4, 160\] over space, \[2, 160\]'):
    weights.convert(_abstract(shapes))


def _mask(rng):
  kept = np.stack(
    [
      np.sort(original_tables.random_kept(_SIZES.tokens, 0.75, rng))
      for _ in range(2)
    ]
  )
  masked = np.stack([np.setdiff1d(np.arange(_SIZES.tokens), k) for k in kept])
  return masking.TokenMask(jnp.asarray(kept), jnp.asarray(masked)), kept


@pytest.mark.parametrize(
  'tree',
  [
    {'token': True, 'bias': False},
    {'token': True, 'positions': 'learned'},
    {'positions': 'learned', 'decoder_positions': 'learned'},
    {'positions': 'space_time', 'decoder_positions': 'space_time'},
  ],
)
def test_masked_autoencoder_is_scenics(rng, tree):
  state = scenic.random_state(scenic.mae_shapes(_SIZES, **tree), rng)
  converted = weights.convert(_checkpoint(state), **_CLIP)
  assert converted.has_decoder
  mask, kept = _mask(rng)
  clips = _clips(rng)

  def predict(model, clips, mask, deterministic):
    encoded = model.encode(clips, mask, deterministic=deterministic)
    return model.decode_all(encoded, mask, deterministic=deterministic)

  got = _apply(converted, jnp.asarray(clips), mask, method=predict)
  _close(np.asarray(got), scenic.masked_autoencoder(state, clips, kept))


def test_masked_autoencoder_of_the_published_size():
  shapes = scenic.mae_shapes(_PRETRAINING)
  assert sum(map(math.prod, shapes.values())) == 94_222_080
  converted = weights.convert(_abstract(shapes))
  assert '(94,222,080 numbers)' in converted.coverage.summary
  model = converted.model
  assert (model.grid, model.heads) == ((8, 14, 14), 12)
  assert (model.decoder_heads, model.gelu) == (6, 'tanh')


@pytest.mark.parametrize(
  ('positions', 'grid'), [('learned', (8, 14, 14)), ('space_time', (8, 14, 14))]
)
def test_tables_of_positions_tell_the_clip(positions, grid):
  shapes = scenic.mae_shapes(_PRETRAINING, positions=positions)
  assert weights.convert(_abstract(shapes)).model.grid == grid


def test_decoder_without_a_position_for_its_class_token_is_refused():
  shapes = scenic.mae_shapes(_SIZES, token=True, decoder_positions='learned')
  with pytest.raises(ValueError, match='a class token without one'):
    weights.convert(_abstract(shapes), **_CLIP)


def test_masked_autoencoder_of_images_is_refused():
  shapes = scenic.mae_shapes(_SIZES)
  shapes['embedding/kernel'] = shapes['embedding/kernel'][1:]
  with pytest.raises(ValueError, match='embedding/kernel is of images'):
    weights.convert(_abstract(shapes))


@pytest.mark.parametrize(
  ('tree', 'told'),
  [
    ({}, {'norm': 'after_pooling', 'num_frames': 16}),
    ({'inside': True}, {'norm': 'before_pooling', 'num_frames': 32}),
    (
      {'inside': True, 'token': True},
      {'class_token': 'after_positions', 'num_frames': 16},
    ),
  ],
)
def test_fine_tuned_is_scenics(rng, tree, told):
  shapes = scenic.mae_classifier_shapes(_SIZES, **tree)
  state = scenic.random_state(shapes, rng)
  description = weights.describe(_checkpoint(state))
  assert told.items() <= description.model.items()
  converted = weights.convert(_checkpoint(state), **_CLIP)
  clips = _clips(rng)
  _close(
    _logits(converted, clips)['label'], scenic.mae_classifier(state, clips)
  )


def test_fine_tuned_of_the_published_size():
  shapes = scenic.mae_classifier_shapes(_BASE)
  assert sum(map(math.prod, shapes.values())) == 86_544_016
  converted = weights.convert(_abstract(shapes))
  assert '(86,544,016 numbers)' in converted.coverage.summary


def test_norms_before_and_behind_the_pooling_are_refused():
  shapes = scenic.mae_classifier_shapes(_SIZES)
  shapes |= scenic.mae_classifier_shapes(_SIZES, inside=True)
  with pytest.raises(ValueError, match=r'encoder_norm/scale .* left'):
    weights.convert(_abstract(shapes), **_CLIP)


def test_of_a_pretraining_with_sound_the_encoder_of_video_is_taken(rng):
  state = scenic.random_state(scenic.with_sound_shapes(_DEEP), rng)
  converted = weights.convert(_checkpoint(state), **_CLIP)
  assert not converted.has_decoder
  assert set(converted.params) == {'encoder'}
  clips = _clips(rng)
  got = _apply(converted, jnp.asarray(clips), method='features')
  _close(np.asarray(got), scenic.mae_encoder(state, clips, '_rgb'))
  rest = converted.coverage.of('ignored')
  reasons = {name: row.reason for row in rest for name in row.theirs}
  assert reasons.keys() == {
    name
    for name in state
    if not name.startswith(('Transformer_rgb/', 'embedding_rgb/'))
  }
  assert reasons['embedding_spectrogram/kernel'] == 'of sound'
  assert reasons['mask_token_spectrogram'] == 'of sound'
  assert reasons['mask_token_rgb'] == 'the decoder of a pretraining with sound'
  table = converted.coverage.table(rest)
  lines = [' '.join(line.split()) for line in table.splitlines()]
  assert (
    'Transformer_concat/encoderblock_0/LayerNorm_0-1/scale - 40 ignored '
    'for video and sound together'
  ) in lines
  assert (
    'Transformer_spectrogram/encoderblock_0-1/LayerNorm_0-1/scale - 40 ignored '
    'of sound'
  ) in lines


def test_of_a_pretraining_with_sound_nothing_more_is_passed_over():
  shapes = scenic.with_sound_shapes(_SIZES)
  shapes['Encoder_modality_token_rgb'] = (1, 1, 40)
  with pytest.raises(ValueError, match=r'Encoder_modality_token_rgb .* left'):
    weights.convert(_abstract(shapes), **_CLIP)


def test_of_mbt_the_way_of_the_frames_is_taken(rng):
  state = scenic.random_state(scenic.mbt_shapes(_SIZES), rng)
  converted = weights.convert(_checkpoint(state), **_CLIP)
  video = {
    name: value
    for name, value in state.items()
    if '_spec' not in name and name != 'bottleneck'
  }
  clips = _clips(rng)
  _close(
    _logits(converted, clips)['label'], scenic.mae_classifier(video, clips)
  )
  rest = converted.coverage.of('ignored')
  assert {name for row in rest for name in row.theirs} == (
    state.keys() - video.keys()
  )
