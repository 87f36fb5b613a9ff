"""Attentive probe on Kinetics-400: frozen features, read by attention.

  python -m vivit_mae.tools.dataset prepare K400 --out=K400/tfds
  python -m vivit_mae.main --config=configs/k400_attentive_probe.py \
      --config.data.path=K400/tfds --config.init_from.path=runs/k400_mae \
      --workdir=runs/k400_attentive_probe

where K400 holds the folders train and val, or their lists train.csv and
val.csv, and runs/k400_mae is what `configs/k400_mae.py` has trained, of the
same size; without `init_from` it probes random features. `:S`, `:B` (default),
`:L`, `:H` select the size, `:runlocal` a few steps of a tiny model on the
built-in videos.

Recipe: that of V-JEPA (github.com/facebookresearch/jepa, configs/evals/
vith16_k400_16x8x3.yaml and evals/video_classification_frozen): a learned query
attends to the encoder's tokens, an MLP and a linear layer follow; AdamW,
batches of 256, 20 epochs, no warm-up, RandAugment and erasing, nothing
mirrored, 8x3 views. Cost: the encoder runs forwards only and keeps nothing for
a gradient, so that a clip costs a third of what it does in fine-tuning.

Expect more than from `configs/k400_linear_probe.py`, less than from
fine-tuning. Result, quoted from the abstract of V-JEPA's paper, for its own
ViT-H/16 and not for one of VideoMAE: top-1 81.9.

Ours differs: the query sees one clip in training, and the scores of the views
are averaged; V-JEPA's sees the tokens of 8 clips of a video at once, at eight
times the cost, and only the crops are averaged.
"""

from vivit_mae import config as config_lib


def get_config(arg=''):
  """Returns the experiment; see the module's docstring for `arg`."""
  args = config_lib.parse_arg(arg, variant=('B', 'S', 'L', 'H'), runlocal=False)
  config = config_lib.defaults('classify')
  config.batch_size = 256
  config.total_epochs = 20.0

  config.model.variant = f'{args.variant}/16x2'
  config.model.recipe = 'videomae'
  config.model.norm = 'before_pooling'
  config.model.head = 'attentive'
  config.model.probe = True
  config.model.head_init_scale = 1.0
  config.model.dtype = 'bfloat16'
  config.model.scan = True

  config.classify.erase.probability = 0.25

  config.data.source = 'tfds'
  config.data.stride = 4
  config.data.sampling = 'dense'
  config.data.crop = 'random_resized'
  config.data.crop_scale = (0.08, 1.0)
  config.data.flip = False
  config.data.rand_augment = 'rand-m7-n4-mstd0.5-inc1'
  config.data.num_workers = 16

  config.optimizer.learning_rate = 1e-3
  config.optimizer.lr_base = 256
  config.optimizer.schedule = 'warmup_cosine'
  config.optimizer.min_learning_rate = 0.0
  config.optimizer.warmup_epochs = 0.0
  config.optimizer.weight_decay = 0.01
  config.optimizer.weight_decay_end = 1e-6
  config.optimizer.b2 = 0.999

  config.checkpoint.every_epochs = 1.0
  config.evals.accuracy = dict(kind='accuracy', every_epochs=1.0, batch_size=64)
  config.evals.multiview = dict(
    kind='multiview', every_epochs=20.0, segments=8, crops=3, batch_size=48
  )
  if args.runlocal:
    config_lib.run_local(config)
  return config
