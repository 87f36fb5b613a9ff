"""Foreign weights in our models, against an independent plain-numpy oracle."""

import dataclasses
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
  original_targets,
  originals,
)
from vivit_mae import masking, targets
from vivit_mae.convert import files, weights

SIZES = original_shapes.Sizes()
_FIELDS = {
  'heads': SIZES.heads,
  'num_frames': SIZES.frames,
  'image_size': SIZES.image,
  'position_grid': SIZES.grid,
}
_ROWS = 2


def converted(state, **fields):
  checkpoint = files.Checkpoint(state, pathlib.Path('weights.pth'), 'torch')
  return weights.convert(checkpoint, **{**_FIELDS, **fields})


def pretrained(state, **fields):
  return converted(state, decoder_heads=SIZES.decoder_heads, **fields)


def run(found, *args, method='__call__') -> Any:
  params = jax.tree.map(jnp.asarray, found.params)
  return found.model.apply(
    {'params': params}, *args, deterministic=True, method=method
  )


def ours(video):
  """[b, c, t, h, w] -> [b, t, h, w, c]."""
  return jnp.asarray(np.moveaxis(video, 1, -1))


def assert_close(got, want, tolerance=1e-5):
  assert got.shape == want.shape
  error = np.abs(np.asarray(got, np.float64) - want).max()
  assert error <= tolerance * np.abs(want).max()


@pytest.fixture(scope='module')
def rng():
  return np.random.default_rng(0)


@pytest.fixture(scope='module')
def video(rng):
  return original_states.random_video(SIZES, rng)


@pytest.fixture(scope='module')
def hidden(rng):
  """Tubes, as booleans of each token."""
  tubes = original_tables.tube_mask(SIZES.grid, 0.75, rng)
  return np.tile(tubes, (_ROWS, 1))


def token_mask(hidden, decoded=None):
  def indices(chosen):
    rows = [np.flatnonzero(row) for row in chosen]
    return jnp.asarray(np.stack(rows), jnp.int32)

  return masking.TokenMask(
    indices(~hidden),
    indices(hidden),
    None if decoded is None else indices(decoded),
  )


@pytest.mark.parametrize('options', [{}, {'layer_scale': True, 'cosine': True}])
def test_videomae_pretraining(rng, video, hidden, options):
  state = original_states.videomae_pretrain_state(SIZES, rng, **options)
  found = pretrained(state)
  assert found.has_decoder
  assert found.family == 'VideoMAE, pretraining'
  got = run(found, ours(video), token_mask(hidden))
  want = originals.videomae_pretrain(
    state, video, hidden, SIZES.heads, SIZES.decoder_heads
  )
  assert_close(got.prediction, want)


@pytest.mark.parametrize('cell', range(4))
def test_videomae_v2_pretraining_with_two_masks(rng, video, hidden, cell):
  sizes = dataclasses.replace(SIZES, decoder_hidden=87)  # as odd as the giant's
  state = original_states.videomae_pretrain_state(sizes, rng)
  found = pretrained(state)
  skipped = original_tables.running_cell_mask(SIZES.grid, cell)
  skipped = np.tile(skipped.reshape(-1), (_ROWS, 1))
  mask = token_mask(hidden, ~skipped)
  got = run(found, ours(video), mask).prediction
  want = originals.videomae_pretrain(
    state, video, hidden, SIZES.heads, SIZES.decoder_heads, decode_mask=skipped
  )
  assert_close(got, want)
  labels = original_targets.videomae_targets(video, SIZES.patch)
  expected = original_targets.videomae_v2_loss(want, labels, hidden, skipped)
  mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
  target = targets.PixelTarget(found.model.tubelet).target(
    ours(video) * std + mean, mask.decoded
  )
  counted = masking.decoded_and_masked(mask, SIZES.tokens)
  error = jnp.mean(jnp.square(got - target), axis=2)
  loss = jnp.sum(error * counted) / jnp.sum(counted)
  np.testing.assert_allclose(loss, expected, rtol=1e-6)


