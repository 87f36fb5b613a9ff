"""Classification: fine-tuning, training from scratch, and probes.

A clip has one label, or several, or one for each of several heads. The recipe
is that of VideoMAE and MAE-ST (VideoMAE, appendix A; MAE-ST, appendix A.2):
erasing, mixup or cutmix and smoothed labels, on the device. What else belongs
to it lies elsewhere: RandAugment and crops in the data, layer-wise decay and
frozen parameters in the optimiser.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from clu import metrics as clu_metrics
from jaxtyping import Array, Bool, Float, Int, Key, Shaped, UInt8

from vivit_mae import preprocess
from vivit_mae.models import flops, heads, residual, variants, vivit

ClassNames = Sequence[str] | Mapping[str, Sequence[str]]
Labels = Int[Array, 'b'] | Float[Array, 'b _']

# The uses of a row's key.
_PATH, _ERASE, _MIX = range(3)

# Of a row that is blended with none that does not count; less rounding.
_WHOLE = 1 - 1e-6
_COUNTED = 'counted '

# The parameters that a probe leaves as they are.
_BEFORE_HEAD = '(?!head/).*'


@dataclasses.dataclass(frozen=True)
class Classification:
  """Training of a classifier.

  Attributes:
    model: the classifier.
    multi_label: whether a clip may have several labels: a sigmoid for each
      class instead of one softmax over them.
    smoothing: of the labels, see `preprocess.soft_targets`.
    erase: arguments of `preprocess.erase`.
    mix: arguments of `preprocess.mix`.
    mean: subtracted from the pixels in [0, 1], per channel.
    std: divides them, per channel.
  """

  model: vivit.ViViT
  multi_label: bool
  smoothing: int | float
  erase: Mapping[str, Any]
  mix: Mapping[str, Any]
  mean: tuple[int | float, ...]
  std: tuple[int | float, ...]

  @property
  def heads(self) -> dict[str, int]:
    """How many classes each head tells apart; one head is called 'label'."""
    return heads.named_classes(self.model.num_classes)

  @property
  def frozen(self) -> tuple[str, ...]:
    """Regular expressions of parameters that are not trained."""
    return (_BEFORE_HEAD,) if self.model.probe else ()

  @property
  def num_layers(self) -> int:
    """Blocks of the encoder; see `tasks.Task`."""
    return self.model.num_layers

  def layer_of(self, name: str) -> int:
    """The layer of a parameter; see `tasks.Task`."""
    return self.model.layer_of(name)

  def adapt(
    self,
    name: str,
    saved: Shaped[np.ndarray, '...'],
    wanted: tuple[int, ...],
  ) -> Shaped[np.ndarray, '...'] | None:
    """Fits a saved parameter to the model; see `tasks.Task`."""
    return self.model.adapt(name, saved, wanted)

  def init(self, rng: Key[Array, '']) -> dict[str, Any]:
    """Fresh variables of the model; see `tasks.Task`."""
    model = self.model
    video = jnp.zeros(
      (1, model.num_frames, *model.image_size, model.channels), jnp.float32
    )
    return dict(model.init(rng, video, deterministic=True))

  def inputs(
    self, video: UInt8[Array, 'b t h w c']
  ) -> Float[Array, 'b t h w c']:
    """What the network is fed: normalised pixels."""
    unit = preprocess.to_unit(video)
    return preprocess.normalise(unit, self.mean, self.std)

  def logits(
    self, variables: Mapping[str, Any], video: UInt8[Array, 'b t h w c']
  ) -> dict[str, Float[Array, 'b _']]:
    """What the classifier says of clips, for evaluation.

    Args:
      variables: the model's variables.
      video: clips.

    Returns:
      The logits of each head, float32.
    """
    output = self.model.apply(variables, self.inputs(video), deterministic=True)
    assert isinstance(output, vivit.ClassifierOutput)
    return output.logits

  def loss(
    self,
    variables: dict[str, Any],
    batch: dict[str, Any],
    rngs: Key[Array, 'b'],
  ) -> tuple[Float[Array, ''], tuple[clu_metrics.Collection, dict[str, Any]]]:
    """Cross-entropy, the mean of all heads; see `tasks.Task`.

    A sigmoid's is summed over the classes. Rows that are not valid, or have no
    label, count nowhere, and neither does what is blended with them.
    """
    video, targets, counted = self.prepare(batch, rngs)
    collections = [name for name in variables if name != 'params']
    output, mutated = self.model.apply(
      variables,
      video,
      deterministic=False,
      row_keys=residual.fold_in(rngs, _PATH),
      mutable=collections,
    )
    labels = self._labels(batch)
    return self._result(output.logits, targets, labels, counted, mutated)

  def prepare(
    self, batch: Mapping[str, Any], rngs: Key[Array, 'b']
  ) -> tuple[
    Float[Array, 'b t h w c'],
    dict[str, Float[Array, 'b _']],
    dict[str, Bool[Array, 'b']],
  ]:
    """What training makes of a batch: erased, blended and smoothed.

    Args:
      batch: see `docs/design.md`, contract "Batch".
      rngs: one key per row.

    Returns:
      The network's input; for each head the weights of the classes, and which
      rows count.
    """
    video = self.inputs(batch['video'])
    if self.erase['probability']:
      video = preprocess.erase(
        video, residual.fold_in(rngs, _ERASE), **self.erase
      )
    labels = self._labels(batch)
    targets = {
      head: preprocess.soft_targets(labels[head], count, self.smoothing)
      for head, count in self.heads.items()
    }
    counted = {
      head: batch['valid'] & _labelled(labels[head]) for head in labels
    }
    if not self._mixing:
      return video, targets, counted
    # What counts is blended like the targets: 1 where both rows of a pair do.
    whole = {
      f'{_COUNTED}{head}': rows[:, None].astype(jnp.float32)
      for head, rows in counted.items()
    }
    video, mixed = preprocess.mix(
      video, {**targets, **whole}, residual.fold_in(rngs, _MIX), **self.mix
    )
    return (
      video,
      {head: mixed[head] for head in targets},
      {head: mixed[f'{_COUNTED}{head}'][:, 0] > _WHOLE for head in counted},
    )

  def _result(
    self,
    logits: Mapping[str, Float[Array, 'b _']],
    targets: Mapping[str, Float[Array, 'b _']],
    labels: Mapping[str, Labels],
    counted: Mapping[str, Bool[Array, 'b']],
    mutated: Mapping[str, Any],
  ) -> tuple[Float[Array, ''], tuple[clu_metrics.Collection, dict[str, Any]]]:
    """The loss and the numbers of all heads."""
    losses, values = [], {}
    for head, rows in counted.items():
      each = self.row_loss(logits[head], targets[head])
      losses.append(jnp.sum(each * rows) / jnp.maximum(jnp.sum(rows), 1))
      prefix = f'{head}_' if len(counted) > 1 else ''
      if prefix:
        values[f'{prefix}loss'] = (each, rows)
      if not (self._mixing or self.multi_label):
        right = jnp.argmax(logits[head], axis=-1) == labels[head]
        values[f'{prefix}accuracy'] = (right.astype(jnp.float32), rows)
    loss = jnp.stack(losses).mean()
    values['loss'] = (loss[None], jnp.ones(1, bool))
    metrics = _collection(tuple(values)).single_from_model_output(**values)
    return loss, (metrics, dict(mutated))

  def row_loss(
    self, logits: Float[Array, 'b c'], targets: Float[Array, 'b c']
  ) -> Float[Array, 'b']:
    """Cross-entropy of each row with its soft targets, float32."""
    if self.multi_label:
      on, off = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
      return -jnp.sum(targets * on + (1 - targets) * off, axis=-1)
    return -jnp.sum(targets * jax.nn.log_softmax(logits), axis=-1)

  def flops_per_clip(self) -> float:
    """Operations of one clip's forward pass; see `tasks.Task`."""
    return flops.vivit_flops(self.model)

  @property
  def _mixing(self) -> bool:
    return bool(
      self.mix['probability'] and (self.mix['mixup'] or self.mix['cutmix'])
    )

  def _labels(self, batch: Mapping[str, Any]) -> dict[str, Labels]:
    """The labels of each head."""
    labels = batch['label']
    if not isinstance(labels, Mapping):
      labels = {heads.SINGLE: labels}
    return {head: labels[head] for head in self.heads}


