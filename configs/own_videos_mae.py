"""VideoMAE pretraining on your own videos.

  python -m vivit_mae.main --config=configs/own_videos_mae.py \
      --config.data.path=my_videos --workdir=runs/my_videos

`my_videos` is a folder of videos, with or without subfolders; no labels are
needed. A csv works too (`--config.data.source=csv --config.data.path=my.csv`),
and what `python -m vivit_mae.tools.dataset prepare my_videos --out=DIR` wrote,
which names unreadable files beforehand and reads faster from slow disks
(`--config.data.source=tfds --config.data.path=DIR`).

`:Ti`, `:S` (default), `:B` select the size, `:small` frames of 112 pixels in
place of 224 (a quarter of the tokens), `:runlocal` a few steps of a tiny model
on the built-in videos. On a CPU, `--config.model.dtype=float32` is faster.

Recipe: VideoMAE's for its small datasets of 3.6 k and 9.5 k videos: 75 % of the
tokens are masked, and the schedule is long. On a few hundred videos
expect to want thousands of epochs. What one GPU cannot hold,
`--config.accum_steps` splits; a few data workers (`--config.data.num_workers`)
keep it busy. Flip is off: it is right only where left and right mean the same.
"""

from vivit_mae import config as config_lib


def get_config(arg=''):
  """Returns the experiment; see the module's docstring for `arg`."""
  args = config_lib.parse_arg(
    arg, variant=('S', 'Ti', 'B'), small=False, runlocal=False
  )
  config = config_lib.defaults('mae')
  config.batch_size = 64
  config.total_epochs = 800.0

  config.model.variant = f'{args.variant}/16x2'
  config.model.image_size = (112, 112) if args.small else (224, 224)
  config.model.dtype = 'bfloat16'

  config.mask.kind = 'tube'
  config.mask.ratio = 0.75
  config.target.normalise = 'channel'

  config.data.source = 'folder'
  config.data.eval_fraction = 0.05
  config.data.stride = 4
  config.data.crop = 'multi_scale'
  config.data.flip = False
  config.data.num_workers = 4

  config.optimizer.learning_rate = 3e-4
  config.optimizer.lr_base = 256
  config.optimizer.min_learning_rate = 1e-5
  config.optimizer.warmup_epochs = 40.0
  config.optimizer.weight_decay = 0.05
  config.optimizer.b2 = 0.95

  config.checkpoint.every_epochs = 20.0
  config.evals.reconstruction = dict(
    kind='reconstruction', every_epochs=20.0, num_clips=32, num_pictures=8
  )
  if args.runlocal:
    config_lib.run_local(config)
  return config
