"""VideoMAE fine-tuning on UCF101, split 1: 9.5 k videos.

  python -m vivit_mae.tools.dataset prepare UCF101 --out=UCF101/labelled
  python -m vivit_mae.main --config=configs/ucf101_finetune.py \
      --config.data.path=UCF101/labelled \
      --config.init_from.path=runs/ucf101_mae --workdir=runs/ucf101_finetune

where UCF101 holds the folders train and val, or the lists train.csv and
val.csv of the split, and runs/ucf101_mae is what `configs/ucf101_mae.py` has
trained; a run on Kinetics serves better still. Without `init_from` the run
starts from the seed. `:runlocal` is a few steps of a tiny model on the built-in
videos. The size is B, as in the script; another one is chosen by
`--config.model.variant=S/16x2`.

Recipe: the authors' script (github.com/MCG-NJU/VideoMAE, scripts/ucf101). On so
few videos much is dropped: half of the features before the classifier, up to a
fifth of the blocks. Cost: a twentieth of fine-tuning on Kinetics.
Result, quoted from the authors' README, 5x3 views: top-1 91.3, and 96.1 from
pretraining on Kinetics (51.4 from scratch).

Ours differs: bfloat16 in place of DeepSpeed's float16, RandAugment after the
crop in place of before it, validation on the middle of each video in place of
anywhere.
"""

from vivit_mae import config as config_lib


def get_config(arg=''):
  """Returns the experiment; see the module's docstring for `arg`."""
  args = config_lib.parse_arg(arg, runlocal=False)
  config = config_lib.defaults('classify')
  config.batch_size = 128
  config.total_epochs = 100.0

  config.model.variant = 'B/16x2'
  config.model.recipe = 'videomae'
  config.model.dtype = 'bfloat16'
  config.model.scan = True
  config.model.remat = 'full'
  config.model.drop_path = 0.2
  config.model.head_dropout = 0.5

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

  config.optimizer.learning_rate = 5e-4
  config.optimizer.lr_base = 256
  config.optimizer.min_learning_rate = 1e-5
  config.optimizer.warmup_epochs = 5.0
  config.optimizer.weight_decay = 0.05
  config.optimizer.b2 = 0.999
  config.optimizer.layer_decay = 0.7

  config.checkpoint.every_epochs = 10.0
  config.evals.accuracy = dict(kind='accuracy', every_epochs=5.0, batch_size=64)
  config.evals.multiview = dict(
    kind='multiview', every_epochs=100.0, segments=5, crops=3, batch_size=60
  )
  if args.runlocal:
    config_lib.run_local(config)
  return config
