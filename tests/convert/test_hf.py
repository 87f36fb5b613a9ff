"""Weights of Hugging Face's transformers in."""

import dataclasses
import pathlib

import numpy as np
import pytest

from tests.convert.hf_golden import (
  ALL,
  CLASSIFIERS,
  LABELS,
  PRETRAINING,
  as_in_memory,
  assert_equal,
  difference,
  load_golden,
  logits_of,
  loss_of,
  prediction_of,
  read,
  with_arrays,
)
from vivit_mae.convert import files, hf_config, weights
from vivit_mae.convert.family import HALF, IMAGENET


def test_pretraining_is_that_of_transformers():
  golden = load_golden(PRETRAINING)
  converted = weights.convert(read(PRETRAINING), epsilons='hugging_face')
  assert converted.has_decoder
  assert converted.description.target['normalise'] == 'channel'
  prediction = prediction_of(converted, golden)
  assert difference(prediction, golden['logits']) < 1e-6
  for normalise, key in (('channel', 'loss'), ('none', 'loss_of_pixels')):
    loss = loss_of(converted, golden, prediction, normalise)
    assert loss == pytest.approx(golden[key], rel=1e-6)


def test_the_published_epsilons_differ_a_little():
  golden = load_golden(PRETRAINING)
  converted = weights.convert(read(PRETRAINING))
  assert converted.model.epsilons == 'published'
  prediction = prediction_of(converted, golden)
  assert 1e-6 < difference(prediction, golden['logits']) < 1e-5
  loss = loss_of(converted, golden, prediction, 'channel')
  assert loss == pytest.approx(golden['loss'], rel=1e-5)
  assert loss != pytest.approx(golden['loss'], rel=1e-6)


@pytest.mark.parametrize('name', CLASSIFIERS)
def test_classifiers_are_those_of_transformers(name):
  golden = load_golden(name)
  vivit = 'vivit' in name
  converted = weights.convert(
    read(name), epsilons='published' if vivit else 'hugging_face'
  )
  assert converted.class_names == LABELS
  assert converted.description.preprocess == (HALF if vivit else IMAGENET)
  assert difference(logits_of(converted, golden), golden['logits']) < 1e-6


@pytest.mark.parametrize('name', ALL)
def test_the_names_in_memory_are_known_too(name):
  checkpoint = as_in_memory(name)
  assert set(checkpoint.arrays) == set(load_golden(name)['state_dict_names'])
  assert set(checkpoint.arrays) != set(read(name).arrays)
  converted, saved = map(weights.convert, (checkpoint, read(name)))
  assert converted.description == saved.description
  assert_equal(converted.params, saved.params)


def test_keys_may_have_a_bias():
  # So from 5.6 to 5.16; it moves all scores of a query alike.
  golden = load_golden(PRETRAINING)
  checkpoint = as_in_memory(PRETRAINING)
  rng = np.random.default_rng(0)
  biases = {
    name.replace('query', 'key'): rng.standard_normal(len(x), np.float32)
    for name, x in checkpoint.arrays.items()
    if name.endswith('query.bias')
  }
  converted = weights.convert(
    with_arrays(checkpoint, {**checkpoint.arrays, **biases}),
    epsilons='hugging_face',
  )
  assert converted.model.qkv_bias == 'qkv'
  assert difference(prediction_of(converted, golden), golden['logits']) < 1e-5


def test_biases_may_be_absent():
  checkpoint = read(PRETRAINING)
  arrays = {
    k: v for k, v in checkpoint.arrays.items() if not k.endswith('_bias')
  }
  converted = weights.convert(with_arrays(checkpoint, arrays))
  assert converted.model.qkv_bias == 'none'


