"""Update rules with VideoMAE's and MAE-ST's schedules, as an optax chain."""

import functools
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array
from ml_collections import ConfigDict

from vivit_mae.training import naming

_log = logging.getLogger(__name__)

Schedule = Callable[[Any], Any]
LayerOf = Callable[[str], int]


def videomae_cosine(
  base: float, final: float, total: int, warmup: int = 0
) -> Schedule:
  """VideoMAE's schedule, equal to its table of iterations at every index.

  Iterations 0 to warmup - 1 are `linspace(0, base, warmup)`, both ends
  included; the N = total - warmup others are
  `final + (base - final) / 2 * (1 + cos(pi i / N))` for i = 0 to N - 1. So the
  first update has a rate of zero, the base occurs twice and the final value is
  never reached (VideoMAE, utils.py `cosine_scheduler`).
  """
  length = max(total - warmup, 1)

  def schedule(count: Any) -> Array:
    rising = base * count / max(warmup - 1, 1)
    fraction = jnp.clip(count - warmup, 0, length) / length
    falling = final + 0.5 * (base - final) * (1 + jnp.cos(jnp.pi * fraction))
    return jnp.where(count < warmup, rising, falling)

  return schedule


def warmup_cosine(
  base: float, final: float, total: int, warmup: int = 0
) -> Schedule:
  """MAE-ST's schedule (util/lr_sched.py), as a function of the iteration.

  `base * i / warmup` below warmup, then a half cosine down to the final value
  at `total`.
  """
  length = max(total - warmup, 1)

  def schedule(count: Any) -> Array:
    fraction = jnp.clip(count - warmup, 0, length) / length
    falling = final + 0.5 * (base - final) * (1 + jnp.cos(jnp.pi * fraction))
    return jnp.where(count < warmup, base * count / max(warmup, 1), falling)

  return schedule


SCHEDULES = {'cosine': videomae_cosine, 'warmup_cosine': warmup_cosine}


def decays(params: Any, *, tokens: bool = False) -> Any:
  """Which parameters decay: a tree of booleans.

  Not those of one dimension (biases, norms, LayerScale), nor anything named as
  a bias, a position table or a class or mask token, whatever its shape
  (VideoMAE, optim_factory.py).

  Args:
    params: The parameters.
    tokens: Lets positions and class and mask tokens decay too (MAE-ST's
      pretraining, util/misc.py, where they have three dimensions).

  Returns:
    The tree.
  """

  def rule(name: str, leaf: Any) -> bool:
    if name.endswith('token') or 'position' in name:
      return tokens
    return leaf.ndim > 1 and not name.endswith('bias')

  return naming.map_named(rule, params)


def trained(
  config: ConfigDict, frozen: Sequence[str] = ()
) -> Callable[[Any], Any]:
  """What tells the parameters that are trained from those that are frozen.

  Args:
    config: The section; a parameter whose whole name matches one of the regular
      expressions in `freeze` is frozen.
    frozen: More of them, from the task.

  Returns:
    A function of the parameters that gives a tree of booleans. It raises a
    ValueError if an expression matches nothing, or nothing is left to train.
  """
  patterns = (*frozen, *config.freeze)

  def rule(params: Any) -> Any:
    names = naming.flat(params)
    still = naming.matching(patterns, names, 'config.optimizer.freeze')
    if len(still) == len(names):
      raise ValueError(
        f'config.optimizer.freeze={patterns} leaves nothing to train: all '
        f'{len(names)} parameters match'
      )
    return naming.map_named(lambda name, _: name not in still, params)

  return rule


def scale_by_layer(
  decay: int | float, layer_of: LayerOf, num_layers: int
) -> optax.GradientTransformation:
  """Multiplies the updates of layer i of L by `decay ** (L + 1 - i)`.

  BEiT's layer-wise decay as VideoMAE and MAE-ST use it (LayerDecayValueAssigner
  in optim_factory.py): layer 0 is the embedding with positions and tokens,
  layer i + 1 is block i, and L + 1 the rest. Placed after the weight decay it
  scales that too, as a rate per parameter group does in torch.

  Args:
    decay: Of one layer, in (0, 1].
    layer_of: The layer of a parameter by its name.
    num_layers: L, the number of blocks.
  """

  def scale(name: str, update: Any) -> Any:
    layer = layer_of(name)
    if not 0 <= layer <= num_layers + 1:
      raise ValueError(
        f'layer_of({name!r}) is {layer}, outside 0 to {num_layers + 1}'
      )
    return update * decay ** (num_layers + 1 - layer)

  return optax.stateless(lambda updates, _: naming.map_named(scale, updates))


def _decays(config: ConfigDict) -> Any:
  return functools.partial(decays, tokens=config.decay_tokens)


def _adamw(config: ConfigDict, decay: Any) -> list[Any]:
  return [
    optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps),
    optax.add_decayed_weights(decay, mask=_decays(config)),
  ]


def _sgd(config: ConfigDict, decay: Any) -> list[Any]:
  """As torch: the decay is a part of the gradient that gathers momentum."""
  return [
    optax.add_decayed_weights(decay, mask=_decays(config)),
    optax.trace(decay=config.momentum, nesterov=config.nesterov),
  ]


def _lars(config: ConfigDict, decay: Any) -> list[Any]:
  """As MAE's linear probes: what does not decay is not rescaled either."""
  return [
    optax.add_decayed_weights(decay, mask=_decays(config)),
    optax.masked(
      optax.scale_by_trust_ratio(trust_coefficient=config.trust_coefficient),
      _decays(config),
    ),
    optax.trace(decay=config.momentum),
  ]


