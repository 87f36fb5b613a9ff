"""VideoMAE fine-tuning on your own labelled videos.

  python -m vivit_mae.main --config=configs/own_videos_finetune.py \
      --config.data.path=my_clips --config.init_from.path=runs/my_videos \
      --workdir=runs/my_clips

`my_clips` is a folder with a sub-folder for each class; a fifth of the videos
is held out (`--config.data.eval_fraction`), unless there are folders train and
val. A csv of paths and labels works too (`--config.data.source=csv
--config.data.path=my.csv`), and what `python -m vivit_mae.tools.dataset
prepare` wrote (`--config.data.source=tfds`). `runs/my_videos` is what
`configs/own_videos_mae.py` has trained, on these or other videos, with the same
arguments; without `init_from` the run starts from the seed, which takes far
more videos.

`:S` (default), `:Ti`, `:B` select the size, `:small` frames of 112 pixels in
place of 224 (a quarter of the tokens), `:runlocal` a few steps of a tiny model
on the built-in videos. On a CPU, `--config.model.dtype=float32` is faster.

Recipe: VideoMAE's for UCF101, 9.5 k videos (github.com/MCG-NJU/VideoMAE,
scripts/ucf101), with batches of 32 videos, and nothing mirrored: flip is right
only where left and right mean the same. Cost: a clip has all of its tokens,
four times those that the encoder sees in pretraining, and a video two clips.
What one GPU cannot hold, `--config.accum_steps` splits. The best checkpoint is
kept besides the last. Result, quoted from the authors' README, B: top-1 91.3
on UCF101 and 62.6 on the 3.6 k videos of HMDB51 (from scratch, by the paper,
51.4 and 18.0).
"""

from vivit_mae import config as config_lib


def get_config(arg=''):
  """Returns the experiment; see the module's docstring for `arg`."""
  args = config_lib.parse_arg(
    arg, variant=('S', 'Ti', 'B'), small=False, runlocal=False
  )
  config = config_lib.defaults('classify')
  config.batch_size = 32
  config.total_epochs = 100.0

  config.model.variant = f'{args.variant}/16x2'
  config.model.image_size = (112, 112) if args.small else (224, 224)
  config.model.recipe = 'videomae'
  config.model.dtype = 'bfloat16'
  config.model.drop_path = 0.2
  config.model.head_dropout = 0.5

  config.classify.smoothing = 0.1
  config.classify.erase.probability = 0.25
  config.classify.mix.mixup = 0.8
  config.classify.mix.cutmix = 1.0

  config.data.source = 'folder'
  config.data.eval_fraction = 0.2
  config.data.stride = 4
  config.data.sampling = 'dense'
  config.data.crop = 'random_resized'
  config.data.crop_scale = (0.08, 1.0)
  config.data.flip = False
  config.data.rand_augment = 'rand-m7-n4-mstd0.5-inc1'
  config.data.repeats = 2
  config.data.num_workers = 4

  config.optimizer.learning_rate = 5e-4
  config.optimizer.lr_base = 256
  config.optimizer.min_learning_rate = 1e-5
  config.optimizer.warmup_epochs = 5.0
  config.optimizer.weight_decay = 0.05
  config.optimizer.b2 = 0.999
  config.optimizer.layer_decay = 0.7

  config.checkpoint.every_epochs = 10.0
  config.checkpoint.best_metric = 'accuracy/top1'
  config.checkpoint.best_mode = 'max'
  config.evals.accuracy = dict(kind='accuracy', every_epochs=5.0)
  config.evals.multiview = dict(
    kind='multiview', every_epochs=100.0, segments=5, crops=3
  )
  if args.runlocal:
    config_lib.run_local(config)
  return config
