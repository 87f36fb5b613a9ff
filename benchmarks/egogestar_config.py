"""The runs of `benchmarks/egogestar.py`, on 36x48 copies of the videos.

`:pretrain` (masked autoencoding), `:classify`, `:probe` (attentive, the
encoder stays as it is). The encoder is that of `motions_config.py`, on 12
frames in place of 8.
"""

from vivit_mae import config as config_lib


def get_config(arg=''):
  """Returns the experiment; see the module's docstring for `arg`."""
  args = config_lib.parse_arg(arg, stage=('pretrain', 'classify', 'probe'))
  config = config_lib.defaults(
    'mae' if args.stage == 'pretrain' else 'classify'
  )
  config.batch_size = 8
  config.model.variant = 'Ti/4x2'
  config.model.num_frames = 12
  # Frames of 4:3 are squeezed, so that each place has the same position as in
  # the built-in videos; further frames come behind theirs, without resizing.
  config.model.image_size = (24, 24)
  config.model.position_grid = (6, 6, 6)
  config.model.width = 64
  config.model.depth = 3
  config.model.heads = 2
  config.model.mlp_dim = 256

  config.data.source = 'csv'
  # One frame from each twelfth of the video. Nothing is mirrored: left and
  # right are classes.
  config.data.sampling = 'segments'
  config.data.crop = 'random_resized'
  config.data.crop_scale = (0.5, 1.0)
  config.data.crop_ratio = (1.2, 1.5)

  config.optimizer.lr_base = 8
  config.optimizer.min_learning_rate = 0.0
  config.optimizer.warmup_steps = 100
  config.log.tensorboard = False
  config.log.every_steps = 100
  config.checkpoint.keep_last = 1
  if args.stage == 'pretrain':
    config.total_steps = 4000
    config.model.decoder_width = 64
    config.model.decoder_depth = 1
    config.model.decoder_heads = 2
    config.model.decoder_mlp_dim = 256
    config.mask.kind = 'random'
    config.mask.ratio = 0.75
    config.target.normalise = 'none'
    config.optimizer.learning_rate = 1e-3
    config.evals.knn = dict(kind='knn', every_steps=4000, depths=(1, 2, 3))
    config.evals.reconstruction = dict(
      kind='reconstruction', every_steps=4000, num_clips=32, num_pictures=4
    )
    return config
  config.total_steps = 2000
  config.classify.smoothing = 0.1
  config.optimizer.learning_rate = 1e-3
  config.optimizer.b2 = 0.999
  config.evals.accuracy = dict(kind='accuracy', every_steps=500)
  if args.stage == 'probe':
    config.model.probe = True
    config.model.head = 'attentive'
    config.model.norm = 'before_pooling'
  return config