RULES = {'adamw': _adamw, 'sgd': _sgd, 'lars': _lars}


def build(
  config: ConfigDict,
  *,
  batch_size: int,
  repeats: int,
  total_steps: int,
  steps_per_epoch: int,
  layer_of: LayerOf | None = None,
  num_layers: int = 0,
  frozen: Sequence[str] = (),
) -> tuple[optax.GradientTransformation, Schedule]:
  """Builds the update rule from the section `optimizer`.

  The learning rate is for `lr_base` videos (or clips, by `lr_scales_with`) and
  scales linearly with those of one update. The schedule 'cosine' scales the
  minimum too, as VideoMAE does; 'warmup_cosine' takes it as given, as MAE-ST
  does.

  The order is clip, rule with decay, scale per layer, rate: so the scale per
  layer multiplies the decay too, as in the references. Frozen parameters take
  part in nothing of it, the norm that is clipped included, and have no state.

  Args:
    config: The section.
    batch_size: Videos of one update over all hosts and accumulation steps.
    repeats: Clips of one video.
    total_steps: Updates of the whole run.
    steps_per_epoch: Updates of one epoch, for the warm-up.
    layer_of: The layer of a parameter by its name, for `layer_decay`; see
      `scale_by_layer`.
    num_layers: The number of blocks, likewise.
    frozen: See `trained`.

  Returns:
    The transformation and the schedule of its learning rate.

  Raises:
    ValueError: A field of the section holds something impossible.
  """
  if config.name not in RULES:
    raise ValueError(
      f'config.optimizer.name={config.name!r} is unknown; choose one of '
      f'{", ".join(RULES)}'
    )
  schedule = _schedule(
    config, batch_size, repeats, total_steps, steps_per_epoch
  )
  decay = config.weight_decay
  if config.weight_decay_end is not None:
    decay = videomae_cosine(decay, config.weight_decay_end, total_steps)
  chain = RULES[config.name](config, decay)
  if config.clip_norm is not None:
    chain.insert(0, optax.clip_by_global_norm(config.clip_norm))
  if config.layer_decay is not None:
    if not 0 < config.layer_decay <= 1:
      raise ValueError(
        f'config.optimizer.layer_decay={config.layer_decay} must be in (0, 1], '
        'or None for one rate for all layers'
      )
    if layer_of is None:
      raise ValueError(
        f'config.optimizer.layer_decay={config.layer_decay} needs a task that '
        'numbers its layers; this one does not: set layer_decay=None'
      )
    chain.append(scale_by_layer(config.layer_decay, layer_of, num_layers))
  chain.append(optax.scale_by_learning_rate(schedule))
  rule = optax.chain(*chain)
  is_trained = trained(config, frozen)
  if not (frozen or config.freeze):
    return rule, schedule

  def labels(params: Any) -> Any:
    return jax.tree.map(
      lambda on: 'trained' if on else 'frozen', is_trained(params)
    )

  return (
    optax.partition({'trained': rule, 'frozen': optax.set_to_zero()}, labels),
    schedule,
  )


def _schedule(
  config: ConfigDict,
  batch_size: int,
  repeats: int,
  total_steps: int,
  steps_per_epoch: int,
) -> Schedule:
  """The learning rate by step; see `build`."""
  if config.schedule not in SCHEDULES:
    raise ValueError(
      f'config.optimizer.schedule={config.schedule!r} is unknown; choose one '
      f'of {", ".join(SCHEDULES)}'
    )
  counts = {'videos': batch_size, 'clips': batch_size * repeats}
  if config.lr_scales_with not in counts:
    raise ValueError(
      f'config.optimizer.lr_scales_with={config.lr_scales_with!r} is unknown; '
      f'choose one of {", ".join(counts)}'
    )
  scale = counts[config.lr_scales_with] / config.lr_base
  final = config.min_learning_rate
  if config.schedule == 'cosine':
    final *= scale
  epochs, warmup = config.warmup_epochs, config.warmup_steps
  if warmup is None:
    warmup = int(epochs * steps_per_epoch)
  if warmup >= total_steps > 1:
    raise ValueError(
      f'the warm-up of {warmup} steps leaves nothing of a run of {total_steps};'
      ' lower config.optimizer.warmup_epochs (or set warmup_steps)'
    )
  return SCHEDULES[config.schedule](
    config.learning_rate * scale, final, total_steps, warmup
  )


def describe(
  config: ConfigDict,
  params: Any,
  *,
  layer_of: LayerOf | None = None,
  num_layers: int = 0,
  frozen: Sequence[str] = (),
) -> None:
  """Says how many parameters are frozen, and the rates of the layers.

  Args:
    config: The section `optimizer`.
    params: The parameters or their shapes.
    layer_of: See `build`.
    num_layers: Likewise.
    frozen: Likewise.
  """
  sizes = {n: math.prod(shape) for n, shape in naming.shapes(params).items()}
  on = naming.flat(trained(config, frozen)(params))
  still = [size for name, size in sizes.items() if not on[name]]
  if still:
    _log.info(
      'frozen: %d of %d arrays, %s of %s parameters',
      len(still),
      len(sizes),
      f'{sum(still):,}',
      f'{sum(sizes.values()):,}',
    )
  if config.layer_decay is not None and layer_of is not None:
    layers = sorted({layer_of(name) for name in sizes if on[name]})
    _log.info(
      'layer decay %g: the learning rate x %s',
      config.layer_decay,
      ', '.join(
        f'{config.layer_decay ** (num_layers + 1 - layer):.3g} in layer {layer}'
        for layer in (layers[0], layers[-1])
      ),
    )
