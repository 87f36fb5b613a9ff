"""Tables of names: which of our parameters a foreign array is, and how.

A table is a list of `Rule`s that reads from left to right: our name, theirs,
and the transform between the two. `{i}` in both stands for the number of a
block, of which ours has two digits, `{any}` for any name. Read forwards a table
brings weights in, backwards it writes them out.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np


@dataclasses.dataclass(frozen=True)
class Transform:
  """How arrays of one layout become those of another.

  Attributes:
    to_ours: Makes our array of theirs, one or several.
    to_theirs: Makes theirs, a tuple, of ours; None where no table that is
      written out has it.
  """

  to_ours: Callable[..., Any]
  to_theirs: Callable[[Any], tuple[Any, ...]] | None = None


def _joined(arrays: Iterable[Any], axis: int) -> Any:
  """Arrays of numpy or of jax one after the other."""
  arrays = list(arrays)
  return arrays[0].__array_namespace__().concat(arrays, axis=axis)


def _thirds(x: Any) -> tuple[Any, Any, Any]:
  third = x.shape[-1] // 3
  return x[..., :third], x[..., third : 2 * third], x[..., 2 * third :]


def _third(number: int) -> Callable[[Any], Any]:
  return lambda x: _thirds(x)[number]


COPY = Transform(lambda x: x, lambda x: (x,))
# torch's Linear, [out, in] -> [in, out].
LINEAR = Transform(lambda x: x.T, lambda x: (x.T,))
# Three of them side by side: the product of queries, keys and values.
LINEARS = Transform(
  lambda *xs: _joined((x.T for x in xs), 1),
  lambda x: tuple(part.T for part in _thirds(x)),
)
# torch's Conv3d, [d, c, t, h, w] -> [t, h, w, c, d]; an image's Conv2d is that
# of a tubelet of one frame.
CONV3D = Transform(
  lambda x: x.transpose(2, 3, 4, 1, 0), lambda x: (x.transpose(4, 3, 0, 1, 2),)
)
CONV2D = Transform(
  lambda x: x.transpose(2, 3, 1, 0)[None],
  lambda x: (x[0].transpose(3, 2, 0, 1),),
)
# A token [1, 1, d] -> [d], a table [1, n, d] -> [n, d].
TOKEN = Transform(lambda x: x.reshape(-1), lambda x: (x[None, None],))
TABLE = Transform(lambda x: x.reshape(-1, x.shape[-1]), lambda x: (x[None],))
# The thirds of a fused bias, each by itself.
THIRDS = tuple(Transform(_third(number)) for number in range(3))


@dataclasses.dataclass(frozen=True)
class Rule:
  """A line of a table.

  Attributes:
    ours: The name of our parameter.
    theirs: The names of the arrays that it is made of.
    transform: How it is made of them.
  """

  ours: str
  theirs: tuple[str, ...]
  transform: Transform = COPY


Table = tuple[Rule, ...]


def rule(ours: str, theirs: str, transform: Transform = COPY) -> Rule:
  """A rule of one array."""
  return Rule(ours, (theirs,), transform)


def linear(ours: str, theirs: str) -> Table:
  """The rules of torch's Linear with a bias."""
  return (
    rule(f'{ours}/kernel', f'{theirs}.weight', LINEAR),
    rule(f'{ours}/bias', f'{theirs}.bias'),
  )


def norm(ours: str, theirs: str) -> Table:
  """The rules of torch's LayerNorm."""
  return (
    rule(f'{ours}/scale', f'{theirs}.weight'),
    rule(f'{ours}/bias', f'{theirs}.bias'),
  )


def under(ours: str, theirs: str, table: Iterable[Rule]) -> Table:
  """A table with something put before its names on both sides."""
  return tuple(
    Rule(
      ours + each.ours,
      tuple(theirs + name for name in each.theirs),
      each.transform,
    )
    for each in table
  )


@dataclasses.dataclass(frozen=True)
class Match:
  """A rule whose arrays are there.

  Attributes:
    ours: The name of our parameter, the number of the block in it.
    theirs: The names of the arrays.
    transform: See `Rule`.
  """

  ours: str
  theirs: tuple[str, ...]
  transform: Transform

  def apply(self, arrays: Mapping[str, Any]) -> Any:
    """Our array, float32; of shapes alone (`jax.ShapeDtypeStruct`) a shape.

    Raises:
      ValueError: The arrays have too few axes, or do not fit together.
    """
    xs = [arrays[name] for name in self.theirs]
    try:
      if all(isinstance(x, jax.ShapeDtypeStruct) for x in xs):
        return jax.eval_shape(self.transform.to_ours, *xs)
      return np.asarray(self.transform.to_ours(*xs), np.float32)
    except (ValueError, TypeError, IndexError) as error:
      found = ', '.join(
        f'{name} {tuple(x.shape)}'
        for name, x in zip(self.theirs, xs, strict=True)
      )
      raise ValueError(f'{self.ours} cannot be made of {found}.') from error


def matches(table: Table, names: Iterable[str]) -> list[Match]:
  """The rules whose arrays are among the names, once for each block."""
  names = set(names)
  found = []
  for each in table:
    first = _pattern(each.theirs[0])
    for name in sorted(names):
      hit = first.fullmatch(name)
      if hit is None:
        continue
      groups = hit.groupdict()
      theirs = tuple(_filled(their, groups) for their in each.theirs)
      if names.issuperset(theirs):
        if 'i' in groups:
          groups['i'] = f'{int(groups["i"]):02d}'
        ours = _filled(each.ours, groups)
        found.append(Match(ours, theirs, each.transform))
  return found


def _pattern(name: str) -> re.Pattern[str]:
  expression = re.escape(name).replace(r'\{i\}', r'(?P<i>\d+)')
  return re.compile(expression.replace(r'\{any\}', r'(?P<any>.+)'))


def _filled(name: str, groups: Mapping[str, str]) -> str:
  for group, text in groups.items():
    name = name.replace(f'{{{group}}}', text)
  return name


def written(table: Table, params: Mapping[str, Any]) -> dict[str, Any]:
  """Our parameters under the foreign names.

  Args:
    table: A table.
    params: Our arrays by name.

  Returns:
    The foreign arrays, as they are kept there: contiguous.

  Raises:
    ValueError: A parameter has no rule, or one without a way back.
  """
  arrays: dict[str, Any] = {}
  patterns = [(_pattern(each.ours), each) for each in table]
  for name, value in params.items():
    found, each = next(
      ((m, each) for p, each in patterns if (m := p.fullmatch(name))),
      (None, None),
    )
    back = each and each.transform.to_theirs
    if found is None or each is None or back is None:
      raise ValueError(f'{name} has no place in the other format.')
    groups = found.groupdict()
    if 'i' in groups:
      groups['i'] = str(int(groups['i']))
    for their, part in zip(each.theirs, back(np.asarray(value)), strict=True):
      arrays[_filled(their, groups)] = np.ascontiguousarray(part)
  return arrays


def collapsed(names: Sequence[str]) -> str:
  """Names that differ by the numbers of blocks as one: `blocks.0-11.norm1`."""
  parts = [re.split(r'(\d+)', name) for name in names]
  merged = []
  for column in zip(*parts, strict=True):
    values = list(dict.fromkeys(column))
    if len(values) == 1:
      merged.append(values[0])
    else:
      ordered = sorted(values, key=int)
      merged.append(f'{ordered[0]}-{ordered[-1]}')
  return ''.join(merged)
