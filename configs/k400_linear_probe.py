"""Linear probe on Kinetics-400: what frozen features know.

  python -m vivit_mae.tools.dataset prepare K400 --out=K400/tfds
  python -m vivit_mae.main --config=configs/k400_linear_probe.py \
      --config.data.path=K400/tfds --config.init_from.path=runs/k400_mae \
      --workdir=runs/k400_linear_probe

where K400 holds the folders train and val, or their lists train.csv and
val.csv, and runs/k400_mae is what `configs/k400_mae.py` has trained, of the
same size; without `init_from` it probes random features. `:S`, `:B` (default),
`:L`, `:H` select the size, `:runlocal` a few steps of a tiny model on the
built-in videos.

Recipe: that of MAE for images (github.com/facebookresearch/mae,
main_linprobe.py): the mean of the encoder's tokens, behind the norm of
pretraining, a batch norm without scale and bias, and one linear layer; LARS
without weight decay, random crops and flips only. Cost: the encoder runs
forwards only and keeps nothing for a gradient, so that a clip costs a third of
what it does in fine-tuning, and a fraction of the memory.

Expect far less than from fine-tuning: masked autoencoders know more than one
linear layer can read. VideoMAE publishes no linear probe on Kinetics; on
Something-Something v2 its paper quotes 38.9 for B (SGD, batches of 1024, 100
epochs), against 69.6 fine-tuned.

Ours differs: batches of 1024 clips in place of 16384 images, at the same rate
for 256 rows; 16 frames at stride 4, and 5x3 views at the end.
"""

from vivit_mae import config as config_lib


def get_config(arg=''):
  """Returns the experiment; see the module's docstring for `arg`."""
  args = config_lib.parse_arg(arg, variant=('B', 'S', 'L', 'H'), runlocal=False)
  config = config_lib.defaults('classify')
  config.batch_size = 1024
  config.total_epochs = 90.0

  config.model.variant = f'{args.variant}/16x2'
  config.model.recipe = 'videomae'
  config.model.norm = 'before_pooling'
  config.model.pooling = 'mean'
  config.model.probe = True
  config.model.probe_batch_norm = True
  config.model.head_init_scale = 0.5  # a deviation of .01
  config.model.dtype = 'bfloat16'
  config.model.scan = True

  config.data.source = 'tfds'
  config.data.stride = 4
  config.data.sampling = 'dense'
  config.data.crop = 'random_resized'
  config.data.crop_scale = (0.08, 1.0)
  config.data.flip = True
  config.data.num_workers = 16

  config.optimizer.name = 'lars'
  config.optimizer.learning_rate = 0.1
  config.optimizer.lr_base = 256
  config.optimizer.momentum = 0.9
  config.optimizer.weight_decay = 0.0
  config.optimizer.schedule = 'warmup_cosine'
  config.optimizer.min_learning_rate = 0.0
  config.optimizer.warmup_epochs = 10.0

  config.checkpoint.every_epochs = 5.0
  config.evals.accuracy = dict(kind='accuracy', every_epochs=5.0, batch_size=64)
  config.evals.multiview = dict(
    kind='multiview', every_epochs=90.0, segments=5, crops=3, batch_size=60
  )
  if args.runlocal:
    config_lib.run_local(config)
  return config
