"""The demo: pretrain a tiny VideoMAE on the built-in videos, on two CPU cores.

  python -m vivit_mae.main --config=configs/demo.py --workdir=/tmp/vivit_demo

`:runlocal` is the same in a few steps.

1,000 clips of sprites that move over smooth backgrounds are written to the
user's cache once. Everything is chosen so that five minutes suffice to see
something: few and small tokens, half of them hidden in place of nine tenths,
and raw pixels as the target. Normalised ones teach better features, but say
nothing of a patch's colour, and a demo is there to be looked at.
"""

from vivit_mae import config as config_lib


def get_config(arg=''):
  """Returns the experiment; see the module's docstring for `arg`."""
  args = config_lib.parse_arg(arg, runlocal=False)
  config = config_lib.defaults('mae')
  config.batch_size = 8
  config.total_steps = 3000

  config.model.variant = 'Ti/8x2'
  config.model.num_frames = 8
  config.model.image_size = (64, 64)
  config.model.width = 96
  config.model.depth = 3
  config.model.heads = 3
  config.model.mlp_dim = 384
  config.model.decoder_width = 64
  config.model.decoder_depth = 2
  config.model.decoder_heads = 2
  config.model.decoder_mlp_dim = 256

  config.mask.kind = 'tube'
  config.mask.ratio = 0.5
  config.target.normalise = 'none'

  config.data.source = 'synthetic'
  config.data.stride = 4

  config.optimizer.learning_rate = 3e-3
  config.optimizer.lr_base = 8
  config.optimizer.min_learning_rate = 0.0
  config.optimizer.warmup_steps = 100

  config.checkpoint.every_steps = 1000
  config.log.every_steps = 100
  config.evals.reconstruction = dict(
    kind='reconstruction', every_steps=1000, num_clips=64, num_pictures=4
  )
  if args.runlocal:
    config_lib.run_local(config)
  return config
