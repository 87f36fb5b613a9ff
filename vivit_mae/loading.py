"""Weights as a model that can be used: `vivit_mae.load`.

A workdir of this library, a file of another project, or a name of the zoo
becomes a Flax module, its parameters, and what else has to be known to use
them.
"""

import dataclasses
import functools
import json
import logging
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Array, Float, UInt8
from ml_collections import ConfigDict

from vivit_mae import config as config_lib
from vivit_mae import masking, preprocess, targets, tasks
from vivit_mae.convert import class_names as class_names_lib
from vivit_mae.convert import coverage as coverage_lib
from vivit_mae.convert import download, files, ours, weights, zoo
from vivit_mae.convert.family import Description
from vivit_mae.data import decode, sampling, transforms
from vivit_mae.data import video as video_lib
from vivit_mae.evaluation import reconstruction
from vivit_mae.models import video_mae, vivit
from vivit_mae.tasks import classify, mae
from vivit_mae.training import checkpoints, sharding

_log = logging.getLogger(__name__)

ClassNames = tuple[str, ...] | Mapping[str, tuple[str, ...]]

# Of every published recipe on Kinetics but ViViT's.
_STRIDE = 4


@dataclasses.dataclass(frozen=True)
class Info:
  """What has to be known to use a model.

  Attributes:
    source: Where it comes from: a path, or a name of the zoo.
    kind: What it is, for people: 'VideoMAE, pretraining'.
    task: The training task that it fits; it holds the model, the statistics of
      the pixels and, of pretraining, masks and targets.
    description: What model it is, as fields of a config.
    stride: Frames from one frame of a clip to the next; None where nothing
      tells, or where they are spread over the whole video.
    class_names: Of a classifier, in the order of its head, for several heads
      those of each; None where nothing tells.
    has_decoder: Whether a masked autoencoder has its decoder.
    licence: Of the weights; '' where nothing tells.
    coverage: What became of each array of a foreign file; None for a run.
  """

  source: str
  kind: str
  task: mae.MaskedAutoencoding | classify.Classification
  description: Description
  stride: int | None = None
  class_names: ClassNames | None = None
  has_decoder: bool = False
  licence: str = ''
  coverage: coverage_lib.Coverage | None = None

  @property
  def num_frames(self) -> int:
    """Frames of a clip."""
    return self.task.model.num_frames

  @property
  def image_size(self) -> tuple[int, int]:
    """Height and width of a clip in pixels."""
    return self.task.model.image_size

  @property
  def mean(self) -> tuple[float, ...]:
    """What is subtracted from the pixels in [0, 1], per channel."""
    return tuple(map(float, self.task.mean))

  @property
  def std(self) -> tuple[float, ...]:
    """What divides them then, per channel."""
    return tuple(map(float, self.task.std))


class Loaded(NamedTuple):
  """A model with its parameters; `model, params, info = vivit_mae.load(...)`.

  Attributes:
    model: The Flax module, a `VideoMAE` or a `ViViT`.
    params: Its parameters, nested: `model.apply({'params': params}, ...)`.
    info: What else has to be known.
  """

  model: video_mae.VideoMAE | vivit.ViViT
  params: dict[str, Any]
  info: Info

  def features(
    self, video: UInt8[Array, 'b t h w c'] | UInt8[np.ndarray, 'b t h w c']
  ) -> Float[Array, 'b n d']:
    """All encoded tokens of clips, in raster order `(t, h, w)`.

    Args:
      video: Clips as `read_clip` reads them.

    Returns:
      The tokens, without a class token; behind the encoder's last norm where
      it has one.
    """
    return _features(self.model, self.params, _inputs(self.info.task, video))

  def logits(
    self, video: UInt8[Array, 'b t h w c'] | UInt8[np.ndarray, 'b t h w c']
  ) -> dict[str, Float[Array, 'b _']]:
    """What a classifier says of clips.

    Args:
      video: Clips as `read_clip` reads them.

    Returns:
      The logits of each head; a single one is called 'label'.

    Raises:
      ValueError: The model is no classifier.
    """
    task = self.info.task
    if not isinstance(task, classify.Classification):
      raise ValueError(
        f'{self.info.source} is {self.info.kind} and has no classes: fine-tune '
        'it first, with config.init_from.path.'
      )
    return _logits(self.model, self.params, _inputs(task, video))

  def reconstruct(
    self,
    video: UInt8[Array, 'b t h w c'] | UInt8[np.ndarray, 'b t h w c'],
    *,
    ratio: float | None = None,
    seed: int = 0,
  ) -> reconstruction.Reconstruction:
    """Masks clips and fills in what is hidden.

    Args:
      video: Clips as `read_clip` reads them.
      ratio: The share of masked tokens; None for that of the pretraining.
      seed: Of the masks.

    Returns:
      The clips; `evaluation.reconstruction.picture` draws them.

    Raises:
      ValueError: There is no decoder.
    """
    task = self.info.task
    if not (isinstance(task, mae.MaskedAutoencoding) and self.info.has_decoder):
      raise ValueError(
        f'{self.info.source} is {self.info.kind} and holds no decoder, which '
        'a reconstruction needs: load the file of a pretraining that has one '
        "(its arrays are called 'decoder...' and 'mask_token')."
      )
    if ratio is not None:
      task = dataclasses.replace(task, mask_ratio=ratio)
    clips = jnp.asarray(video)
    mask = task.sample_mask(jax.random.split(jax.random.key(seed), len(clips)))
    return _reconstruct(task, self.params, clips, mask)


