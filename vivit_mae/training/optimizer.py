"""AdamW with VideoMAE's and MAE-ST's schedules, as an optax chain."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array
from ml_collections import ConfigDict

Schedule = Callable[[Any], Any]


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


def decays(params: Any) -> Any:
  """Which parameters decay: a tree of booleans.

  Not those of one dimension (biases, norms, LayerScale), nor anything named as
  a bias, a position table or a class or mask token, whatever its shape
  (VideoMAE, optim_factory.py).
  """

  def rule(path: Any, leaf: Any) -> bool:
    names = [str(entry.key) for entry in path]
    last = names[-1]
    special = last.endswith(('bias', 'token')) or any(
      'position' in name for name in names
    )
    return leaf.ndim > 1 and not special

  return jax.tree.map_with_path(rule, params)


def build(
  config: ConfigDict,
  *,
  batch_size: int,
  repeats: int,
  total_steps: int,
  steps_per_epoch: int,
) -> tuple[optax.GradientTransformation, Schedule]:
  """Builds the update rule from the section `optimizer`.

  The learning rate is for `lr_base` videos (or clips, by `lr_scales_with`) and
  scales linearly with those of one update. The schedule 'cosine' scales the
  minimum too, as VideoMAE does; 'warmup_cosine' takes it as given, as MAE-ST
  does.

  The order is clip, Adam, decay, rate: a scale per layer placed after the
  decay multiplies the decay too, as in the references.

  Args:
    config: The section.
    batch_size: Videos of one update over all hosts and accumulation steps.
    repeats: Clips of one video.
    total_steps: Updates of the whole run.
    steps_per_epoch: Updates of one epoch, for the warm-up.

  Returns:
    The transformation and the schedule of its learning rate.

  Raises:
    ValueError: A field of the section holds something impossible.
  """
  if config.name != 'adamw':
    raise ValueError(
      f"config.optimizer.name={config.name!r} is unknown; choose 'adamw'"
    )
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
  warmup = config.warmup_steps
  if warmup is None:
    warmup = int(config.warmup_epochs * steps_per_epoch)
  if warmup >= total_steps > 1:
    raise ValueError(
      f'the warm-up of {warmup} steps leaves nothing of a run of {total_steps};'
      ' lower config.optimizer.warmup_epochs (or set warmup_steps)'
    )
  schedule = SCHEDULES[config.schedule](
    config.learning_rate * scale, final, total_steps, warmup
  )
  decay = config.weight_decay
  if config.weight_decay_end is not None:
    decay = videomae_cosine(decay, config.weight_decay_end, total_steps)
  chain = [
    optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps),
    optax.add_decayed_weights(decay, mask=decays),
    optax.scale_by_learning_rate(schedule),
  ]
  if config.clip_norm is not None:
    chain.insert(0, optax.clip_by_global_norm(config.clip_norm))
  return optax.chain(*chain), schedule
