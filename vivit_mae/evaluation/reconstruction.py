"""What a masked autoencoder makes of held-out clips, in numbers and pictures.

A network that predicts normalised patches says nothing about the brightness
and contrast of a patch, so its output can be shown in two honest ways, and both
are: "with the true patch statistics" borrows them from the original, as the
figures of the papers do, and flatters the model; "model only" puts in what the
visible pixels of the clip say.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.experimental import multihost_utils
from jaxtyping import Array, Float, UInt8

from vivit_mae import masking
from vivit_mae.data import datasets, encode, pipeline
from vivit_mae.evaluation import pictures, subsets
from vivit_mae.models import tubelets
from vivit_mae.tasks import mae

_GREY = 0.5
_FORMATS = ('png', 'gif', 'mp4')
_FRAMES_PER_SECOND = 8
_ROWS_OF_A_BATCH = 8


@flax.struct.dataclass
class Reconstruction:
  """Clips, what the encoder saw of them, and what the model made of it.

  The clips hold the frames that the target has: all, or one of each tubelet.

  Attributes:
    original: uint8 `[b, f, h, w, c]`.
    masked: the same with the masked tubelets grey.
    model_only: visible tubelets and predictions that know nothing else.
    true_statistics: visible tubelets and predictions with the mean and
      deviation of the original's patches; equals `model_only` where the target
      is not normalised.
    psnr: dB `[b]` of `model_only` over the masked pixels, peak 1.
    psnr_true_statistics: dB `[b]`, likewise.
    psnr_guess: dB `[b]` of the trivial guess, the clip's mean visible colour.
    loss: `[b]`, the training loss of each clip.
  """

  # Any, because jax also fills trees with shapes, axes and shardings.
  original: Any
  masked: Any
  model_only: Any
  true_statistics: Any
  psnr: Any
  psnr_true_statistics: Any
  psnr_guess: Any
  loss: Any


def reconstruct(
  task: mae.MaskedAutoencoding,
  variables: Mapping[str, Any],
  video: UInt8[Array, 'b t h w c'],
  mask: masking.TokenMask,
) -> Reconstruction:
  """Masks clips, predicts what is hidden and puts it back into place.

  Args:
    task: the task that the variables were trained on.
    variables: the model's variables.
    video: clips.
    mask: which of their tokens are visible.

  Returns:
    The clips, the pictures and their errors.
  """
  unit, inputs = task.inputs(video)
  target = task.target
  prediction = task.predict(variables, inputs, mask, deterministic=True)
  visible = target.pixels(unit, mask.visible)
  hidden = target.pixels(unit, mask.masked)
  seen = visible.reshape(len(video), -1, target.channels)
  colour = seen.mean(axis=1)[:, None]
  if target.normalise == 'none':
    stand_in = target.statistics(unit, mask.masked)
  elif target.normalise == 'channel':
    stand_in = colour, seen.std(axis=1)[:, None]
  else:
    stand_in = (
      seen.mean(axis=(1, 2))[:, None, None],
      seen.std(axis=(1, 2))[:, None, None],
    )
  model_only = target.invert(prediction, *stand_in)
  true_statistics = target.invert(
    prediction, *target.statistics(unit, mask.masked)
  )
  guess = jnp.tile(colour, (1, 1, hidden.shape[-1] // target.channels))
  place = functools.partial(_place, task, mask, visible)
  return Reconstruction(
    original=place(hidden),
    masked=place(jnp.full_like(hidden, _GREY)),
    model_only=place(model_only),
    true_statistics=place(true_statistics),
    psnr=_psnr(model_only, hidden),
    psnr_true_statistics=_psnr(true_statistics, hidden),
    psnr_guess=_psnr(guess, hidden),
    loss=task.clip_loss(prediction, unit, mask),
  )


def _place(
  task: mae.MaskedAutoencoding,
  mask: masking.TokenMask,
  visible: Float[Array, 'b v p'],
  masked: Float[Array, 'b m p'],
) -> UInt8[Array, 'b f h w c']:
  """Puts visible and masked tokens where they belong."""
  order = jnp.argsort(jnp.concatenate([mask.visible, mask.masked], axis=1))
  tokens = jnp.concatenate([visible, masked], axis=1)
  video = tubelets.unpatchify(
    tubelets.gather_tokens(tokens, order), task.model.grid, task.target.patch
  )
  return jnp.round(255 * video).astype(jnp.uint8)


def _psnr(
  a: Float[Array, 'b #m p'], b: Float[Array, 'b m p']
) -> Float[Array, 'b']:
  error = jnp.mean(jnp.square(a - b), axis=(1, 2))
  return -10 * jnp.log10(jnp.maximum(error, 1e-10))


@dataclasses.dataclass(frozen=True)
class Evaluator:
  """Reconstructs held-out clips under masks that never change.

  Yields, averaged over the clips: `loss`, `psnr` (model only),
  `psnr_true_statistics` (for normalised targets) and `psnr_guess`, in dB over
  the masked pixels; and film strips as pictures. The strips, and the same
  moving, are written to `<workdir>/reconstructions/step_<step>/`, all strips
  together as `overview.png`.

  Attributes:
    task: what was trained.
    source: the held-out videos; clips are taken evenly over them.
    data: the config's `data` section.
    put: puts a host's rows onto its devices as one global batch.
    num_devices: the batch is a multiple of it.
    workdir: where the pictures go.
    num_clips: how many videos the numbers are averaged over.
    num_pictures: how many of these are drawn.
    formats: of 'png' (film strip), 'gif' and 'mp4' (side by side).
  """

  task: mae.MaskedAutoencoding
  source: datasets.Source
  data: Mapping[str, Any]
  put: Callable[[Mapping[str, np.ndarray]], dict[str, jax.Array]]
  num_devices: int
  workdir: epath.Path
  num_clips: int = 64
  num_pictures: int = 4
  formats: tuple[str, ...] = ('png', 'gif')

  def __post_init__(self):
    unknown = set(self.formats) - set(_FORMATS)
    if unknown:
      raise ValueError(
        f'formats of a reconstruction evaluator hold {sorted(unknown)}; '
        f'known are {_FORMATS}.'
      )

  def run(
    self, variables: Mapping[str, Any], step: int
  ) -> Iterator[tuple[str, float | UInt8[np.ndarray, 'h w 3']]]:
    """Reconstructs the clips.

    Args:
      variables: the model's variables.
      step: the step they were trained for; it names the folder.

    Yields:
      Pairs of a name and a number or a picture.
    """
    count = min(self.num_clips, len(self.source))
    held_out = subsets.Evenly(self.source, count)
    drawn = set(np.linspace(0, count - 1, self.num_pictures).astype(int))
    strips: list[UInt8[np.ndarray, 'h w 3']] = []
    sums: dict[str, float] = {}
    num_valid = 0
    for batch in self._batches(held_out):
      result = multihost_utils.process_allgather(
        self._reconstruct(variables, self.put(batch)), tiled=True
      )
      rows, indices = result.pop('rows'), result.pop('indices')
      for row, index in enumerate(indices):
        if index < 0:
          continue
        num_valid += 1
        one = jax.tree.map(lambda x, row=row: x[row], rows)
        for name, value in _numbers(one, self._normalised).items():
          sums[name] = sums.get(name, 0.0) + value
        if index in drawn:
          strips.append(self._draw(one, int(index), step))
          yield f'clip_{index:02d}', strips[-1]
    if strips and 'png' in self.formats and jax.process_index() == 0:
      overview = pictures.png(pictures.stack(strips))
      (self._folder(step) / 'overview.png').write_bytes(overview)
    for name, value in sums.items():
      yield name, value / num_valid

  @property
  def _normalised(self) -> bool:
    return self.task.target.normalise != 'none'

  @functools.cached_property
  def _reconstruct(self) -> Callable[..., Any]:
    return jax.jit(functools.partial(_reconstruct_batch, self.task))

  def _batches(
    self, source: datasets.Source
  ) -> Iterator[dict[str, np.ndarray]]:
    model = self.task.model
    batch_size = self.num_devices * -(-_ROWS_OF_A_BATCH // self.num_devices)
    for batch in pipeline.eval_iterator(
      source,
      self.data,
      num_frames=model.num_frames,
      image_size=model.image_size,
      batch_size=batch_size,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    ):
      # 'to_rgb' comes with pixels that are not RGB yet.
      names = ('video', 'to_rgb', 'index')
      yield {name: batch[name] for name in names if name in batch}

  def _folder(self, step: int) -> epath.Path:
    return self.workdir / 'reconstructions' / f'step_{step:08d}'

  def _draw(
    self, one: Reconstruction, index: int, step: int
  ) -> UInt8[np.ndarray, 'h w 3']:
    """Draws one clip, and writes it in every format asked for."""
    rows = _labelled(self.task, one)
    strip = pictures.film_strip(rows)
    if jax.process_index() == 0:
      folder = self._folder(step)
      folder.mkdir(parents=True, exist_ok=True)
      moving = pictures.panels(rows)
      path = folder / f'clip_{index:02d}'
      if 'png' in self.formats:
        path.with_suffix('.png').write_bytes(pictures.png(strip))
      if 'gif' in self.formats:
        encode.write_gif(path.with_suffix('.gif'), moving, _FRAMES_PER_SECOND)
      if 'mp4' in self.formats:
        encode.write_video(path.with_suffix('.mp4'), moving, _FRAMES_PER_SECOND)
    return strip


def picture(
  task: mae.MaskedAutoencoding, one: Reconstruction
) -> UInt8[np.ndarray, 'h w 3']:
  """Draws a clip, what was seen of it and what was made of that, as strips.

  Args:
    task: the task that made it.
    one: one clip of a `Reconstruction`, on the host, without the batch axis.

  Returns:
    The picture.
  """
  return pictures.film_strip(_labelled(task, one))


def _labelled(
  task: mae.MaskedAutoencoding, one: Reconstruction
) -> dict[str, UInt8[np.ndarray, 'f h w 3']]:
  """The clips of one reconstruction, as RGB, by what is written above them."""
  rows = {
    'original': one.original,
    f'masked, {task.mask_ratio:.0%}': one.masked,
  }
  if task.target.normalise != 'none':
    label = 'with the true patch statistics'
    rows[f'{label}, {one.psnr_true_statistics:.1f} dB'] = one.true_statistics
  label = f'model only, {one.psnr:.1f} dB (mean colour {one.psnr_guess:.1f})'
  rows[label] = one.model_only
  return {name: _rgb(clip) for name, clip in rows.items()}


def _reconstruct_batch(
  task: mae.MaskedAutoencoding,
  variables: Mapping[str, Any],
  batch: Mapping[str, Array],
) -> dict[str, Any]:
  """Reconstructs rows under masks that depend on their index alone."""
  indices = batch['index']
  keys = jax.vmap(jax.random.fold_in, (None, 0))(
    jax.random.key(0), jnp.maximum(indices, 0)
  )
  mask = task.sample_mask(keys)
  rows = reconstruct(task, variables, batch['video'], mask)
  return {'rows': rows, 'indices': indices}


def _numbers(one: Reconstruction, normalised: bool) -> dict[str, float]:
  numbers = {
    'loss': float(one.loss),
    'psnr': float(one.psnr),
    'psnr_guess': float(one.psnr_guess),
  }
  if normalised:
    numbers['psnr_true_statistics'] = float(one.psnr_true_statistics)
  return numbers


def _rgb(clip: UInt8[np.ndarray, 't h w c']) -> UInt8[np.ndarray, 't h w 3']:
  """The first three channels; the first alone where there are fewer."""
  return clip[..., :3] if clip.shape[-1] >= 3 else clip[..., [0, 0, 0]]
