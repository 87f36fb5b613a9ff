"""Continued VideoMAE pretraining, from public weights, on your own videos.

  python -m vivit_mae.main --config=configs/own_videos_continue.py \
      --config.data.path=my_videos --workdir=runs/my_videos

`my_videos` is a folder of videos, with or without subfolders; no labels are
needed, and a csv or a prepared dataset works too (see `own_videos_mae.py`).
Encoder and decoder start from VideoMAE's ViT-B (`:B`, the default) or ViT-L
(`:L`), 1600 epochs on Kinetics-400, which the first start fetches
(CC-BY-NC-4.0: not for commercial use). Any other pretraining will do:
`--config.init_from.path` takes a name of docs/model_zoo.md, a file (.pth,
.safetensors) or a workdir, and `--config.model.variant` its size. The log says
what was loaded; without its decoder a file still gives its encoder. `:small`
takes frames of 112 pixels in place of 224, whose positions are stretched;
`:runlocal` is a few steps of a tiny model, from the seed, on the built-in
videos. On a CPU, `--config.model.dtype=float32` is faster.

Recipe: VideoMAE's pretraining at the rate of its large sets, with a short
warm-up, for 100 epochs. It is ours, and not tuned; on few videos expect to want
more epochs. `configs/own_videos_finetune.py:B` goes on from what comes out,
with `--config.init_from.path=runs/my_videos`. The statistics of the pixels are
those that the weights were trained with. Flip is off: it is right only where
left and right mean the same.
"""

from vivit_mae import config as config_lib


def get_config(arg=''):
  """Returns the experiment; see the module's docstring for `arg`."""
  args = config_lib.parse_arg(
    arg, variant=('B', 'L'), small=False, runlocal=False
  )
  config = config_lib.defaults('mae')
  config.batch_size = 64
  config.total_epochs = 100.0
  if not args.runlocal:
    size = args.variant.lower()
    config.init_from.path = f'videomae_v1_{size}_k400_pretrain'

  config.model.variant = f'{args.variant}/16x2'
  config.model.image_size = (112, 112) if args.small else (224, 224)
  config.model.dtype = 'bfloat16'

  config.mask.kind = 'tube'
  config.mask.ratio = 0.9
  config.target.normalise = 'channel'

  config.data.source = 'folder'
  config.data.eval_fraction = 0.05
  config.data.stride = 4
  config.data.crop = 'multi_scale'
  config.data.flip = False
  config.data.num_workers = 4

  config.optimizer.learning_rate = 1.5e-4
  config.optimizer.lr_base = 256
  config.optimizer.min_learning_rate = 1e-5
  config.optimizer.warmup_epochs = 5.0
  config.optimizer.weight_decay = 0.05
  config.optimizer.b2 = 0.95

  config.checkpoint.every_epochs = 5.0
  config.evals.reconstruction = dict(
    kind='reconstruction', every_epochs=5.0, num_clips=32, num_pictures=8
  )
  if args.runlocal:
    config_lib.run_local(config)
  return config
