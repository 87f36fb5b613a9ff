"""Weights of Hugging Face's transformers, in and out.

The golden files are written by tests/data/make_hf_golden.py.
"""

import dataclasses
import functools
import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vivit_mae import masking, targets
from vivit_mae.convert import export, files, hf_config, weights
from vivit_mae.convert.family import HALF, IMAGENET
from vivit_mae.models import variants

_FOLDER = pathlib.Path(__file__).parents[1] / 'data' / 'hf'
_PRETRAINING = 'videomae_pretraining'
_CLASSIFIERS = (
  'videomae_classifier',
  'videomae_first_classifier',
  'vivit_classifier',
)
_ALL = (_PRETRAINING, *_CLASSIFIERS)
_LABELS = ('draw', 'fold', 'pour', 'stir', 'turn')

# What transformers calls the arrays in memory.
_LATER = (
  (r'attention\.attention\.q_bias', 'attention.attention.query.bias'),
  (r'attention\.attention\.v_bias', 'attention.attention.value.bias'),
)
_LATER_VIVIT = (
  (r'encoder\.layer\.', 'layers.'),
  (r'attention\.attention\.(q|k|v)\w+', r'attention.\1_proj'),
  (r'attention\.output\.dense', 'attention.o_proj'),
  (r'intermediate\.dense', 'mlp.fc1'),
  (r'output\.dense', 'mlp.fc2'),
)


@functools.cache
def _golden(name):
  with np.load(_FOLDER / name / 'golden.npz') as file:
    return dict(file)


@functools.cache
def _read(name):
  return files.read(_FOLDER / name)


def _with(checkpoint, arrays):
  return dataclasses.replace(checkpoint, arrays=arrays)


def _renamed(name):
  """The checkpoint by the names of a `state_dict`."""
  checkpoint = _read(name)
  renamed = {}
  for key, value in checkpoint.arrays.items():
    for old, new in _LATER_VIVIT if 'vivit' in name else _LATER:
      key = re.sub(old, new, key)
    renamed[key] = value
  return _with(checkpoint, renamed)


def _inputs(converted, golden):
  statistics = converted.description.preprocess
  mean, std = (np.float32(statistics[k]) for k in ('mean', 'std'))
  return jnp.asarray((golden['video'] / np.float32(255) - mean) / std)


def _mask(golden):
  visible, masked = (
    jnp.asarray([np.flatnonzero(row) for row in rows])
    for rows in (~golden['mask'], golden['mask'])
  )
  return masking.TokenMask(visible=visible, masked=masked)


def _apply(converted, *args):
  def run(params):
    return converted.model.apply({'params': params}, *args, deterministic=True)

  return jax.jit(run)(converted.params)


def _logits(converted, golden):
  return _apply(converted, _inputs(converted, golden)).logits['label']


def _prediction(converted, golden):
  video, mask = _inputs(converted, golden), _mask(golden)
  return _apply(converted, video, mask).prediction


def _loss(converted, golden, prediction, normalise):
  target = targets.build(
    tubelet=converted.model.tubelet, normalise=normalise
  ).target(jnp.asarray(golden['video'] / np.float32(255)), _mask(golden).masked)
  return float(jnp.square(prediction - target).mean())


def _difference(got, wanted):
  return float(np.abs(got - wanted).max() / np.abs(wanted).max())


def test_pretraining_is_that_of_transformers():
  golden = _golden(_PRETRAINING)
  converted = weights.convert(_read(_PRETRAINING), epsilons='hugging_face')
  assert converted.has_decoder
  assert converted.description.target['normalise'] == 'channel'
  prediction = _prediction(converted, golden)
  assert _difference(prediction, golden['logits']) < 1e-6
  for normalise, key in (('channel', 'loss'), ('none', 'loss_of_pixels')):
    loss = _loss(converted, golden, prediction, normalise)
    assert loss == pytest.approx(golden[key], rel=1e-6)


def test_the_published_epsilons_differ_a_little():
  golden = _golden(_PRETRAINING)
  converted = weights.convert(_read(_PRETRAINING))
  assert converted.model.epsilons == 'published'
  prediction = _prediction(converted, golden)
  assert 1e-6 < _difference(prediction, golden['logits']) < 1e-5
  loss = _loss(converted, golden, prediction, 'channel')
  assert loss == pytest.approx(golden['loss'], rel=1e-5)
  assert loss != pytest.approx(golden['loss'], rel=1e-6)


@pytest.mark.parametrize('name', _CLASSIFIERS)
def test_classifiers_are_those_of_transformers(name):
  golden = _golden(name)
  vivit = 'vivit' in name
  converted = weights.convert(
    _read(name), epsilons='published' if vivit else 'hugging_face'
  )
  assert converted.class_names == _LABELS
  assert converted.description.preprocess == (HALF if vivit else IMAGENET)
  assert _difference(_logits(converted, golden), golden['logits']) < 1e-6


