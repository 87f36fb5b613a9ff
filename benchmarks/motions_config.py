"""The runs of `benchmarks/motions.py`, on 32-pixel built-in videos.

`:pretrain` (masked autoencoding), `:classify`.
"""

from vivit_mae import config as config_lib


def get_config(arg=''):
  """Returns the experiment; see the module's docstring for `arg`."""
  args = config_lib.parse_arg(arg, stage=('pretrain', 'classify'))
  config = config_lib.defaults(
    'mae' if args.stage == 'pretrain' else 'classify'
  )
  config.model.variant = 'Ti/4x2'
  config.model.num_frames = 8
  config.model.image_size = (24, 24)
  config.model.width = 64
  config.model.depth = 3
  config.model.heads = 2
  config.model.mlp_dim = 256

  config.data.source = 'csv'
  config.data.stride = 4
  config.data.crop = 'random_resized'
  config.data.crop_scale = (0.6, 1.0)
  config.data.crop_ratio = (1.0, 1.0)

  config.optimizer.min_learning_rate = 0.0
  config.optimizer.b2 = 0.999
  config.optimizer.warmup_steps = 100
  config.log.tensorboard = False
  config.log.every_steps = 100
  config.checkpoint.keep_last = 1
  if args.stage == 'pretrain':
    # Two clips of each video, so that decoding costs less.
    config.batch_size = 4
    config.data.repeats = 2
    config.data.repeat = 'windows'
    config.total_steps = 45_000
    config.model.decoder_width = 64
    config.model.decoder_depth = 1
    config.model.decoder_heads = 2
    config.model.decoder_mlp_dim = 256
    config.mask.kind = 'random'
    config.mask.ratio = 0.75
    config.target.normalise = 'none'
    config.optimizer.learning_rate = 3e-3
    config.optimizer.lr_base = 4
    config.optimizer.b2 = 0.95
    config.optimizer.warmup_steps = 200
    config.evals.knn = dict(
      kind='knn', every_steps=9000, num_train_clips=2000, depths=(1, 2, 3)
    )
    config.evals.reconstruction = dict(
      kind='reconstruction', every_steps=45_000, num_clips=64, num_pictures=4
    )
    return config
  config.batch_size = 16
  config.total_steps = 800
  config.optimizer.learning_rate = 1e-3
  config.optimizer.lr_base = 16
  config.optimizer.layer_decay = 0.75
  config.evals.accuracy = dict(kind='accuracy', every_steps=800, batch_size=100)
  return config
