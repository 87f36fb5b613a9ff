import logging

import jax
import numpy as np
import pytest

from tests.convert import original_shapes, original_states, torch_files
from vivit_mae.convert import weights as weights_lib
from vivit_mae.models import variants
from vivit_mae.training import foreign

_IMAGENET = {'mean': (0.485, 0.456, 0.406), 'std': (0.229, 0.224, 0.225)}
_HOW = {'kernel': 'average', 'positions': 'resize_tile', 'temporal': 'copy'}


@pytest.fixture
def image_vit(tmp_path):
  sizes = original_shapes.Sizes(image=(16, 16))
  state = original_states.timm_vit_state(sizes, np.random.default_rng(0))
  torch_files.write_zip(tmp_path / 'vit.pth', state)
  return str(tmp_path / 'vit.pth'), state


def _model():
  return variants.build_classifier(
    'B/4x2', 5, recipe='vivit', num_frames=8, image_size=(16, 16), width=40,
    depth=3, heads=4, mlp_dim=160,
  )  # fmt: skip


def test_an_image_model_is_inflated(image_vit, caplog):
  path, state = image_vit
  description = foreign.describe(path)
  assert foreign.is_inflated(description, 8)
  with caplog.at_level(logging.WARNING, 'vivit_mae'):
    found = foreign.weights_of(path, _IMAGENET, _model(), _HOW)
  assert found.source.endswith(f'inflated ({path})')
  item = {
    name: jax.ShapeDtypeStruct(shape, np.float32)
    for name, shape in found.shapes.items()
  }
  arrays = found.read(item)
  kernel = np.moveaxis(state['patch_embed.proj.weight'], (0, 1), (3, 2))
  for frame in range(2):
    np.testing.assert_allclose(
      arrays['encoder/embedding/kernel'][frame], kernel / 2, rtol=1e-6
    )
  table = arrays['encoder/position_embedding']
  assert table.shape == (1 + 4 * 16, 40)
  np.testing.assert_array_equal(table[0], state['pos_embed'][0, 0])
  for frame in range(4):
    rows = table[1 + 16 * frame : 17 + 16 * frame]
    np.testing.assert_array_equal(rows, state['pos_embed'][0, 1:])
  assert not any(name.startswith('head/') for name in arrays)
  # All of the encoder is made.
  ours = weights_lib.shapes_of(_model())['encoder']
  assert len(arrays) == len(jax.tree.leaves(ours))


def test_statistics_that_differ_are_said(image_vit, caplog):
  path, _ = image_vit
  other = {'mean': (0.1, 0.1, 0.1), 'std': (0.9, 0.9, 0.9)}
  with caplog.at_level(logging.WARNING, 'vivit_mae'):
    foreign.weights_of(path, other, _model(), _HOW)
  assert 'was trained with preprocess.mean' in caplog.text
  assert 'and this run has (0.9, 0.9, 0.9)' in caplog.text


def test_a_path_that_is_nothing_names_the_zoo():
  with pytest.raises(ValueError, match=r'no file, .* docs/model_zoo\.md'):
    foreign.describe('runs/nowhere')
