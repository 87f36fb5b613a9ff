import dataclasses
import json
import logging
import pathlib
from typing import Any

import jax
import numpy as np
import pytest

import vivit_mae
from tests.convert import original_shapes, original_states, torch_files
from vivit_mae import command
from vivit_mae.convert import class_names
from vivit_mae.evaluation import reconstruction
from vivit_mae.tasks import classify, mae
from vivit_mae.tools import convert
from vivit_mae.training import loop

_CONFIGS = pathlib.Path(__file__).parents[1] / 'configs'

_SIZES = original_shapes.Sizes(image=(16, 16), frames=4)
_FIELDS: dict[str, Any] = {
  'heads': _SIZES.heads,
  'num_frames': _SIZES.frames,
  'image_size': _SIZES.image,
  'position_grid': _SIZES.grid,
}
_DECODER: dict[str, Any] = {'decoder_heads': _SIZES.decoder_heads}


def _state(kind, seed=0):
  make = getattr(original_states, f'{kind}_state')
  return make(_SIZES, np.random.default_rng(seed))


def _file(path, state):
  torch_files.write_zip(path, {'model': state, 'epoch': 3})
  return path


@pytest.fixture(scope='module')
def pretrained(tmp_path_factory):
  path = tmp_path_factory.mktemp('weights') / 'checkpoint-1599.pth'
  return _file(path, _state('videomae_pretrain'))


def test_a_file_gives_model_parameters_and_info(pretrained):
  model, params, info = vivit_mae.load(pretrained, **_FIELDS, **_DECODER)
  assert isinstance(info.task, mae.MaskedAutoencoding)
  assert (info.num_frames, info.image_size) == (4, (16, 16))
  assert info.mean == (0.485, 0.456, 0.406)
  assert info.class_names is None
  assert info.stride is None
  assert info.has_decoder
  assert info.coverage is not None
  assert not info.coverage.faults
  assert set(params) == {'encoder', 'bridge', 'mask_token', 'decoder'}
  assert model is info.task.model


def test_reconstruction_and_features_of_a_video(
  pretrained, shared_videos, tmp_path
):
  loaded = vivit_mae.load(pretrained, **_FIELDS, **_DECODER)
  path = f'{shared_videos}/awkward/k400_abseiling.mp4'
  video = vivit_mae.read_clip(path, loaded.info)
  assert video.shape == (1, 4, 16, 16, 3)
  assert video.std() > 5
  features = loaded.features(video)
  assert features.shape == (1, 32, 40)
  result = loaded.reconstruct(video, ratio=0.75)
  assert np.isfinite(result.psnr).all()
  one = jax.tree.map(lambda x: np.asarray(x)[0], result)
  assert isinstance(loaded.info.task, mae.MaskedAutoencoding)
  picture = reconstruction.picture(loaded.info.task, one)
  assert picture.ndim == 3
  assert picture.std() > 5
  # Masked places are grey, the others the video's own.
  grey = (one.masked == 128).all(-1).mean()
  assert 0.7 < grey < 0.8


def test_without_a_decoder_features_work_and_a_picture_is_refused(
  pretrained, tmp_path
):
  whole = _state('videomae_pretrain')
  encoder = {k: v for k, v in whole.items() if k.startswith('encoder.')}
  path = _file(tmp_path / 'encoder.pth', encoder)
  loaded = vivit_mae.load(path, **_FIELDS)
  assert set(loaded.params) == {'encoder'}
  assert not loaded.info.has_decoder
  video = np.random.default_rng(0).integers(0, 256, (2, 4, 16, 16, 3), np.uint8)
  both = vivit_mae.load(pretrained, **_FIELDS, **_DECODER)
  np.testing.assert_array_equal(loaded.features(video), both.features(video))
  with pytest.raises(ValueError, match=r'encoder\.pth .* holds no decoder'):
    loaded.reconstruct(video)


