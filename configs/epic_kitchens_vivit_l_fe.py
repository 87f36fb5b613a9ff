"""ViViT-L/16x2, factorised encoder, on Epic-Kitchens-100: verbs and nouns.

  python -m vivit_mae.main --config=configs/epic_kitchens_vivit_l_fe.py \
      --config.data.path=EPIC --config.init_from.path=runs/k400_vivit_l_fe \
      --workdir=runs/epic_kitchens_vivit_l_fe

where EPIC holds the lists train.csv and val.csv, with a first line
`path,label.verb,label.noun` and one trimmed action in each of the others: the
columns say which heads there are.
runs/k400_vivit_l_fe is what `configs/k400_vivit_l_fe.py` has trained, of whose
blocks over time the first four are taken; without `init_from` the run starts
from the seed. `:runlocal` is a few steps of a tiny model on the built-in
videos, with their classes. With fewer devices, keep `batch_size` and raise
`accum_steps` until a step fits.

Recipe: Scenic's (projects/vivit, configs/epic_kitchens/
vivit_large_factorised_encoder.py): 32 frames at stride 1, 4 blocks over time,
SGD with momentum, 50 epochs of 67 k clips; the loss is the mean of both heads.
RandAugment, mixup, dropped blocks and smoothed labels as on
Something-Something, all milder. Cost: a good half of Kinetics' 30 epochs.
Result, quoted from Scenic's README, 4x1 views: top-1 43.6, of verb and noun
together, here `joint_top1`.

Ours differs. Verb and noun are two linear layers in place of one that is split,
which is the same. RandAugment is timm's at its greatest strength: it moves
and turns the clip too, and carries out half of the operations; Scenic's has
colours and a cutout only, on another scale (2 operations of strength 15), and
carries out all. One mixup weight is drawn for a batch in place of one for each
device. Gradients are clipped after the mean over devices in
place of before, and matrix products are bfloat16 in place of float32.
"""

from vivit_mae import config as config_lib


def get_config(arg=''):
  """Returns the experiment; see the module's docstring for `arg`."""
  args = config_lib.parse_arg(arg, runlocal=False)
  config = config_lib.defaults('classify')
  config.batch_size = 64
  config.total_epochs = 50.0

  config.model.variant = 'L/16x2'
  config.model.recipe = 'vivit'
  config.model.num_frames = 32
  config.model.factorisation = 'encoder'
  config.model.temporal_depth = 4
  config.model.dtype = 'bfloat16'
  config.model.scan = True
  config.model.remat = 'full'
  config.model.drop_path = 0.2
  config.model.drop_path_rescale = False  # as Scenic

  config.classify.smoothing = 0.2
  config.classify.mix.mixup = 0.1

  # Pixels in [-1, 1].
  config.preprocess.mean = (0.5, 0.5, 0.5)
  config.preprocess.std = (0.5, 0.5, 0.5)

  config.data.source = 'csv'
  config.data.stride = 1
  config.data.sampling = 'vivit'
  config.data.crop = 'jittered'
  config.data.crop_jitter = (0.9, 1.33)
  config.data.short_side = 256
  config.data.flip = True
  config.data.rand_augment = 'rand-m10-n2-inc1'
  config.data.num_workers = 16

  config.optimizer.name = 'sgd'
  config.optimizer.learning_rate = 0.5
  config.optimizer.lr_base = 64
  config.optimizer.momentum = 0.9
  config.optimizer.weight_decay = 0.0
  config.optimizer.clip_norm = 1.0
  config.optimizer.schedule = 'warmup_cosine'
  config.optimizer.min_learning_rate = 0.0
  config.optimizer.warmup_epochs = 2.5

  config.checkpoint.every_epochs = 1.0
  config.evals.accuracy = dict(kind='accuracy', every_epochs=1.0, batch_size=64)
  config.evals.multiview = dict(
    kind='multiview',
    every_epochs=5.0,
    segments=4,
    crops=1,
    average='logits',
    batch_size=48,
  )
  if args.runlocal:
    config_lib.run_local(config)
  return config
