"""VideoMAE V2 pretraining, with two masks, on Kinetics-400.

  python -m vivit_mae.tools.dataset prepare K400 --out=K400/tfds
  python -m vivit_mae.main --config=configs/k400_videomae_v2.py \
      --config.data.path=K400/tfds --workdir=runs/k400_videomae_v2

where K400 holds the folders train and val, or their lists train.csv and
val.csv. `:B` (default), `:L`, `:H`, `:g` select the size, `:runlocal` a few
steps of a tiny model on the built-in videos. With fewer devices, keep
`batch_size` and raise `accum_steps` until a step fits: the learning rate
follows `batch_size`, the videos of one update, not the four clips that are cut
out of each.

Recipe: the authors' scripts (github.com/OpenGVLab/VideoMAEv2,
scripts/pretrain): the encoder sees 10 % of the tokens (tubes), the decoder half
of the places in turn (running cells), and what both the encoder has not seen
and the decoder is asked for makes the loss. Theirs is for 1.35 M unlabelled
videos, which are not public as a set; on Kinetics-400 the authors take their
first scripts with these two masks (issue 18 of the repository). An epoch is
four clips of each video.
"""

from vivit_mae import config as config_lib

# Videos of an update, learning rate for 256, epochs of warm-up and in all.
_RECIPES = {
  'B': (1024, 1e-3, 20.0, 200.0),
  'L': (1536, 1e-3, 30.0, 300.0),
  'H': (2048, 1e-3, 30.0, 300.0),
  'g': (2048, 6e-4, 30.0, 300.0),
}


def get_config(arg=''):
  """Returns the experiment; see the module's docstring for `arg`."""
  args = config_lib.parse_arg(arg, variant=('B', 'L', 'H', 'g'), runlocal=False)
  batch_size, rate, warmup, epochs = _RECIPES[args.variant]
  giant = args.variant == 'g' and not args.runlocal
  config = config_lib.defaults('mae')
  config.batch_size = batch_size
  config.total_epochs = epochs

  config.model.variant = f'{args.variant}/{14 if giant else 16}x2'
  config.model.recipe = 'videomae_v2'
  config.model.dtype = 'bfloat16'
  config.model.scan = True
  config.model.remat = 'full' if args.variant in ('H', 'g') else 'none'

  config.mask.kind = 'tube'
  config.mask.ratio = 0.9
  config.mask.decoder_kind = 'running_cell'
  config.mask.decoder_ratio = 0.5
  config.target.normalise = 'channel'

  config.data.source = 'tfds'
  config.data.stride = 4
  config.data.crop = 'multi_scale'
  config.data.flip = False
  config.data.repeats = 4
  config.data.repeat = 'crops'
  config.data.num_workers = 16

  config.optimizer.learning_rate = rate
  config.optimizer.lr_base = 256
  config.optimizer.min_learning_rate = 1e-5
  config.optimizer.warmup_epochs = warmup
  config.optimizer.weight_decay = 0.05
  config.optimizer.b2 = 0.95
  config.optimizer.clip_norm = 0.02 if args.variant == 'g' else None

  config.checkpoint.every_epochs = 10.0
  config.evals.reconstruction = dict(
    kind='reconstruction', every_epochs=10.0, num_clips=64, num_pictures=8
  )
  if args.runlocal:
    config_lib.run_local(config)
  return config
