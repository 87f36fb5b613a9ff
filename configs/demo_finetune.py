"""The second half of the demo: which way does the sprite move?

  python -m vivit_mae.main --config=configs/demo_finetune.py \
      --workdir=/tmp/vivit_demo_finetune

It starts from what `configs/demo.py` has learned in /tmp/vivit_demo
(`--config.init_from.path=...` for another place) and trains on the labels of
the built-in videos. `:scratch` starts from nothing, and `python -m
vivit_mae.tools.compare` puts both side by side; `:runlocal` is a few steps of a
tiny model, from nothing.
"""

from vivit_mae import config as config_lib


def get_config(arg=''):
  """Returns the experiment; see the module's docstring for `arg`."""
  args = config_lib.parse_arg(arg, scratch=False, runlocal=False)
  config = config_lib.defaults('classify')
  config.batch_size = 16
  config.total_steps = 1000
  if not (args.scratch or args.runlocal):
    config.init_from.path = '/tmp/vivit_demo'

  config.model.variant = 'Ti/8x2'
  config.model.num_frames = 8
  config.model.image_size = (64, 64)
  config.model.width = 96
  config.model.depth = 3
  config.model.heads = 3
  config.model.mlp_dim = 384

  config.data.source = 'synthetic'
  config.data.stride = 4
  # Squares of the frame, whose motion is that of the whole.
  config.data.crop = 'random_resized'
  config.data.crop_ratio = (1.0, 1.0)

  config.optimizer.learning_rate = 2e-3
  config.optimizer.lr_base = 16
  config.optimizer.min_learning_rate = 0.0
  config.optimizer.b2 = 0.999
  config.optimizer.layer_decay = 0.75
  config.optimizer.warmup_steps = 100

  config.log.every_steps = 50
  config.evals.accuracy = dict(kind='accuracy', every_steps=500)
  if args.runlocal:
    config_lib.run_local(config)
  return config
