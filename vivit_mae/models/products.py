"""The matrix product of a linear layer, with a gradient that suits CPUs too.

XLA's CPU compiler fuses what leads to a gradient into the transposed copy that
a product makes of it, and so computes a whole norm again for every element:
several hundred times the work, a sixth of a training step of ViT-S (jaxlib
0.10.2, `benchmarks/train_step.py`). A barrier makes it write the gradient out
once. Other devices get the plain product.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def dot_general(
  x: Float[Array, '*b i'],
  kernel: Float[Array, 'i j'],
  dimension_numbers: Any,
  precision: Any = None,
  preferred_element_type: Any = None,
) -> Float[Array, '*b j']:
  """`lax.dot_general` of a linear layer, for `nn.Dense(dot_general=...)`.

  Args:
    x: inputs.
    kernel: the kernel.
    dimension_numbers: those of a linear layer.
    precision: see `lax.dot_general`.
    preferred_element_type: see `lax.dot_general`.

  Returns:
    The products.
  """
  if not _on_cpu():
    return lax.dot_general(
      x,
      kernel,
      dimension_numbers,
      precision=precision,
      preferred_element_type=preferred_element_type,
    )
  product = _product(x.reshape(-1, x.shape[-1]), kernel)
  return product.reshape(*x.shape[:-1], kernel.shape[1])


@jax.custom_vjp
def _product(
  x: Float[Array, 'n i'], kernel: Float[Array, 'i j']
) -> Float[Array, 'n j']:
  return jnp.dot(x, kernel)


def _product_forward(
  x: Float[Array, 'n i'], kernel: Float[Array, 'i j']
) -> tuple[Float[Array, 'n j'], Any]:
  return jnp.dot(x, kernel), (x, kernel)


def _product_backward(
  residuals: Any, gradient: Float[Array, 'n j']
) -> tuple[Float[Array, 'n i'], Float[Array, 'i j']]:
  x, kernel = residuals
  gradient = lax.optimization_barrier(gradient)
  return jnp.dot(gradient, kernel.T), jnp.dot(x.T, gradient)


_product.defvjp(_product_forward, _product_backward)


def written_out(x: Any) -> Any:
  """Keeps XLA's CPU compiler from computing arrays again in every consumer."""
  return lax.optimization_barrier(x) if _on_cpu() else x


def _on_cpu() -> bool:
  return jax.default_backend() == 'cpu'