def test_other_clip_lengths_resize_the_positions(pretrained):
  fields = {**_FIELDS, 'num_frames': 8}
  loaded = vivit_mae.load(pretrained, **fields, **_DECODER)
  video = np.zeros((1, 8, 16, 16, 3), np.uint8)
  assert loaded.features(video).shape == (1, 64, 40)
  state = _state('mae_st_pretrain')
  path = _file(pretrained.parent / 'mae_st.pth', state)
  del fields['position_grid']
  loaded = vivit_mae.load(path, **fields, **_DECODER)
  table = np.asarray(loaded.params['encoder']['position_time'])
  want = state['pos_embed_temporal'][0]
  assert table.shape == (4, 40)
  np.testing.assert_allclose(table[[0, -1]], want[[0, -1]], rtol=1e-6)
  assert loaded.info.coverage is not None
  (row, *_) = loaded.info.coverage.of('resized')
  assert row.theirs[0].endswith('pos_embed_temporal')


def test_a_classifier_knows_its_classes_only_where_they_are_told(tmp_path):
  path = _file(tmp_path / 'ft.pth', _state('videomae_finetune'))
  loaded = vivit_mae.load(path, **_FIELDS)
  assert isinstance(loaded.info.task, classify.Classification)
  assert loaded.info.class_names is None
  video = np.zeros((1, 4, 16, 16, 3), np.uint8)
  assert loaded.logits(video)['label'].shape == (1, 7)
  letters = tuple('abcdefg')
  named = vivit_mae.load(path, class_names=letters, **_FIELDS)
  assert named.info.class_names == letters
  with pytest.raises(ValueError, match=r"'label': 7.*'label': 400"):
    vivit_mae.load(path, class_names='kinetics_400', **_FIELDS)
  with pytest.raises(ValueError, match='holds no decoder'):
    loaded.reconstruct(video)


def test_a_pretraining_has_no_classes(pretrained):
  loaded = vivit_mae.load(pretrained, **_FIELDS, **_DECODER)
  with pytest.raises(ValueError, match='has no classes: fine-tune'):
    loaded.logits(np.zeros((1, 4, 16, 16, 3), np.uint8))
  with pytest.raises(ValueError, match='has no classes'):
    vivit_mae.load(pretrained, class_names=('a',), **_FIELDS, **_DECODER)


def test_what_is_not_there_is_an_error_that_names_the_nearest():
  with pytest.raises(ValueError, match='videomae_v1_b_k400_pretrain'):
    vivit_mae.load('videomae_v1_b_k400')


def test_what_the_file_does_not_tell_is_asked_for(pretrained):
  with pytest.raises(ValueError, match=r'field heads .* 40 wide'):
    vivit_mae.load(pretrained)


def test_partial_loads_are_asked_for(tmp_path):
  state = _state('videomae_pretrain')
  del state['encoder.norm.weight']
  path = _file(tmp_path / 'part.pth', state)
  with pytest.raises(ValueError, match=r'partial') as error:
    vivit_mae.load(path, **_FIELDS, **_DECODER)
  assert 'encoder/norm/scale' in str(error.value)
  loaded = vivit_mae.load(path, partial=True, **_FIELDS, **_DECODER)
  assert 'scale' not in loaded.params['encoder']['norm']