def _inputs(task: Any, video: Any) -> Float[Array, 'b t h w c']:
  unit = preprocess.to_unit(jnp.asarray(video))
  return preprocess.normalise(unit, task.mean, task.std)


@functools.partial(jax.jit, static_argnums=0)
def _features(
  model: nn.Module, params: Any, inputs: Float[Array, 'b t h w c']
) -> Float[Array, 'b n d']:
  features = model.apply(
    {'params': params}, inputs, deterministic=True, method='features'
  )
  assert isinstance(features, jax.Array)
  return features


@functools.partial(jax.jit, static_argnums=0)
def _logits(
  model: nn.Module, params: Any, inputs: Float[Array, 'b t h w c']
) -> dict[str, Float[Array, 'b _']]:
  output = model.apply({'params': params}, inputs, deterministic=True)
  assert isinstance(output, vivit.ClassifierOutput)
  return output.logits


@functools.partial(jax.jit, static_argnums=0)
def _reconstruct(
  task: mae.MaskedAutoencoding,
  params: Any,
  video: UInt8[Array, 'b t h w c'],
  mask: masking.TokenMask,
) -> reconstruction.Reconstruction:
  return reconstruction.reconstruct(task, {'params': params}, video, mask)


def load(
  path_or_name: str | os.PathLike[str],
  *,
  partial: bool = False,
  class_names: str | ClassNames | None = None,
  **fields: Any,
) -> Loaded:
  """Loads weights: `model, params, info = vivit_mae.load(...)`.

  Args:
    path_or_name: A workdir of this library (the newest checkpoint, averaged
      parameters if there are any), a file or folder of any format that
      `convert.files` reads, or a name in docs/model_zoo.md, which is fetched
      once and kept.
    partial: Takes what fits of a foreign file, see `convert.weights.convert`;
      what is missing stays out of the parameters.
    class_names: The classes of a head, in its order, or the name of a dataset
      in `convert.class_names.DATASETS`; None for what comes with the weights.
    **fields: Fields of the model that should differ, or that a foreign file
      does not tell: `num_frames=32` resizes the positions. Not of workdirs.

  Returns:
    Model, parameters and what else has to be known.

  Raises:
    ValueError: There is nothing of that name, it is no known model, it does
      not fit, or the class names are not as many as the classes.
  """
  source = os.fspath(path_or_name)
  if epath.Path(source).exists() and checkpoints.holds_any(source):
    if partial or any(value is not None for value in fields.values()):
      raise ValueError(
        f'{source} is a workdir, which is loaded as it was trained: take its '
        'weights into another model with config.init_from.path.'
      )
    loaded = _of_run(source)
  else:
    loaded = _of_file(source, partial, fields)
  if class_names is None:
    return loaded
  if isinstance(class_names, str):
    class_names = class_names_lib.class_names(class_names)
  return loaded._replace(
    info=dataclasses.replace(
      loaded.info, class_names=_checked(class_names, loaded.info)
    )
  )


def read_clip(
  video: str | os.PathLike[str] | bytes,
  info: Info,
  *,
  stride: int | None = None,
) -> UInt8[np.ndarray, '1 t h w 3']:
  """Reads the middle of a video as a model takes it.

  Args:
    video: A video file, or its bytes.
    info: Of the model.
    stride: Frames from one to the next; None for `info.stride`, or the 4 of
      most recipes where that tells nothing.

  Returns:
    One clip: the central square, resized, of frames around the middle. A video
    that is too short repeats its last frame.

  Raises:
    VideoError: The video cannot be read.
  """

  def plan(about: video_lib.VideoInfo) -> list[video_lib.Clip]:
    (frames,) = sampling.sample_clips(
      about.num_frames, info.num_frames, stride=stride or info.stride or _STRIDE
    )
    box = transforms.center_crop(about.height, about.width, info.image_size)
    return [
      video_lib.Clip(
        frames=frames, size=info.image_size, box=box, flip=False, antialias=True
      )
    ]

  return decode.read_clips(video, plan)[0][None]


