"""What the configs of MAE-ST, VideoMAE V2 and public weights say.

Reference: videomae.md 4.2 and 4.3.
"""

import pytest

from tests.test_configs import load
from vivit_mae import tasks
from vivit_mae.convert import zoo
from vivit_mae.tasks import classify, mae


@pytest.mark.parametrize(
  ('arg', 'recipe', 'frames'),
  [
    ('', 'mae_st', [0, 2, 4, 6, 8, 10, 12, 15]),
    ('pyslowfast', 'pyslowfast', [0, 2, 4, 6, 8, 10, 12, 14]),
  ],
)
def test_mae_st_pretraining(arg, recipe, frames):
  config = load('k400_mae_st', arg)
  assert (config.model.variant, config.model.recipe) == ('L/16x2', recipe)
  task = tasks.build(config)
  assert isinstance(task, mae.MaskedAutoencoding)
  assert task.target.frame_indices(16).tolist() == frames
  assert task.target.dim == 768
  assert task._num_visible() == 156
  assert task.model.decoder_heads == (8 if arg else 16)
  assert task.mean == (0.45,) * 3
  assert task.std == (0.225,) * 3
  optimizer = config.optimizer
  assert (optimizer.learning_rate, optimizer.clip_norm) == (1.6e-3, 0.02)
  assert optimizer.decay_tokens
  assert (config.data.repeats, config.data.repeat) == (4, 'windows')
  assert config.data.flip


@pytest.mark.parametrize(
  ('size', 'epochs', 'layer_decay', 'drop_path', 'dropout'),
  [
    ('L', 50, 0.75, 0.2, 0.3),
    ('B', 75, 0.65, 0.1, 0.3),
    ('H', 75, 0.8, 0.2, 0.5),
  ],
)
def test_mae_st_finetuning(size, epochs, layer_decay, drop_path, dropout):
  config = load('k400_mae_st_finetune', size)
  assert config.total_epochs == epochs
  assert config.optimizer.layer_decay == layer_decay
  assert config.optimizer.lr_scales_with == 'clips'
  # Two operations: the published policy has no n.
  assert config.data.rand_augment == 'rand-m7-mstd0.5-inc1'
  task = tasks.build(config, class_names=tuple(map(str, range(400))))
  assert isinstance(task, classify.Classification)
  model = task.model
  assert (model.drop_path, model.head_dropout) == (drop_path, dropout)
  assert (model.norm, model.pooling) == ('deferred', 'mean')
  assert model.class_token == 'before_positions'


@pytest.mark.parametrize(
  ('size', 'batch', 'rate', 'epochs'),
  [
    ('B', 1024, 1e-3, 200),
    ('L', 1536, 1e-3, 300),
    ('H', 2048, 1e-3, 300),
    ('g', 2048, 6e-4, 300),
  ],
)
def test_videomae_v2(size, batch, rate, epochs):
  config = load('k400_videomae_v2', size)
  assert (config.batch_size, config.total_epochs) == (batch, epochs)
  assert config.optimizer.learning_rate == rate
  assert config.optimizer.clip_norm == (0.02 if size == 'g' else None)
  task = tasks.build(config)
  assert isinstance(task, mae.MaskedAutoencoding)
  # reference: videomae.md 2.2
  counts = (208, 1024) if size == 'g' else (160, 784)
  assert (task._num_visible(), task._num_decoded()) == counts


@pytest.mark.parametrize('size', ['B', 'L'])
def test_continued_pretraining_starts_from_weights_with_a_decoder(size):
  config = load('own_videos_continue', size)
  entry = zoo.lookup(config.init_from.path)
  assert entry.holds == 'encoder and decoder'
  assert config.model.variant == f'{size}/16x2'
  assert entry.stride == config.data.stride
