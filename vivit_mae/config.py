"""Configurations: every field with its default, and what experiments need.

An experiment file in `configs/` defines `get_config(arg='')`. It starts from
`defaults(task)` and sets values; the command line overrides them
(`--config.mask.ratio=0.75`). `config_checks` finds mistakes.
"""

import ast
import difflib
import types
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict, config_dict

_optional = config_dict.placeholder


def defaults(task: str = 'mae') -> ConfigDict:
  """Every field of an experiment, with its default; the one place for both.

  Fields that hold None take the type named by `_optional`; a pair of numbers
  is a tuple. `evals` is open: an entry `name -> {kind, every_steps, ...}` adds
  an evaluator.

  Args:
    task: What is learned; `tasks.build` lists the choices.

  Returns:
    A locked ConfigDict.
  """
  config = ConfigDict()
  config.evals = evals = ConfigDict()
  config.task = task
  config.seed = 0
  # Videos of one update over all hosts and all accumulation steps.
  config.batch_size = 8
  config.accum_steps = 1
  # Exactly one of the two is set. An epoch is one pass over the videos.
  config.total_epochs = _optional(float)
  config.total_steps = _optional(int)

  config.model = _model(task)
  if task == 'classify':
    config.classify = dict(
      smoothing=0.0,  # of the labels
      erase=dict(
        probability=0.0,  # of a clip to lose a box
        area=(0.02, 1 / 3),
        aspect=(0.3, 3.3),
        mode='pixel',
        cube=True,  # the same box in all frames
      ),
      mix=dict(
        mixup=0.0,  # alpha of the Beta distribution; 0: none
        cutmix=0.0,
        switch=0.5,  # probability of cutmix where both are on
        probability=1.0,
        mode='batch',
      ),
    )
  else:
    config.mask = dict(
      kind='tube',
      ratio=0.9,
      rounding='masked_down',
      # VideoMAE V2's second mask, whose visible tokens are decoded.
      decoder_kind=_optional(str),
      decoder_ratio=0.5,
    )
    config.target = dict(
      kind='pixels', normalise='channel', frames='all', epsilon=1e-6
    )
  config.preprocess = dict(
    mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
  )
  config.data = dict(
    # 'synthetic' | 'tfds' | 'folder' | 'csv' | 'frames' | 'dmvr'
    # | a public dataset: 'ssv2', ...
    source='synthetic',
    path='',
    split='train',
    eval_split='validation',
    eval_fraction=0.0,  # folder, csv: share of the videos held out
    fps=30.0,  # of videos that are stored as pictures
    official_split=1,  # ucf101, hmdb51: which of the three
    labels_per_class=_optional(int),  # classify: train on so many of each
    unlabelled=(),  # sub-folders whose videos have no label
    stride=4,  # frames from one sampled frame to the next
    stride_seconds=_optional(float),  # instead of stride, in seconds
    # 'stride' | 'dense' | 'segments' | 'mae_st' | 'vivit'
    sampling='stride',
    # 'multi_scale' | 'random_resized' | 'jittered' | 'center'
    crop='multi_scale',
    crop_scale=(0.5, 1.0),
    crop_ratio=(3 / 4, 4 / 3),
    crop_jitter=(0.9, 1.33),
    short_side=_optional(int),  # None: the crop just fits
    flip=False,
    rand_augment='',  # e.g. 'rand-m7-n4-mstd0.5-inc1'
    rand_augment_interpolation='bicubic',  # 'bicubic' | 'bilinear'
    pixels='rgb',  # 'rgb' | 'yuv420': made RGB on the device
    repeats=1,  # clips of one decoded video
    repeat='crops',  # they differ in 'crops' | 'windows'
    num_workers=0,
    read_buffer=1,
    device_prefetch=2,  # batches on the devices ahead of their step
    video_timeout=120.0,  # seconds; a worker that takes longer is replaced
    max_bad_fraction=0.25,
    cache_dir='',  # synthetic: where it is written; '': the user's cache
    num_videos=1200,  # synthetic: how many are written
  )
  config.optimizer = dict(
    name='adamw',  # 'adamw' | 'sgd' | 'lars'
    learning_rate=1.5e-4,  # for lr_base rows; scaled linearly by the batch
    lr_base=256,
    lr_scales_with='videos',  # 'videos' | 'clips' (videos x repeats)
    b1=0.9,
    b2=0.95,
    eps=1e-8,
    momentum=0.9,  # of sgd and lars
    nesterov=False,  # sgd
    trust_coefficient=1e-3,  # lars
    weight_decay=0.05,
    weight_decay_end=_optional(float),  # None: constant
    decay_tokens=False,  # positions, class and mask tokens too (MAE-ST)
    schedule='cosine',  # 'cosine' (VideoMAE) | 'warmup_cosine' (MAE-ST)
    warmup_epochs=40.0,
    warmup_steps=_optional(int),  # instead of warmup_epochs
    min_learning_rate=1e-5,
    clip_norm=_optional(float),
    layer_decay=_optional(float),  # a rate lower by this factor each layer down
    freeze=(),  # regular expressions: parameters that stay as they are
    ema_decay=0.0,  # of the average of the parameters; 0: none
  )
  # Neither interval set: ten checkpoints over the run. The last is always kept.
  config.checkpoint = dict(
    every_steps=_optional(int),
    every_epochs=_optional(float),
    keep_last=2,
    keep_every_steps=_optional(int),
    best_metric='',  # e.g. 'reconstruction/psnr': keeps the best one as well
    best_mode='min',  # 'min' | 'max'
  )
  config.resume = ''  # another workdir to go on from: state and data
  config.init_from = dict(
    path='',  # a workdir, public weights: a file, or a name of the zoo
    skip=(),  # regular expressions: weights of it that are left out
    # How an image model becomes a video model, see `models/inflate.py`.
    inflate=dict(
      kernel='central_frame',  # | 'average' | 'average_arp'
      positions='resize_tile',  # | 'resize' | 'tile'
      temporal='copy',  # | 'zero' | 'fresh': of factorised self-attention
    ),
  )
  config.mesh = dict(
    data=-1,  # -1: all the devices that fsdp leaves
    fsdp=1,  # devices that share the parameters
    fsdp_min_bytes=4 * 2**20,  # smaller arrays are replicated
  )
  config.log = dict(
    every_steps=50,
    tensorboard=True,
    norms=True,  # of gradients, parameters and updates: reads each once more
  )
  config.profile = dict(start_step=0, num_steps=0)
  config.compilation_cache = ''  # a folder; '': none
  config.lock()
  evals.unlock()
  return config