def _of_run(path: str) -> Loaded:
  """What a run of this library has trained."""
  saved = checkpoints.saved_config(path, 'path')
  if saved is None:
    raise ValueError(
      f'{path} has checkpoints and no config.json beside them, which says what '
      'model they are of.'
    )
  config = config_lib.from_saved(saved)
  found = checkpoints.weights_of(path)
  names = _names_of_run(path)
  if config.task == 'classify' and config.model.num_classes is None:
    heads = {
      name.split('/')[1]: shape[-1]
      for name, shape in found.shapes.items()
      if name.startswith('head/')
      and name.endswith('/kernel')
      and name.split('/')[1] not in ('norm', 'pool', 'pre_logits')
    }
    numbered = {k: tuple(map(str, range(n))) for k, n in heads.items()}
    several = set(numbered) != {'label'}
    task = tasks.build(
      config, class_names=numbered if several else numbered['label']
    )
  else:
    task = tasks.build(config)
  assert isinstance(task, (mae.MaskedAutoencoding, classify.Classification))
  with jax.set_mesh(sharding.make_mesh()):
    variables, step = checkpoints.load_variables(path, task.init)
  info = Info(
    source=path,
    kind=f'a run of task {config.task}, step {step}',
    task=task,
    description=_described(config, task),
    stride=config.data.stride,
    class_names=names,
    has_decoder=config.task == 'mae',
  )
  return Loaded(task.model, variables['params'], info)


def _described(
  config: ConfigDict, task: mae.MaskedAutoencoding | classify.Classification
) -> Description:
  """What model a run has trained."""
  model = {k: v for k, v in config.model.items() if v is not None}
  target_dim = None
  if isinstance(task, classify.Classification):
    model['num_classes'] = task.model.num_classes
  else:
    target_dim = task.target.dim
  return Description(
    task=config.task,
    model=model,
    preprocess=config.preprocess.to_dict(),
    mask={} if target_dim is None else config.mask.to_dict(),
    target={} if target_dim is None else config.target.to_dict(),
    target_dim=target_dim,
  )


def _noted_stride(checkpoint: files.Checkpoint) -> int | None:
  stride = ours.about(checkpoint.config).get('stride')
  return stride if isinstance(stride, int) else None


def _names_of_run(path: str) -> ClassNames | None:
  """The class names that a run has noted."""
  file = checkpoints.folder_of(path) / 'class_names.json'
  if not file.exists():
    return None
  names = json.loads(file.read_text())
  if isinstance(names, dict):
    return {head: tuple(these) for head, these in names.items()}
  return tuple(names)


def _of_file(source: str, partial: bool, fields: Mapping[str, Any]) -> Loaded:
  """Weights of another project, from a file or from the zoo."""
  entry = None
  if os.path.exists(source):
    checkpoint = files.read(source)
  else:
    entry = zoo.lookup(source)
    download.note_licence(entry)
    checkpoint = files.read(download.fetch(entry))
  converted = weights.convert(checkpoint, partial=partial, **fields)
  for note in converted.description.notes:
    _log.warning('%s: %s', source, note)
  names = converted.class_names
  if entry is not None and entry.dataset in class_names_lib.DATASETS:
    names = class_names_lib.class_names(entry.dataset)
  info = Info(
    source=source,
    kind=converted.family,
    task=_task(converted),
    description=converted.description,
    stride=entry.stride if entry else _noted_stride(checkpoint),
    class_names=names,
    has_decoder=converted.has_decoder,
    licence=entry.licence if entry else '',
    coverage=converted.coverage,
  )
  if names is not None:
    info = dataclasses.replace(info, class_names=_checked(names, info))
  params = jax.tree.map(jnp.asarray, converted.params)
  return Loaded(converted.model, params, info)


def _task(
  converted: weights.Converted,
) -> mae.MaskedAutoencoding | classify.Classification:
  """The training task that converted weights fit."""
  description, model = converted.description, converted.model
  statistics = {
    name: tuple(description.preprocess[name]) for name in ('mean', 'std')
  }
  if isinstance(model, vivit.ViViT):
    return classify.Classification(
      model=model,
      multi_label=False,
      smoothing=0.0,
      erase={'probability': 0.0},
      mix={'mixup': 0.0, 'cutmix': 0.0},
      **statistics,
    )
  mask = {'rounding': 'masked_down', **description.mask}
  return mae.MaskedAutoencoding(
    model=model,
    target=targets.build(
      tubelet=model.tubelet, channels=model.channels, **description.target
    ),
    mask_kind=mask['kind'],
    mask_ratio=mask['ratio'],
    mask_rounding=mask['rounding'],
    decoder_mask_kind=None,
    decoder_mask_ratio=0.5,
    **statistics,
  )


def _checked(names: ClassNames, info: Info) -> ClassNames:
  """Class names that are as many as the classes."""
  if not isinstance(info.task, classify.Classification):
    raise ValueError(f'{info.source} is {info.kind} and has no classes.')
  heads = info.task.heads
  named = names if isinstance(names, Mapping) else {'label': names}
  counts = {head: len(these) for head, these in named.items()}
  if counts != heads:
    raise ValueError(
      f'{info.source} tells {heads} classes apart, and class_names has '
      f'{counts} of them.'
    )
  return names