def from_config(
  config: ml_collections.ConfigDict,
  class_names: ClassNames = (),
  multi_label: bool = False,
) -> Classification:
  """Builds the task from the sections model, classify and preprocess.

  Args:
    config: an experiment's configuration.
    class_names: the names of the classes in the data, for several heads those
      of each. They say how many there are, unless `model.num_classes` does.
    multi_label: whether the videos of the data may have several labels.

  Returns:
    The task.

  Raises:
    ValueError: a field holds something impossible, or nothing says how many
      classes there are.
  """
  fields = {k: v for k, v in config.model.items() if k != 'num_classes'}
  model = variants.build_classifier(
    **fields, num_classes=_num_classes(config.model.num_classes, class_names)
  )
  task = Classification(
    model=model,
    multi_label=multi_label,
    smoothing=config.classify.smoothing,
    erase=config.classify.erase.to_dict(),
    mix=config.classify.mix.to_dict(),
    mean=tuple(config.preprocess.mean),
    std=tuple(config.preprocess.std),
  )
  # An impossible recipe is an error from the start.
  jax.eval_shape(lambda: task.prepare(*_example(task)))
  return task


def _num_classes(given: int | None, class_names: ClassNames) -> heads.Classes:
  """The classes that a model tells apart."""
  if isinstance(class_names, Mapping):
    counts = tuple((head, len(names)) for head, names in class_names.items())
    if given is not None:
      raise ValueError(
        f'config.model.num_classes is {given}, but the data has the heads '
        f'{dict(counts)}: leave it None.'
      )
    return counts
  if given is None and not class_names:
    raise ValueError(
      'the data has no labels, so that there is nothing to classify: give it '
      'some (sub-folders, or a csv with a column of labels), or say how many '
      'classes there are in config.model.num_classes.'
    )
  if given is not None and class_names and given != len(class_names):
    raise ValueError(
      f'config.model.num_classes is {given}, but the data has '
      f'{len(class_names)} classes: leave it None.'
    )
  return len(class_names) if given is None else given