def _model(task: str) -> dict[str, Any]:
  """The section about the model; a None takes what the variant says."""
  model = dict(
    variant='B/16x2',  # size / patch x tubelet length
    num_frames=16,
    image_size=(224, 224),  # height, width
    channels=3,
    width=_optional(int),
    depth=_optional(int),
    heads=_optional(int),
    mlp_dim=_optional(int),
    # 'none' | 'encoder' | 'self_attention' | 'dot_product': ViViT's 1 to 4
    factorisation='none',
    # A None here takes what the recipe says, see `models.variants`.
    positions=_optional(str),
    class_token=_optional(str),
    qkv_bias=_optional(str),
    cosine_attention=False,
    gelu=_optional(str),
    epsilons='published',  # of norms: 'published' | 'hugging_face'
    initialisation=_optional(str),
    temporal_depth=4,
    spatial_only=False,
    attention_order='time_space',  # 'time_space' | 'space_time'
    position_grid=_optional(tuple),  # None: that of init_from, or the model's
    layer_scale=0.0,  # initial value; 0: none
    dropout=0.0,
    drop_path=0.0,
    drop_path_rescale=True,
    dtype='float32',  # of the matrix products: 'float32' | 'bfloat16'
    remat='none',  # 'none' | 'full' | 'dots'
    scan=False,
    attention='auto',
  )
  if task == 'classify':
    return model | dict(
      num_classes=_optional(int),  # None: those of the data
      recipe='videomae',  # 'videomae' | 'mae_st' | 'vivit'
      embedding='tubelet',  # 'tubelet' | 'uniform_frames'
      pooling=_optional(str),  # 'token' | 'mean' | 'max' | 'sum' | 'first'
      norm=_optional(str),  # 'before_pooling' | 'after_pooling' | 'deferred'
      head='linear',  # 'linear' | 'attentive'
      representation_size=_optional(int),
      head_dropout=0.0,
      head_init_scale=_optional(float),
      head_init_bias=0.0,
      probe=False,
      probe_batch_norm=False,
    )
  return model | dict(
    # 'videomae' | 'videomae_v2' | 'mae_st' | 'pyslowfast' | 'image_mae'
    recipe='videomae',
    decoder_width=_optional(int),
    decoder_depth=_optional(int),
    decoder_heads=_optional(int),
    decoder_mlp_dim=_optional(int),
    decoder_positions=_optional(str),
    decoder_class_token=_optional(str),  # 'encoder' | 'own'
    bridge_bias=_optional(bool),
  )


