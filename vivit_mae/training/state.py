"""The state of training: its shapes first, then its shardings, then arrays."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key

from vivit_mae.training import sharding

Tree = Any


@flax.struct.dataclass
class TrainState:
  """What an update changes, and what a checkpoint holds.

  The leaves are arrays, or in their place shapes or shardings.

  Attributes:
    step: Updates done so far, int32.
    params: The parameters.
    collections: The model's other variables by collection, such as batch
      statistics; usually empty.
    opt_state: The optimiser's state.
    ema: The exponential moving average of the parameters, None if there is
      none.
  """

  step: Tree
  params: Tree
  collections: Tree
  opt_state: Tree
  ema: Tree = None

  @property
  def variables(self) -> dict[str, Tree]:
    """The variables as `Module.apply` takes them."""
    return {'params': self.params, **self.collections}

  @property
  def eval_variables(self) -> dict[str, Tree]:
    """Likewise, with the averaged parameters if there are any."""
    params = self.params if self.ema is None else self.ema
    return {'params': params, **self.collections}

  def with_params(self, params: Tree) -> 'TrainState':
    """The state with other parameters, which an average starts from."""
    ema = None if self.ema is None else jax.tree.map(jnp.copy, params)
    return dataclasses.replace(self, params=params, ema=ema)


def build(
  init: Callable[[Key[Array, '']], Mapping[str, Tree]],
  optimizer: optax.GradientTransformation,
  *,
  seed: int,
  mesh: Mesh,
  fsdp_min_bytes: int,
  ema_decay: int | float = 0.0,
) -> tuple[TrainState, Callable[[], TrainState]]:
  """The state as shapes with their shardings, and what makes the arrays.

  Args:
    init: Makes the variables from a key: `Task.init`.
    optimizer: The update rule.
    seed: Seed of the initial parameters.
    mesh: The devices.
    fsdp_min_bytes: Smaller arrays are replicated.
    ema_decay: The decay of the average of the parameters, 0 for none.

  Returns:
    A TrainState of `jax.ShapeDtypeStruct`, and a function that makes a new
    state, each array straight where it belongs.

  Raises:
    ValueError: `ema_decay` is outside [0, 1).
  """
  if not 0 <= ema_decay < 1:
    raise ValueError(
      f'config.optimizer.ema_decay={ema_decay} must be in [0, 1): 0 for no '
      'average, or for example 0.9999'
    )

  def create(key: Key[Array, '']) -> TrainState:
    collections = dict(init(key))
    params = collections.pop('params')
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      collections=collections,
      opt_state=optimizer.init(params),
      ema=jax.tree.map(jnp.copy, params) if ema_decay else None,
    )

  key = jax.random.key(seed)
  shapes = jax.eval_shape(create, key)
  placed = sharding.shardings(shapes, mesh, fsdp_min_bytes)
  abstract = jax.tree.map(
    lambda leaf, where: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=where
    ),
    shapes,
    placed,
  )
  return abstract, lambda: jax.jit(create, out_shardings=placed)(key)


def row_keys(seed: int, step: Int[Array, ''], rows: int) -> Key[Array, 'b']:
  """One key per row of the batch of an update, carried by nothing.

  Any number of devices and of accumulation steps draws the same for a row.
  """
  key = jax.random.fold_in(jax.random.key(seed), step)
  return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(rows))


def make_update(
  loss_fn: Callable[..., Any],
  optimizer: optax.GradientTransformation,
  schedule: Callable[[Any], Any],
  *,
  seed: int,
  accum_steps: int,
  ema_decay: int | float = 0.0,
  trained: Callable[[Tree], Tree] | None = None,
  norms: bool = True,
) -> Callable[[TrainState, Mapping[str, Array]], tuple[TrainState, Tree]]:
  """The function of one update, to be jitted.

  Microbatch k of A takes the rows k, k + A, ...: so each device keeps its own
  rows, and nothing travels.

  Args:
    loss_fn: `Task.loss`: variables, batch, row keys -> loss, (metrics,
      changed collections). The loss is a mean over the rows.
    optimizer: The update rule.
    schedule: Its learning rate by step, to report.
    seed: Seed of the run.
    accum_steps: A, microbatches of one update.
    ema_decay: The decay d of the average of the parameters, `ema = d ema +
      (1 - d) params` after each update as in timm's ModelEma; 0 for none.
    trained: Which parameters are trained, a tree of booleans; None for all.
      The others get no gradient, and none is computed for them.
    norms: Whether to report the norms of gradients, parameters and updates.

  Returns:
    A function of state and batch giving the new state and a dict with the loss,
    the metrics (a clu collection), the learning rate and the norms.
  """

  def gradients(
    params: Tree,
    collections: Tree,
    batch: Mapping[str, Array],
    rngs: Key[Array, 'b'],
  ) -> tuple[Float[Array, ''], Tree, Tree, Tree]:
    def loss_of(params: Tree) -> tuple[Float[Array, ''], Tree]:
      if trained is not None:
        params = jax.tree.map(
          lambda x, on: x if on else jax.lax.stop_gradient(x),
          params,
          trained(params),
        )
      return loss_fn({'params': params, **collections}, batch, rngs)

    (loss, (metrics, mutated)), grads = jax.value_and_grad(
      loss_of, has_aux=True
    )(params)
    return loss, grads, metrics, {**collections, **mutated}

  def accumulated(
    state: TrainState, batch: Mapping[str, Array], rngs: Key[Array, 'b']
  ) -> tuple[Float[Array, ''], Tree, Tree, Tree]:
    columns = jax.tree.map(
      lambda x: x.reshape(-1, accum_steps, *x.shape[1:]), (dict(batch), rngs)
    )

    def microbatch(carry: Tree, index: Int[Array, '']) -> tuple[Tree, Tree]:
      loss, grads, collections = carry
      rows, keys = jax.tree.map(
        lambda x: jax.lax.dynamic_index_in_dim(x, index, 1, keepdims=False),
        columns,
      )
      one, one_grads, metrics, collections = gradients(
        state.params, collections, rows, keys
      )
      grads = jax.tree.map(jnp.add, grads, one_grads)
      return (loss + one, grads, collections), metrics

    zeros = jax.tree.map(jnp.zeros_like, state.params)
    (loss, grads, collections), metrics = jax.lax.scan(
      microbatch,
      (jnp.zeros(()), zeros, state.collections),
      jnp.arange(accum_steps),
    )
    loss, grads = jax.tree.map(lambda x: x / accum_steps, (loss, grads))
    return loss, grads, metrics.reduce(), collections

  def update(
    state: TrainState, batch: Mapping[str, Array]
  ) -> tuple[TrainState, Tree]:
    rngs = row_keys(seed, state.step, len(batch['video']))
    if accum_steps == 1:
      loss, grads, metrics, collections = gradients(
        state.params, state.collections, batch, rngs
      )
    else:
      loss, grads, metrics, collections = accumulated(state, batch, rngs)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = state.ema
    if ema_decay:
      # In this form the average of what stands still stays bitwise the same.
      ema = jax.tree.map(
        lambda mean, x: mean + (1 - ema_decay) * (x - mean), ema, params
      )
    report = {
      'loss': loss,
      'metrics': metrics,
      'learning_rate': schedule(state.step),
      'norms': {},
    }
    if norms:
      report['norms'] = {
        'l2_grads': optax.tree.norm(grads),
        'l2_params': optax.tree.norm(params),
        'l2_updates': optax.tree.norm(updates),
      }
    state = TrainState(
      step=state.step + 1,
      params=params,
      collections=collections,
      opt_state=opt_state,
      ema=ema,
    )
    return state, report

  return update
