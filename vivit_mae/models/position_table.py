"""The positions of a sequence of tokens as a module, learned or fixed."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vivit_mae.masking import Grid
from vivit_mae.models import initialisers, positions, tubelets


class PositionTable(nn.Module):
  """What is added to the tokens of each place, and to a class token.

  Learned tables are the parameters `position_embedding` `[c + n, d]` (class
  rows first) or, where they are separable, `position_space` `[h * w, d]`,
  `position_time` `[t, d]` and `position_class` `[d]`.

  Attributes:
    kind: a name in `positions.POSITIONS`.
    grid: tokens of a whole sequence along time, height and width.
    width: embedding dimension.
    made_for: the grid that a fixed table is made for, before it is resized to
      `grid`; None for `grid`.
    class_row: whether a class token has a position.
    initialisation: a name in `initialisers.INITS`.
  """

  kind: str
  grid: Grid
  width: int
  made_for: Grid | None = None
  class_row: bool = False
  initialisation: str = 'videomae'

  def setup(self) -> None:
    """Builds the tables."""
    count = int(self.class_row)
    frames, height, width = self.grid
    if self.kind == 'learned_1d':
      self.table = self._learned(
        'position_embedding', count + frames * height * width
      )
    elif self.kind == 'separable':
      self.space = self._learned('position_space', height * width)
      self.time = self._learned('position_time', frames)
      if self.class_row:
        self.alone = self._learned('position_class')
    elif self.kind != 'none':
      self.table = jnp.asarray(
        positions.fixed(self.grid, self.width, self.made_for, count, self.kind)
      )

  def _learned(self, name: str, *rows: int) -> Float[Array, '... d']:
    init = initialisers.INITS[self.initialisation].positions
    return self.param(name, init, (*rows, self.width))

  def rows(self, places: Int[Array, 'b v'] | None) -> Float[Array, '#b #v d']:
    """The positions of tokens.

    Args:
      places: the tokens' places in the grid; None for all.

    Returns:
      The rows to add, one row for all where they are the same.
    """
    if self.kind == 'none':
      return jnp.zeros((1, 1, self.width))
    if self.kind == 'separable':
      # What is added is no larger than what is seen.
      if places is None:
        table = self.time[:, None] + self.space
        return table.reshape(1, -1, self.width)
      per_frame = len(self.space)
      return self.time[places // per_frame] + self.space[places % per_frame]
    table = self.table[None, int(self.class_row) :]
    return table if places is None else tubelets.gather_tokens(table, places)

  def class_position(self) -> Float[Array, ' d'] | None:
    """The position of a class token, or None where it has none."""
    if not self.class_row or self.kind == 'none':
      return None
    return self.alone if self.kind == 'separable' else self.table[0]