@pytest.mark.parametrize(
  ('kind', 'options', 'family'),
  [
    ('mae_st', {}, 'MAE-ST, pretraining'),
    ('mae_st', {'separable': False}, 'MAE-ST, pretraining'),
    ('pyslowfast', {}, 'MAE-ST of PySlowFast, pretraining'),
  ],
)
def test_mae_st_pretraining(rng, video, kind, options, family):
  state = getattr(original_states, f'{kind}_pretrain_state')(
    SIZES, rng, **options
  )
  found = pretrained(state)
  assert found.family == family
  kept = np.stack(
    [
      np.sort(original_tables.random_kept(SIZES.tokens, 0.75, rng))
      for _ in range(_ROWS)
    ]
  )
  hidden = np.ones((_ROWS, SIZES.tokens), bool)
  np.put_along_axis(hidden, kept, False, axis=1)
  mask = token_mask(hidden)
  model = found.model
  encoded = run(found, ours(video), mask, method='encode')
  everything = run(found, encoded, mask, method='decode_all')
  want = getattr(originals, f'{kind}_pretrain')(
    state, video, kept, SIZES.heads, SIZES.decoder_heads
  )
  assert_close(everything, want)
  # What training asks for: the masked tokens alone, and their loss.
  got = run(found, ours(video), mask).prediction
  rows = np.take_along_axis(want, np.asarray(mask.masked)[..., None], 1)
  assert_close(got, rows)
  how = 'stride' if kind == 'pyslowfast' else 'linspace'
  labels = original_targets.mae_st_targets(video, SIZES.patch, how=how)
  expected = original_targets.masked_loss(want, labels, hidden)
  target = targets.build(
    tubelet=model.tubelet, **found.description.target
  ).target(ours(video) * 0.225 + 0.45, mask.masked)
  loss = jnp.mean(jnp.square(got - target))
  np.testing.assert_allclose(loss, expected, rtol=1e-6)


@pytest.mark.parametrize('family', ['videomae', 'mae_st', 'pyslowfast'])
def test_classifiers(rng, video, family):
  make = getattr(original_states, f'{family}_finetune_state')
  state = make(SIZES, rng)
  found = converted(state)
  got = run(found, ours(video)).logits['label']
  want = getattr(originals, f'{family}_finetune')(state, video, SIZES.heads)
  assert_close(got, want)


def test_action_detection_gives_the_tokens_that_it_looks_at(rng, video):
  state = original_states.videomae_finetune_state(SIZES, rng, ava=True)
  found = converted(state)
  features = run(found, ours(video), method='features')
  # Maps are means over time of the normed tokens.
  want = originals.videomae_ava_maps(state, video, SIZES.heads)
  frames, height, width = SIZES.grid
  maps = features.reshape(_ROWS, frames, height, width, -1).mean(1)
  assert_close(maps, want)


@pytest.mark.parametrize('name', original_shapes.PUBLISHED)
def test_every_published_tensor_finds_its_place(name):
  state = {
    their: jax.ShapeDtypeStruct(shape, jnp.float32)
    for their, shape in original_shapes.PUBLISHED[name].items()
  }
  sizes = original_shapes.PUBLISHED_SIZES[name]
  checkpoint = files.Checkpoint(state, pathlib.Path(f'{name}.pth'), 'torch')
  found = weights.convert(checkpoint)
  assert not found.coverage.faults
  assert len({t for r in found.coverage.rows for t in r.theirs}) == len(state)
  model = found.model
  assert (model.depth, model.width) == (sizes.depth, sizes.width)
  assert model.heads == sizes.heads
  assert model.grid == sizes.grid
  if 'pretrain' in name:
    assert model.decoder_heads == sizes.decoder_heads
    assert model.decoder_mlp_dim == sizes.decoder_hidden
  else:
    assert model.num_classes == sizes.classes


def test_what_is_missing_or_unknown_is_refused_with_a_table(rng):
  state = original_states.videomae_pretrain_state(SIZES, rng)
  state['teacher.weight'] = np.zeros((2, 3), np.float32)
  del state['decoder.norm.bias']
  state['encoder.norm.weight'] = np.zeros(7, np.float32)
  with pytest.raises(ValueError, match='does not fit') as error:
    pretrained(state)
  text = str(error.value)
  for line in (
    'teacher.weight +- +2x3 +left',
    '- +decoder/norm/bias +20 +missing',
    r'encoder.norm.weight +encoder/norm/scale +7 +misfit +should be \(40,\)',
  ):
    assert re.search(line, text)
  found = pretrained(state, partial=True)
  assert 'bias' not in found.params['decoder']['norm']


def test_another_architecture_gets_one_sentence():
  state = {f'layer{i}.conv.weight': np.zeros((3, 3)) for i in range(9)}
  with pytest.raises(ValueError, match=r'weights\.pth holds no model that is'):
    converted(state)