def _example(task: Classification) -> tuple[dict[str, Any], Key[Array, 'b']]:
  """A batch and its keys."""
  model = task.model
  labels = {
    head: jnp.zeros((2, count)) if task.multi_label else jnp.zeros(2, jnp.int32)
    for head, count in task.heads.items()
  }
  clip = (model.num_frames, *model.image_size, model.channels)
  batch = {
    'video': jnp.zeros((2, *clip), jnp.uint8),
    'label': labels,
    'valid': jnp.ones(2, bool),
  }
  return batch, jax.random.split(jax.random.key(0), 2)


@flax.struct.dataclass
class _Mean(clu_metrics.Average):
  """A mean over the rows that count, 0 where none does."""

  def compute(self) -> Float[Array, '']:
    """The mean."""
    return self.total / jnp.maximum(self.count, 1)


@functools.cache
def _collection(names: tuple[str, ...]) -> type[clu_metrics.Collection]:
  """A collection of means, each of a value and of which rows count."""

  def mean_of(name: str) -> type[clu_metrics.Metric]:
    def pick(**values: Any) -> dict[str, Array]:
      return dict(zip(('values', 'mask'), values[name], strict=True))

    return _Mean.from_fun(pick)

  return clu_metrics.Collection.create(
    **{name: mean_of(name) for name in names}
  )


def _labelled(labels: Labels) -> Bool[Array, 'b']:
  return labels >= 0 if labels.ndim == 1 else jnp.all(labels >= 0, axis=1)
