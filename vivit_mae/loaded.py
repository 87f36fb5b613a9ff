"""A model with its weights, and what has to be known to use it."""

import dataclasses
import functools
import os
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from vivit_mae import masking, preprocess
from vivit_mae.convert import coverage as coverage_lib
from vivit_mae.convert.family import Description
from vivit_mae.convert.weights import ClassNames
from vivit_mae.data import decode, sampling, transforms
from vivit_mae.data import video as video_lib
from vivit_mae.evaluation import reconstruction
from vivit_mae.models import video_mae, vivit
from vivit_mae.tasks import classify, mae

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
