"""Tables that tell the tokens where they stand."""

import functools

import numpy as np
from jaxtyping import Float


@functools.lru_cache(maxsize=8)
def sincos_1d(length: int, width: int) -> Float[np.ndarray, 'n d']:
  """The fixed table of VideoMAE, over the flattened token index.

  Column j of row p holds the sine (j even) or cosine (j odd) of
  `p / 10000^(2 * (j // 2) / width)`. The angles need float64: in float32 they
  are wrong by 2e-4 at the far end of the table.

  Args:
    length: number of tokens.
    width: embedding dimension.

  Returns:
    The table, float32, not to be written to.
  """
  columns = np.arange(width)
  frequencies = 10000.0 ** (-2.0 * (columns // 2) / width)
  angles = np.arange(length)[:, None] * frequencies
  table = np.where(columns % 2 == 0, np.sin(angles), np.cos(angles))
  table = table.astype(np.float32)
  table.flags.writeable = False
  return table
