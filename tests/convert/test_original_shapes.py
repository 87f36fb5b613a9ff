"""The names and shapes of the originals, against their list and counts."""

import math
import pathlib
import re

import numpy as np
import pytest

from tests.convert import original_shapes, original_states
from tests.convert.original_shapes import PUBLISHED, Sizes

_KEYS = 'shared/reference/videomae_keys.txt'
_TENSORS_AND_NUMBERS = {
  'videomae_pretrain_small': (218, 24_029_376),
  'videomae_pretrain_base': (218, 94_210_944),
  'videomae_pretrain_large': (478, 342_996_992),
  'videomae_pretrain_huge': (582, 692_487_296),
  'videomae_finetune_small': (162, 22_033_936),
  'videomae_finetune_base': (162, 86_534_800),
  'videomae_finetune_large': (318, 304_270_736),
  'videomae_finetune_huge': (422, 632_119_440),
  'videomae_v2_pretrain_small': (218, 24_029_376),
  'videomae_v2_pretrain_base': (218, 94_210_944),
  'videomae_v2_pretrain_large': (374, 317_782_016),
  'videomae_v2_pretrain_huge': (478, 645_659_392),
  'videomae_v2_pretrain_giant': (582, 1_026_306_560),
  'videomae_v2_finetune_giant': (526, 1_012_611_142),
  'mae_st_pretrain_base': (275, 99_898_880),
  'mae_st_pretrain_large': (467, 317_731_584),
  'mae_st_pretrain_huge': (595, 645_232_460),
  'mae_st_finetune_base': (202, 86_702_224),
  'mae_st_finetune_large': (394, 304_506_256),
  'mae_st_finetune_huge': (522, 632_424_080),
}


def test_every_listed_model_is_known():
  path = pathlib.Path(__file__).parents[3] / _KEYS
  if not path.is_file():
    pytest.skip(f'the list of the originals is not here: {path}')
  listed = _read_keys(path.read_text())
  assert listed.keys() == _TENSORS_AND_NUMBERS.keys()
  for name, shapes in listed.items():
    assert PUBLISHED[name] == shapes, name


@pytest.mark.parametrize('name', _TENSORS_AND_NUMBERS)
def test_published_sizes(name):
  shapes = PUBLISHED[name]
  numbers = sum(math.prod(shape) for shape in shapes.values())
  assert (len(shapes), numbers) == _TENSORS_AND_NUMBERS[name]


@pytest.mark.parametrize('size', ['base', 'large', 'huge'])
def test_pyslowfast_names(size):
  shapes = dict(PUBLISHED[f'pyslowfast_pretrain_{size}'])
  own = dict(PUBLISHED[f'mae_st_pretrain_{size}'])
  assert shapes.pop('decoder_pos_embed') == (1, 1569, 512)
  assert shapes['pred_head.transforms.0.4.weight'] == (512,)
  assert shapes['pred_head.projections.0.weight'] == (768, 512)
  assert shapes['patch_embed.proj.weight'][2:] == (2, 16, 16)
  renamed = {}
  for name in shapes:
    name = name.replace('pred_head.transforms.0.4', 'decoder_norm')
    name = name.replace('pred_head.transforms.0', 'decoder_blocks')
    name = name.replace('pred_head.projections.0', 'decoder_pred')
    renamed[name] = None
  without = {name for name in own if name.startswith('decoder_pos_embed_')}
  assert renamed.keys() == own.keys() - without - {'decoder_cls_token'}

  tuned = {
    name.replace('head.projection', 'head'): shape
    for name, shape in PUBLISHED[f'pyslowfast_finetune_{size}'].items()
  }
  assert tuned == PUBLISHED[f'mae_st_finetune_{size}']


def test_states_are_random_everywhere():
  sizes, rng = Sizes(), np.random.default_rng(0)
  state = original_states.videomae_pretrain_state(sizes, rng, True, True)
  assert {name: value.shape for name, value in state.items()} == (
    original_shapes.videomae_pretrain_shapes(sizes, True, True)
  )
  for name, value in state.items():
    assert value.dtype == np.float32, name
    assert 0.05 < value.std() < 2, name


def _read_keys(text):
  """The models of videomae_keys.txt under the names of `PUBLISHED`."""
  families = {'V1': 'videomae', 'V2': 'videomae_v2', 'ST': 'mae_st'}
  models = {}
  for part in text.split('### ')[1:]:
    heading, *lines = part.splitlines()
    family, stage, title = heading.split(': ')[0].split(' ', 2)
    size = re.search('small|base|large|huge|giant', title)
    assert size, heading
    shapes = models[f'{families[family]}_{stage}_{size[0]}'] = {}
    for line in lines:
      found = re.fullmatch(r'\s+(\S+)\s+\[([\d, ]+)\] x(\d+)', line)
      if not found:
        assert 'named_buffers: []' in line, line
        continue
      shape = tuple(int(number) for number in found[2].split(','))
      for i in range(int(found[3])):
        shapes[found[1].replace('{i}', str(i))] = shape
  return models