@pytest.mark.parametrize('prefix', ['', 'videomae.'])
def test_a_videomae_alone_is_an_encoder(prefix):
  checkpoint = read(PRETRAINING)
  arrays = {
    prefix + name.removeprefix('videomae.'): value
    for name, value in checkpoint.arrays.items()
    if name.startswith('videomae.')
  }
  alone = weights.convert(with_arrays(checkpoint, arrays))
  whole = weights.convert(checkpoint)
  assert not alone.has_decoder
  assert set(alone.params) == {'encoder'}
  assert_equal(alone.params['encoder'], whole.params['encoder'])


def test_a_vivit_alone_is_an_encoder_without_its_pooler():
  checkpoint = read('vivit_classifier')
  arrays = {
    name.removeprefix('vivit.'): value
    for name, value in checkpoint.arrays.items()
    if name.startswith('vivit.')
  }
  arrays['pooler.dense.weight'] = np.zeros((16, 16), np.float32)
  alone = weights.convert(with_arrays(checkpoint, arrays))
  whole = weights.convert(checkpoint)
  assert_equal(alone.params['encoder'], whole.params['encoder'])
  for field in (
    *('positions', 'class_token', 'qkv_bias', 'gelu', 'heads', 'grid'),
    *('tubelet', 'num_frames'),
  ):
    assert getattr(alone.model, field) == getattr(whole.model, field), field


def _shapes(**arrays):
  shapes = {
    name: np.broadcast_to(np.float32(0), shape)
    for name, shape in arrays.items()
  }
  return files.Checkpoint(shapes, pathlib.Path('model.safetensors'), 'torch')


def _videomae_shapes(width, mlp_dim):
  layer = 'videomae.encoder.layer.{}.'
  return _shapes(
    **{
      'videomae.embeddings.patch_embeddings.projection.weight': (
        width, 3, 2, 16, 16
      ),
      **{
        layer.format(i) + 'layernorm_before.weight': (width,)
        for i in range(12)
      },
      layer.format(0) + 'attention.attention.q_bias': (width,),
      layer.format(0) + 'intermediate.dense.weight': (mlp_dim, width),
      'fc_norm.weight': (width,),
      'classifier.weight': (400, width),
    }
  )  # fmt: skip


@pytest.mark.parametrize(('told', 'taken'), [(16, 6), (6, 6), (12, 12)])
def test_the_small_models_wrong_heads_are_corrected(told, taken):
  checkpoint = dataclasses.replace(
    _videomae_shapes(384, 1536), config={'num_attention_heads': told}
  )
  description = weights.describe(checkpoint)
  assert weights.build(description).heads == taken
  assert len(description.notes) == (told != taken)
  assert all('needs the field heads=16' in note for note in description.notes)


def test_without_a_config_the_published_sizes_hold():
  description = weights.describe(_videomae_shapes(768, 3072))
  model = weights.build(description)
  assert (model.heads, model.depth, model.num_frames) == (12, 12, 16)
  assert model.image_size == (224, 224)
  description = weights.describe(_videomae_shapes(40, 160))
  assert set(description.unknown) == {'heads'}


def test_without_a_config_a_vivit_has_32_frames():
  checkpoint = dataclasses.replace(read('vivit_classifier'), config=None)
  arrays = dict(checkpoint.arrays)
  # 16 tubelets along time, three by three patches.
  arrays['vivit.embeddings.position_embeddings'] = np.zeros(
    (1, 1 + 16 * 9, 16), np.float32
  )
  model = weights.convert(with_arrays(checkpoint, arrays), heads=4).model
  assert (model.num_frames, model.image_size) == (32, (12, 12))
  # 12 tokens are no 16 frames of a square.
  assert set(weights.describe(checkpoint).unknown) == {'heads', 'image_size'}


def test_a_config_that_makes_no_sense_is_refused():
  for field, value in (('hidden_act', 'relu'), ('image_size', [8, 8, 8])):
    with pytest.raises(ValueError, match=rf'{field} in config.json is'):
      hf_config.fields({field: value})
  assert hf_config.fields({'hidden_act': 'gelu_fast'}) == {'gelu': 'tanh'}
