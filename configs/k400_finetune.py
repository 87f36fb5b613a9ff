"""VideoMAE fine-tuning on Kinetics-400.

  python -m vivit_mae.tools.dataset prepare K400 --out=K400/tfds
  python -m vivit_mae.main --config=configs/k400_finetune.py \
      --config.data.path=K400/tfds --config.init_from.path=runs/k400_mae \
      --workdir=runs/k400_finetune

where K400 holds the folders train and val, or their lists train.csv and
val.csv, and runs/k400_mae is what `configs/k400_mae.py` has trained, of the
same size; without `init_from` the run starts from the seed. `:S`, `:B`
(default), `:L`, `:H` select the size, `:runlocal` a few steps of a tiny model
on the built-in videos. With fewer devices, keep `batch_size` and raise
`accum_steps` until a step fits: the learning rate follows `batch_size`, the
videos of one update, not the two clips that are cut out of each.

Recipe: the authors' scripts (github.com/MCG-NJU/VideoMAE, scripts/kinetics),
those for 1600 epochs of pretraining. RandAugment, erasing, mixup, cutmix,
smoothed labels, a rate that falls by a quarter from each block to the one
below. Cost: a clip has all of its tokens, ten times those that the encoder
sees in pretraining, and a video two clips. Result, quoted from the authors'
README, 5x3 views: top-1 S 79.0, B 81.5, L 85.2, H 86.6 (from scratch, by the
paper: B 68.8).

Ours differs: bfloat16 in place of DeepSpeed's float16, RandAugment after the
crop in place of before it, validation on the middle of each video in place of
anywhere.
"""

from vivit_mae import config as config_lib

# Videos of an update, epochs, learning rate for 256 videos, its minimum.
_RECIPES = {
  'S': (384, 150.0, 5e-4, 1e-6),
  'B': (384, 75.0, 5e-4, 1e-6),
  'L': (128, 35.0, 2e-3, 1e-6),
  'H': (512, 50.0, 1e-3, 1e-5),
}


def get_config(arg=''):
  """Returns the experiment; see the module's docstring for `arg`."""
  args = config_lib.parse_arg(arg, variant=('B', 'S', 'L', 'H'), runlocal=False)
  batch_size, epochs, rate, least_rate = _RECIPES[args.variant]
  huge = args.variant == 'H'
  config = config_lib.defaults('classify')
  config.batch_size = batch_size
  config.total_epochs = epochs

  config.model.variant = f'{args.variant}/16x2'
  config.model.recipe = 'videomae'
  config.model.dtype = 'bfloat16'
  config.model.scan = True
  config.model.remat = 'full' if huge else 'none'
  config.model.drop_path = 0.2 if huge else 0.1
  config.model.head_dropout = 0.5 if huge else 0.0

  config.classify.smoothing = 0.1
  config.classify.erase.probability = 0.25
  config.classify.mix.mixup = 0.8
  config.classify.mix.cutmix = 1.0

  config.data.source = 'tfds'
  config.data.stride = 4
  config.data.sampling = 'dense'
  config.data.crop = 'random_resized'
  config.data.crop_scale = (0.08, 1.0)
  config.data.flip = True
  config.data.rand_augment = 'rand-m7-n4-mstd0.5-inc1'
  config.data.repeats = 2
  config.data.num_workers = 16

  config.optimizer.learning_rate = rate
  config.optimizer.lr_base = 256
  config.optimizer.min_learning_rate = least_rate
  config.optimizer.warmup_epochs = 5.0
  config.optimizer.weight_decay = 0.05
  config.optimizer.b2 = 0.999
  config.optimizer.layer_decay = 0.75

  config.checkpoint.every_epochs = 1.0
  config.evals.accuracy = dict(kind='accuracy', every_epochs=1.0, batch_size=64)
  config.evals.multiview = dict(
    kind='multiview', every_epochs=epochs, segments=5, crops=3, batch_size=60
  )
  if args.runlocal:
    config_lib.run_local(config)
  return config