@pytest.mark.parametrize('name', _ALL)
def test_the_names_in_memory_are_known_too(name):
  checkpoint = _renamed(name)
  assert set(checkpoint.arrays) == set(_golden(name)['state_dict_names'])
  assert set(checkpoint.arrays) != set(_read(name).arrays)
  converted, saved = map(weights.convert, (checkpoint, _read(name)))
  assert converted.description == saved.description
  _assert_equal(converted.params, saved.params)


def test_keys_may_have_a_bias():
  # So from 5.6 to 5.16; it moves all scores of a query alike.
  golden = _golden(_PRETRAINING)
  checkpoint = _renamed(_PRETRAINING)
  rng = np.random.default_rng(0)
  biases = {
    name.replace('query', 'key'): rng.standard_normal(len(x), np.float32)
    for name, x in checkpoint.arrays.items()
    if name.endswith('query.bias')
  }
  converted = weights.convert(
    _with(checkpoint, {**checkpoint.arrays, **biases}), epsilons='hugging_face'
  )
  assert converted.model.qkv_bias == 'qkv'
  assert _difference(_prediction(converted, golden), golden['logits']) < 1e-5


def test_biases_may_be_absent():
  checkpoint = _read(_PRETRAINING)
  arrays = {
    k: v for k, v in checkpoint.arrays.items() if not k.endswith('_bias')
  }
  converted = weights.convert(_with(checkpoint, arrays))
  assert converted.model.qkv_bias == 'none'


@pytest.mark.parametrize('prefix', ['', 'videomae.'])
def test_a_videomae_alone_is_an_encoder(prefix):
  checkpoint = _read(_PRETRAINING)
  arrays = {
    prefix + name.removeprefix('videomae.'): value
    for name, value in checkpoint.arrays.items()
    if name.startswith('videomae.')
  }
  alone = weights.convert(_with(checkpoint, arrays))
  whole = weights.convert(checkpoint)
  assert not alone.has_decoder
  assert set(alone.params) == {'encoder'}
  _assert_equal(alone.params['encoder'], whole.params['encoder'])


def test_a_vivit_alone_is_an_encoder_without_its_pooler():
  checkpoint = _read('vivit_classifier')
  arrays = {
    name.removeprefix('vivit.'): value
    for name, value in checkpoint.arrays.items()
    if name.startswith('vivit.')
  }
  arrays['pooler.dense.weight'] = np.zeros((16, 16), np.float32)
  alone = weights.convert(_with(checkpoint, arrays))
  whole = weights.convert(checkpoint)
  _assert_equal(alone.params['encoder'], whole.params['encoder'])
  for field in (
    *('positions', 'class_token', 'qkv_bias', 'gelu', 'heads', 'grid'),
    *('tubelet', 'num_frames'),
  ):
    assert getattr(alone.model, field) == getattr(whole.model, field), field


def _assert_equal(got, wanted):
  jax.tree.map(np.testing.assert_array_equal, got, wanted)


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
  checkpoint = dataclasses.replace(_read('vivit_classifier'), config=None)
  arrays = dict(checkpoint.arrays)
  # 16 tubelets along time, three by three patches.
  arrays['vivit.embeddings.position_embeddings'] = np.zeros(
    (1, 1 + 16 * 9, 16), np.float32
  )
  model = weights.convert(_with(checkpoint, arrays), heads=4).model
  assert (model.num_frames, model.image_size) == (32, (12, 12))
  # 12 tokens are no 16 frames of a square.
  assert set(weights.describe(checkpoint).unknown) == {'heads', 'image_size'}


def test_a_config_that_makes_no_sense_is_refused():
  for field, value in (('hidden_act', 'relu'), ('image_size', [8, 8, 8])):
    with pytest.raises(ValueError, match=rf'{field} in config.json is'):
      hf_config.fields({field: value})
  assert hf_config.fields({'hidden_act': 'gelu_fast'}) == {'gelu': 'tanh'}


def _export(converted, folder, **options):
  return export.export(
    converted.params,
    converted.model,
    folder,
    **{
      'format': 'hf',
      'preprocess': converted.description.preprocess,
      'class_names': converted.class_names,
      **options,
    },
  )