def _train(name, workdir, **model):
  config = command.load(f'{_CONFIGS / name}.py:runlocal')
  init_from = model.pop('init_from', '')
  config.init_from.path = str(init_from)
  config.model.update(model)
  loop.train_and_evaluate(config, workdir)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A finished run of a few steps, of a classifier."""
  path = tmp_path_factory.mktemp('runs') / 'classifier'
  _train('demo_finetune', path)
  return path


def test_a_workdir_knows_model_weights_and_classes(run):
  _, params, info = vivit_mae.load(run)
  assert isinstance(info.task, classify.Classification)
  assert info.class_names is not None
  assert len(info.class_names) == 12
  assert set(params) == {'encoder', 'head'}
  video = np.zeros((1, *(info.num_frames, *info.image_size), 3), np.uint8)
  logits = vivit_mae.load(run).logits(video)['label']
  assert logits.shape == (1, 12)
  with pytest.raises(ValueError, match='loaded as it was trained'):
    vivit_mae.load(run, num_frames=32)


def test_a_workdir_through_a_folder_of_our_own(run, tmp_path):
  first = vivit_mae.load(run)
  assert convert.main([str(run), str(tmp_path), '--format=vivit_mae']) == 0
  again = vivit_mae.load(tmp_path)
  jax.tree.map(np.testing.assert_array_equal, first.params, again.params)
  assert again.info.class_names == first.info.class_names
  assert again.info.stride == first.info.stride
  assert again.model == first.model
  assert again.info.mean == first.info.mean
  # What a user made is not replaced unless asked for.
  assert convert.main([str(run), str(tmp_path), '--format=vivit_mae']) == 1


def test_the_command_prints_a_table(pretrained, tmp_path, capsys):
  words = [str(pretrained), str(tmp_path / 'out'), '--model.heads=4']
  words += ['--model.num_frames=4', '--model.image_size=(16, 16)']
  assert convert.main(words) == 1
  assert 'decoder_heads' in capsys.readouterr().err
  words += ['--model.decoder_heads=2', '--model.position_grid=(2, 4, 4)']
  assert convert.main(words) == 0
  said = capsys.readouterr().out
  assert 'encoder.blocks.0-2.attn.q_bias' in said
  assert '75 tensors read, 75 matched' in said
  assert vivit_mae.load(tmp_path / 'out').info.has_decoder


def test_training_starts_from_a_foreign_file(pretrained, tmp_path, caplog):
  """The table says what was loaded, and the first loss is the file's."""
  with caplog.at_level(logging.INFO, 'vivit_mae'):
    _train(
      'own_videos_continue',
      tmp_path,
      init_from=pretrained,
      variant='B/4x2',
      image_size=(16, 16),
      position_grid=(2, 4, 4),
      width=_SIZES.width,
      depth=_SIZES.depth,
      heads=_SIZES.heads,
      mlp_dim=_SIZES.hidden,
      decoder_width=_SIZES.decoder_width,
      decoder_depth=_SIZES.decoder_depth,
      decoder_heads=_SIZES.decoder_heads,
      decoder_mlp_dim=_SIZES.decoder_hidden,
    )
  assert 'weights: config.init_from, VideoMAE, pretraining' in caplog.text
  assert 'loaded 75 of the 75 parameter arrays' in caplog.text


def test_what_is_written_of_our_own_says_what_it_is(run, tmp_path):
  convert.main([str(run), str(tmp_path), '--format=vivit_mae'])
  about = json.loads((tmp_path / 'config.json').read_text())['vivit_mae']
  assert about['task'] == 'classify'
  (tmp_path / 'config.json').unlink()
  with pytest.raises(ValueError, match=r'needs the config\.json beside it'):
    vivit_mae.load(tmp_path)


def test_the_classes_of_kinetics_400_are_taken_from_a_head_of_710(tmp_path):
  sizes = dataclasses.replace(_SIZES, classes=710)
  rng = np.random.default_rng(0)
  state = original_states.videomae_finetune_state(sizes, rng)
  path = _file(tmp_path / 'k710.pth', state)
  whole = vivit_mae.load(path, **_FIELDS)
  taken = vivit_mae.load(path, class_names='kinetics_400', **_FIELDS)
  video = rng.integers(0, 256, (1, 4, 16, 16, 3), np.uint8)
  rows = class_names.rows_of_710('kinetics_400')
  np.testing.assert_allclose(
    taken.logits(video)['label'],
    np.asarray(whole.logits(video)['label'])[:, rows],
    rtol=1e-5,
  )
  assert taken.info.class_names == class_names.class_names('kinetics_400')
  chosen = [7, 3]
  some = vivit_mae.load(path, class_rows=chosen, **_FIELDS)
  np.testing.assert_allclose(
    some.logits(video)['label'],
    np.asarray(whole.logits(video)['label'])[:, chosen],
    rtol=1e-5,
  )
  with pytest.raises(ValueError, match='from 0 to 709'):
    vivit_mae.load(path, class_rows=[710], **_FIELDS)
  with pytest.raises(ValueError, match='kinetics_400'):
    vivit_mae.load(path, class_names='something_something_v2', **_FIELDS)
