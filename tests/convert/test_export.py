"""Our models in the formats of others."""

import json

import numpy as np
import pytest

from tests.convert.hf_golden import (
  ALL,
  FOLDER,
  PRETRAINING,
  as_in_memory,
  assert_equal,
  read,
  with_arrays,
)
from vivit_mae.convert import export, files, weights
from vivit_mae.convert.family import HALF, IMAGENET
from vivit_mae.models import variants


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


@pytest.mark.parametrize('name', ALL)
def test_there_and_back_is_bitwise(name, tmp_path):
  checkpoint = read(name)
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
  assert_equal(again.params, converted.params)
  assert again.description == converted.description
  assert again.class_names == converted.class_names


@pytest.mark.parametrize('name', ALL)
def test_the_config_says_what_that_of_transformers_says(name, tmp_path):
  converted = weights.convert(read(name), epsilons='hugging_face')
  _export(converted, tmp_path)
  ours, theirs = (
    json.loads((folder / 'config.json').read_text())
    for folder in (tmp_path, FOLDER / name)
  )
  assert ours.pop('qkv_bias') == theirs.get('qkv_bias', theirs.get('qv_bias'))
  if 'vivit' in name:
    theirs['layer_norm_eps'] = 1e-12
  assert ours == {key: theirs[key] for key in ours}


def test_the_config_names_the_published_epsilon_and_the_target(tmp_path):
  converted = weights.convert(read(PRETRAINING))
  _export(converted, tmp_path, target_normalise='none')
  config = json.loads((tmp_path / 'config.json').read_text())
  assert config['layer_norm_eps'] == 1e-6
  assert config['norm_pix_loss'] is False
  assert weights.describe(files.read(tmp_path)).target['normalise'] == 'none'


@pytest.mark.parametrize('name', ['videomae_classifier', 'vivit_classifier'])
def test_the_processor_normalises_as_we_do(name, tmp_path):
  converted = weights.convert(read(name))
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
  converted = weights.convert(read('vivit_classifier'))
  _export(converted, tmp_path, class_names=None)
  assert weights.convert(files.read(tmp_path)).class_names is None
  with pytest.raises(ValueError, match=r'2 class_names.*5 classes'):
    _export(converted, tmp_path, class_names=('a', 'b'), overwrite=True)


def test_an_encoder_alone_leaves_too(tmp_path):
  converted = weights.convert(read(PRETRAINING))
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
    assert_equal(again.params, encoder)
  config = json.loads((tmp_path / 'hf' / 'config.json').read_text())
  assert config['architectures'] == ['VideoMAEModel']


# What a file by the names of VideoMAE's repository does not tell.
_SIZES = {'heads': 4, 'num_frames': 4, 'image_size': (8, 12)}


@pytest.mark.parametrize('name', [PRETRAINING, 'videomae_classifier'])
def test_the_names_of_the_repository_are_written(name, tmp_path):
  converted = weights.convert(read(name))
  paths = export.export(
    converted.params, converted.model, tmp_path, format='videomae'
  )
  assert [path.name for path in paths] == ['model.safetensors']
  written = files.read(tmp_path)
  layer = 'encoder.blocks.1' if name == PRETRAINING else 'blocks.1'
  assert f'{layer}.attn.q_bias' in written.arrays
  fields = _SIZES
  if name == PRETRAINING:
    fields = {**_SIZES, 'decoder_heads': 3}
  again = weights.convert(written, **fields, position_grid=converted.model.grid)
  assert_equal(again.params, converted.params)


def test_a_bias_of_the_keys_is_left_out(tmp_path):
  checkpoint = as_in_memory(PRETRAINING)
  biases = {
    name.replace('query', 'key'): np.ones(len(x), np.float32)
    for name, x in checkpoint.arrays.items()
    if name.endswith('query.bias')
  }
  converted = weights.convert(
    with_arrays(checkpoint, {**checkpoint.arrays, **biases})
  )
  _export(converted, tmp_path)
  assert set(files.read(tmp_path).arrays) == set(read(PRETRAINING).arrays)


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
  converted = weights.convert(read(PRETRAINING))
  with pytest.raises(ValueError, match="target_normalise 'patch'"):
    _export(converted, tmp_path, target_normalise='patch')
  with pytest.raises(ValueError, match=r'statistics of pixels.*only'):
    _export(converted, tmp_path, target_normalise='none', preprocess=HALF)
  with pytest.raises(ValueError, match='needs preprocess'):
    _export(converted, tmp_path, preprocess=None)


def test_parameters_of_another_model_are_refused(tmp_path):
  converted = weights.convert(read(PRETRAINING))
  for params, model in (
    (converted.params, converted.model.clone(depth=3)),
    (converted.params, converted.model.clone(decoder_mlp_dim=8)),
    ({}, converted.model),
  ):
    with pytest.raises(ValueError, match='not those of the model'):
      export.export(params, model, tmp_path, format='hf', preprocess=IMAGENET)


def test_nothing_is_overwritten_unasked(tmp_path):
  converted = weights.convert(read(PRETRAINING))
  (tmp_path / 'config.json').write_text('{}')
  with pytest.raises(ValueError, match=r'config\.json would be replaced'):
    _export(converted, tmp_path)
  assert [path.name for path in tmp_path.iterdir()] == ['config.json']
  _export(converted, tmp_path, overwrite=True)
  assert len(list(tmp_path.iterdir())) == 3