@pytest.mark.parametrize('name', _ALL)
def test_there_and_back_is_bitwise(name, tmp_path):
  checkpoint = _read(name)
  converted = weights.convert(checkpoint)
  paths = _export(converted, tmp_path / 'new')
  assert [path.name for path in paths] == [
    'model.safetensors', 'config.json', 'preprocessor_config.json'
  ]  # fmt: skip
  written = files.read(tmp_path / 'new')
  assert written.arrays.keys() == checkpoint.arrays.keys()
  for key, value in checkpoint.arrays.items():
    np.testing.assert_array_equal(written.arrays[key], value)
  again = weights.convert(written)
  _assert_equal(again.params, converted.params)
  assert again.description == converted.description
  assert again.class_names == converted.class_names


@pytest.mark.parametrize('name', _ALL)
def test_the_config_says_what_that_of_transformers_says(name, tmp_path):
  converted = weights.convert(_read(name), epsilons='hugging_face')
  _export(converted, tmp_path)
  ours, theirs = (
    json.loads((folder / 'config.json').read_text())
    for folder in (tmp_path, _FOLDER / name)
  )
  assert ours.pop('qkv_bias') == theirs.get('qkv_bias', theirs.get('qv_bias'))
  if 'vivit' in name:
    theirs['layer_norm_eps'] = 1e-12
  assert ours == {key: theirs[key] for key in ours}


def test_the_config_names_the_published_epsilon_and_the_target(tmp_path):
  converted = weights.convert(_read(_PRETRAINING))
  _export(converted, tmp_path, target_normalise='none')
  config = json.loads((tmp_path / 'config.json').read_text())
  assert config['layer_norm_eps'] == 1e-6
  assert config['norm_pix_loss'] is False
  assert weights.describe(files.read(tmp_path)).target['normalise'] == 'none'


@pytest.mark.parametrize('name', ['videomae_classifier', 'vivit_classifier'])
def test_the_processor_normalises_as_we_do(name, tmp_path):
  converted = weights.convert(_read(name))
  statistics = {'mean': (0.4, 0.5, 0.6), 'std': (0.2, 0.25, 0.3)}
  _export(converted, tmp_path, preprocess=statistics)
  config = json.loads((tmp_path / 'preprocessor_config.json').read_text())
  assert config['crop_size'] == {'height': 8, 'width': 12}
  pixels = np.array([[0, 100, 255]])
  theirs = pixels * config['rescale_factor'] - config.get('offset', False)
  theirs = (theirs - config['image_mean']) / config['image_std']
  ours = (pixels / 255 - statistics['mean']) / statistics['std']
  np.testing.assert_allclose(theirs, ours, atol=1e-12)


def test_names_that_nobody_knows_stay_unknown(tmp_path):
  converted = weights.convert(_read('vivit_classifier'))
  _export(converted, tmp_path, class_names=None)
  assert weights.convert(files.read(tmp_path)).class_names is None
  with pytest.raises(ValueError, match=r'2 class_names.*5 classes'):
    _export(converted, tmp_path, class_names=('a', 'b'), overwrite=True)


def test_an_encoder_alone_leaves_too(tmp_path):
  converted = weights.convert(_read(_PRETRAINING))
  encoder = {'encoder': converted.params['encoder']}
  for format in export.FORMATS:
    export.export(
      encoder,
      converted.model,
      tmp_path / format,
      format=format,
      preprocess=IMAGENET,
    )
    fields = {} if format == 'hf' else _SIZES
    again = weights.convert(files.read(tmp_path / format), **fields)
    _assert_equal(again.params, encoder)
  config = json.loads((tmp_path / 'hf' / 'config.json').read_text())
  assert config['architectures'] == ['VideoMAEModel']


# What a file by the names of VideoMAE's repository does not tell.
_SIZES = {'heads': 4, 'num_frames': 4, 'image_size': (8, 12)}


@pytest.mark.parametrize('name', [_PRETRAINING, 'videomae_classifier'])
def test_the_names_of_the_repository_are_written(name, tmp_path):
  converted = weights.convert(_read(name))
  paths = export.export(
    converted.params, converted.model, tmp_path, format='videomae'
  )
  assert [path.name for path in paths] == ['model.safetensors']
  written = files.read(tmp_path)
  layer = 'encoder.blocks.1' if name == _PRETRAINING else 'blocks.1'
  assert f'{layer}.attn.q_bias' in written.arrays
  fields = _SIZES
  if name == _PRETRAINING:
    fields = {**_SIZES, 'decoder_heads': 3}
  again = weights.convert(written, **fields, position_grid=converted.model.grid)
  _assert_equal(again.params, converted.params)


def test_a_bias_of_the_keys_is_left_out(tmp_path):
  checkpoint = _renamed(_PRETRAINING)
  biases = {
    name.replace('query', 'key'): np.ones(len(x), np.float32)
    for name, x in checkpoint.arrays.items()
    if name.endswith('query.bias')
  }
  converted = weights.convert(
    _with(checkpoint, {**checkpoint.arrays, **biases})
  )
  _export(converted, tmp_path)
  assert set(files.read(tmp_path).arrays) == set(_read(_PRETRAINING).arrays)