def from_saved(saved: Mapping[str, Any]) -> ConfigDict:
  """The config of a run, from its `config.json`.

  Args:
    saved: What the file holds.

  Returns:
    The config, with today's defaults for fields that it did not have.
  """
  config = defaults(saved['task'])
  with config.unlocked():
    _update(config, saved)
    # What `recipe` was called in pretraining, when it chose the decoder alone.
    if 'decoder' in config.model:
      config.model.recipe = config.model.decoder
      del config.model.decoder
  return config


def _update(config: ConfigDict, saved: Mapping[str, Any]) -> None:
  """Puts the values of a JSON object into a config; its lists are tuples."""
  for name, value in saved.items():
    if isinstance(value, Mapping):
      if name not in config:
        config[name] = ConfigDict()
      _update(config[name], value)
    else:
      with config.ignore_type():
        config[name] = _tuples(value)


def _tuples(value: Any) -> Any:
  return tuple(map(_tuples, value)) if isinstance(value, list) else value


def parse_arg(arg: str, **known: Any) -> types.SimpleNamespace:
  """Reads the text after the colon in `--config=file.py:L,runlocal`.

  Args:
    arg: Comma-separated values. One that is a choice of a tuple sets that
      option, the name of a boolean switches it on, `name=value` sets any.
    **known: The options with their defaults: False for a switch, a tuple of
      choices of which the first is the default, or a plain value.

  Returns:
    The options: `parse_arg('L,runlocal', variant=('B', 'L'), runlocal=False)`
    has `.variant == 'L'` and `.runlocal is True`.

  Raises:
    ValueError: Unknown argument; lists the known.
  """
  options = types.SimpleNamespace(
    **{k: v[0] if isinstance(v, tuple) else v for k, v in known.items()}
  )
  words = {}
  for name, value in known.items():
    if isinstance(value, tuple):
      words |= {choice: (name, choice) for choice in value}
    elif isinstance(value, bool):
      words[name] = (name, True)
    else:
      words[f'{name}={value}'] = (name, value)
  for part in filter(None, (p.strip() for p in arg.split(','))):
    name, equals, text = part.partition('=')
    if part in words:
      name, value = words[part]
    elif equals and name in known:
      value = known[name]
      if isinstance(value, tuple) and text not in value:
        raise ValueError(
          f'config argument {part!r}: {name} is one of {", ".join(value)}'
        )
      kind = str if isinstance(value, tuple) else type(value)
      value = parse_value(text, kind, f'config argument {name}')
    else:
      raise ValueError(
        f'unknown config argument {part!r}{suggest(part, list(words))}; '
        f'known: {", ".join(words) or "none"}'
      )
    setattr(options, name, value)
  return options


def run_local(config: ConfigDict) -> None:
  """Shrinks an experiment to a minute on a laptop, in place.

  The model becomes tiny and the videos the built-in ones; what makes the
  recipe (mask, target, stride, crops, optimiser) stays.

  Args:
    config: The experiment.
  """
  config.batch_size = 8
  config.accum_steps = 1
  config.total_epochs = None
  config.total_steps = 4
  config.model.update(
    num_frames=4,
    image_size=(64, 64),
    width=48,
    depth=2,
    heads=4,
    mlp_dim=96,
  )
  if config.task == 'mae':
    config.model.update(
      decoder_width=48, decoder_depth=1, decoder_heads=3, decoder_mlp_dim=96
    )
  config.data.source = 'synthetic'
  config.data.path = ''
  config.data.num_videos = 48
  config.data.num_workers = 0
  config.optimizer.warmup_steps = 2
  config.checkpoint.every_epochs = None
  config.log.every_steps = 1
  for evaluator in config.evals.values():
    evaluator.update(every_epochs=None, every_steps=4)
    if 'num_clips' in evaluator:
      evaluator.num_clips = 8


def parse_value(text: str, kind: Any, name: str) -> Any:
  """Reads text as a value of the type `kind`; `name` is for the error."""
  try:
    if kind is bool:
      return {'true': True, '1': True, 'false': False, '0': False}[text.lower()]
    if kind is tuple:
      return _parse_tuple(text)
    return kind(text)
  except (KeyError, ValueError, SyntaxError) as error:
    wanted = 'true or false' if kind is bool else f'of type {kind.__name__}'
    raise ValueError(f'{name} must be {wanted}, not {text!r}') from error


def _parse_tuple(text: str) -> tuple[Any, ...]:
  try:
    value = ast.literal_eval(text)
  except (ValueError, SyntaxError):
    if any(bracket in text for bracket in '()[]'):
      raise
    value = [part.strip() for part in text.split(',') if part.strip()]
  return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def suggest(word: str, known: Sequence[str]) -> str:
  """' (did you mean ...?)' if one of the known is near the word, or ''."""
  near = difflib.get_close_matches(word, known, 1, 0.6)
  return f' (did you mean {near[0]!r}?)' if near else ''