def _build(task='mae', **fields):
  fields = {'width': 12, 'depth': 1, 'heads': 2, 'mlp_dim': 12, **fields}
  if task == 'mae':
    return variants.build('Ti/16x2', **fields)
  return variants.build_classifier('Ti/16x2', **{'num_classes': 3, **fields})


_VIVIT = {'recipe': 'vivit'}


@pytest.mark.parametrize(
  ('format', 'task', 'fields', 'message'),
  [
    ('hf', 'mae', {'factorisation': 'encoder'}, "factorisation 'encoder'"),
    ('hf', 'mae', {'recipe': 'mae_st'}, "positions 'separable'"),
    ('hf', 'mae', {'layer_scale': 1e-5}, 'layer_scale 1e-05'),
    ('hf', 'mae', {'cosine_attention': True}, 'cosine_attention True'),
    ('hf', 'mae', {'decoder_positions': 'learned_1d'}, 'decoder_positions'),
    ('hf', 'mae', {'bridge_bias': True}, 'bridge_bias True'),
    ('hf', 'mae', {'target_dim': 768}, 'target_dim is 768'),
    ('hf', 'mae', {'channels': 1}, 'channels 1'),
    ('hf', 'mae', {'tubelet': (2, 16, 8)}, 'square patches'),
    ('hf', 'mae', {'position_grid': (4, 14, 14)}, 'resized from'),
    ('hf', 'classify', {'recipe': 'mae_st'}, "positions 'separable'"),
    ('hf', 'classify', {'norm': 'before_pooling'}, "'mean' with norm 'before"),
    ('hf', 'classify', {'head': 'attentive'}, "head 'attentive'"),
    ('hf', 'classify', {'embedding': 'uniform_frames'}, 'uniform_frames'),
    (
      'hf',
      'classify',
      {'num_classes': (('noun', 2), ('verb', 2))},
      'has one head',
    ),
    ('hf', 'classify', {'representation_size': 4}, 'representation_size 4'),
    ('hf', 'classify', {'probe_batch_norm': True}, 'probe_batch_norm'),
    ('hf', 'classify', {**_VIVIT, 'qkv_bias': 'qv'}, "ViViT cannot.*'qv'"),
    (
      'hf',
      'classify',
      {**_VIVIT, 'factorisation': 'encoder'},
      "ViViT cannot express factorisation 'encoder'",
    ),
    ('videomae', 'classify', _VIVIT, "positions 'learned_1d'"),
    ('videomae', 'mae', {'gelu': 'tanh'}, "gelu 'tanh'; 'erf' would do"),
    ('videomae', 'mae', {'qkv_bias': 'none'}, "qkv_bias 'none'"),
    ('videomae', 'mae', {'epsilons': 'hugging_face'}, 'epsilons'),
    ('onnx', 'mae', {}, "'onnx' is unknown"),
  ],
)
def test_what_cannot_be_expressed_is_refused(
  format, task, fields, message, tmp_path
):
  with pytest.raises(ValueError, match=message):
    export.export(
      {},
      _build(task, **fields),
      tmp_path / 'out',
      format=format,
      preprocess=IMAGENET,
    )
  assert not (tmp_path / 'out').exists()


def test_the_loss_has_to_be_that_of_transformers(tmp_path):
  converted = weights.convert(_read(_PRETRAINING))
  with pytest.raises(ValueError, match="target_normalise 'patch'"):
    _export(converted, tmp_path, target_normalise='patch')
  with pytest.raises(ValueError, match=r'statistics of pixels.*only'):
    _export(converted, tmp_path, target_normalise='none', preprocess=HALF)
  with pytest.raises(ValueError, match='needs preprocess'):
    _export(converted, tmp_path, preprocess=None)


def test_parameters_of_another_model_are_refused(tmp_path):
  converted = weights.convert(_read(_PRETRAINING))
  for params, model in (
    (converted.params, converted.model.clone(depth=3)),
    (converted.params, converted.model.clone(decoder_mlp_dim=8)),
    ({}, converted.model),
  ):
    with pytest.raises(ValueError, match='not those of the model'):
      export.export(params, model, tmp_path, format='hf', preprocess=IMAGENET)


def test_nothing_is_overwritten_unasked(tmp_path):
  converted = weights.convert(_read(_PRETRAINING))
  (tmp_path / 'config.json').write_text('{}')
  with pytest.raises(ValueError, match=r'config\.json would be overwritten'):
    _export(converted, tmp_path)
  assert [path.name for path in tmp_path.iterdir()] == ['config.json']
  _export(converted, tmp_path, overwrite=True)
  assert len(list(tmp_path.iterdir())) == 3
