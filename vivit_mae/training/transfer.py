"""Weights of one model into another, by name, with a table of what became."""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Shaped

from vivit_mae.training import naming

Shape = tuple[int, ...]
Adapt = Callable[
  [str, Shaped[np.ndarray, '...'], Shape], Shaped[np.ndarray, '...'] | None
]

LOADED, RESIZED, FRESH, DROPPED = 'loaded', 'resized', 'fresh', 'dropped'
_NUMBERED = re.compile(r'(.*?)(\d+)')
# Tables of positions: of the same shape, they may still be of another grid.
_TABLE = re.compile(r'(^|/)position_(embedding|space|time)$')


@dataclasses.dataclass(frozen=True)
class Weights:
  """Parameters of another run, or of another project, that can be read.

  Attributes:
    source: What they are and where, for people.
    shapes: Their shapes by our names.
    read: Takes a tree of `jax.ShapeDtypeStruct` to the arrays: with a sharding
      onto the devices, without one to the host.
  """

  source: str
  shapes: Mapping[str, Shape]
  read: Callable[[dict[str, Any]], Any]


@dataclasses.dataclass(frozen=True)
class Entry:
  """What became of one array.

  Attributes:
    name: Of the parameter.
    fate: 'loaded', 'resized', 'fresh' (as the seed made it) or 'dropped' (the
      checkpoint's, not used).
    reason: Why, '' if there is nothing to say.
    size: Its numbers.
  """

  name: str
  fate: str
  reason: str
  size: int


@dataclasses.dataclass(frozen=True)
class Report:
  """What became of all arrays of both sides."""

  entries: tuple[Entry, ...]

  def names(self, fate: str) -> list[str]:
    """The arrays of one fate."""
    return [entry.name for entry in self.entries if entry.fate == fate]

  @property
  def summary(self) -> str:
    """One line with the counts."""
    loaded, resized, fresh, dropped = (
      len(self.names(fate)) for fate in (LOADED, RESIZED, FRESH, DROPPED)
    )
    return (
      f'loaded {loaded + resized} of the {loaded + resized + fresh} parameter '
      f'arrays ({resized} of them resized); {fresh} fresh, {dropped} of the '
      'checkpoint dropped'
    )

  def resized(self, name: str, reason: str) -> 'Report':
    """The report with this array among the resized."""
    return Report(
      tuple(
        dataclasses.replace(entry, fate=RESIZED, reason=reason)
        if entry.name == name
        else entry
        for entry in self.entries
      )
    )

  def table(self) -> str:
    """A table with a line per module, numbered ones of one fate together."""
    rows = [
      (name, str(len(group)), _count(sum(e.size for e in group)), *fate)
      for name, group, fate in _rows(
        [(tuple(entry.name.split('/')), entry) for entry in self.entries]
      )
    ]
    rows.insert(0, ('module', 'arrays', 'numbers', 'weights', ''))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return '\n'.join(
      f'{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  '
      f'{row[3]:<{widths[3]}}  {row[4]}'.rstrip()
      for row in rows
    )


def plan(
  saved: Mapping[str, Shape],
  wanted: Mapping[str, Shape],
  *,
  skip: Sequence[str] = (),
) -> Report:
  """What can become of the arrays, by their names and shapes alone.

  Args:
    saved: Shapes in the checkpoint by name.
    wanted: Shapes in the model by name.
    skip: Regular expressions; a saved array whose whole name matches one is
      left out.

  Returns:
    The report; 'resized' are those whose shapes differ.

  Raises:
    ValueError: No name is on both sides, or an expression matches nothing.
  """
  skipped = naming.matching(skip, saved, 'config.init_from.skip')
  common = (saved.keys() & wanted.keys()) - skipped
  if not common:
    raise ValueError(
      'No parameter has the same name. The checkpoint has '
      f'{naming.listed(sorted(saved.keys() - skipped)) or "nothing left"}; '
      f'this model has {naming.listed(sorted(wanted))}'
    )

  def entry(name: str) -> Entry:
    if name in common:
      if saved[name] == wanted[name]:
        return Entry(name, LOADED, '', math.prod(wanted[name]))
      reason = f'{saved[name]} -> {wanted[name]}'
      return Entry(name, RESIZED, reason, math.prod(wanted[name]))
    left_out = 'left out by config.init_from.skip'
    if name in wanted:
      reason = left_out if name in skipped else 'not in the checkpoint'
      return Entry(name, FRESH, reason, math.prod(wanted[name]))
    reason = left_out if name in skipped else 'not in this model'
    return Entry(name, DROPPED, reason, math.prod(saved[name]))

  return Report(tuple(entry(name) for name in _ordered(saved, wanted)))


def transfer(
  saved: Mapping[str, Any],
  fresh: Mapping[str, Any],
  *,
  adapt: Adapt | None = None,
  skip: Sequence[str] = (),
) -> tuple[dict[str, Any], Report]:
  """Takes the saved arrays that the model has by the same name.

  Args:
    saved: The checkpoint's arrays by name. Those that are not used need only
      have a shape.
    fresh: The model's arrays by name.
    adapt: Makes a saved array of another shape fit: name, array and wanted
      shape -> the array, or None if it can't. See `tasks.Task.adapt`. Tables
      of positions go through it whatever their shape: grids of as many tokens
      may differ.
    skip: See `plan`.

  Returns:
    The model's arrays by name, and what became of each.

  Raises:
    ValueError: No name is on both sides, an expression matches nothing, or a
      shape differs that `adapt` does not mend.
  """
  report = plan(_shapes(saved), _shapes(fresh), skip=skip)
  params = {**fresh, **{name: saved[name] for name in report.names(LOADED)}}
  differ = []
  for name in report.names(RESIZED):
    have, wanted = tuple(saved[name].shape), tuple(fresh[name].shape)
    value = adapt and adapt(name, np.asarray(saved[name]), wanted)
    if value is None:
      differ.append(f'{name} is {have} there and {wanted} here')
      continue
    if tuple(value.shape) != wanted:
      raise ValueError(f'{name} was adapted to {value.shape}, not {wanted}')
    params[name] = value
  for name in filter(_TABLE.search, report.names(LOADED)):
    old = np.asarray(saved[name])
    value = adapt and adapt(name, old, old.shape)
    if value is not None and not np.array_equal(value, old):
      params[name] = value
      report = report.resized(name, 'of another grid')
  if differ:
    raise ValueError(
      f'Of another shape: {naming.listed(differ)}. To start these anew, name '
      'them in config.init_from.skip'
    )
  return params, report


def load(
  params: Any,
  weights: Weights,
  *,
  adapt: Adapt | None = None,
  skip: Sequence[str] = (),
) -> tuple[Any, Report]:
  """Reads what fits, each array straight where it belongs.

  Args:
    params: The model's parameters, a tree of arrays on devices.
    weights: Where they come from.
    adapt: See `transfer`.
    skip: Likewise.

  Returns:
    The parameters, and what became of each.

  Raises:
    ValueError: See `transfer`.
  """
  ours = naming.flat(params)
  saved = weights.shapes
  report = plan(saved, naming.shapes(ours), skip=skip)
  loaded = report.names(LOADED)
  tables = list(filter(_TABLE.search, loaded))
  on_host = [*report.names(RESIZED), *tables]
  struct = jax.ShapeDtypeStruct
  arrays = {name: struct(shape, np.float32) for name, shape in saved.items()}
  # What is resized, or may be, comes to the host, in whole.
  like = {name: arrays[name] for name in on_host}
  for name in set(loaded).difference(tables):
    x = ours[name]
    like[name] = struct(x.shape, x.dtype, sharding=x.sharding)
  arrays |= naming.flat(weights.read(naming.unflat(like)))
  found, report = transfer(arrays, ours, adapt=adapt, skip=skip)
  for name in on_host:
    found[name] = put(np.asarray(found[name]), ours[name])
  return naming.map_named(lambda name, _: found[name], params), report


def put(
  value: Shaped[np.ndarray, '...'], like: Array | jax.ShapeDtypeStruct
) -> Array:
  """A host array as another one is: its type, and where it lies."""
  value = value.astype(like.dtype)
  return jax.make_array_from_callback(
    value.shape, like.sharding, lambda index: value[index]
  )


def _shapes(arrays: Mapping[str, Any]) -> dict[str, Shape]:
  return {name: tuple(array.shape) for name, array in arrays.items()}


def _ordered(saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
  """All names; the modules that the model has come first."""
  tops = {name.split('/')[0] for name in wanted}
  return sorted(
    saved.keys() | wanted.keys(), key=lambda n: (n.split('/')[0] not in tops, n)
  )


_Named = list[tuple[tuple[str, ...], Entry]]


def _rows(
  named: _Named, above: str = ''
) -> list[tuple[str, list[Entry], tuple[str, str]]]:
  """Lines of name, arrays, fate: a module whose arrays share theirs is one."""
  children: dict[str, _Named] = {}
  for (first, *rest), entry in named:
    children.setdefault(first, []).append((tuple(rest), entry))
  rows = []
  for name, below in _merged(children):
    fates = {(entry.fate, entry.reason) for _, entry in below}
    if len(fates) == 1:
      # A single array is called by all of its name.
      tail = below[0][0] if len(below) == 1 else ()
      full = '/'.join((*filter(None, (above, name)), *tail))
      rows.append((full, [entry for _, entry in below], fates.pop()))
    else:
      rows += _rows(below, f'{above}/{name}' if above else name)
  return rows


def _merged(children: Mapping[str, _Named]) -> list[tuple[str, _Named]]:
  """Numbered neighbours of one content as one: block_00-11."""
  groups: list[tuple[list[str], Any, _Named]] = []
  for name, below in children.items():
    numbered = _NUMBERED.fullmatch(name)
    content = (
      numbered and numbered[1],
      {(rest, entry.fate, entry.reason) for rest, entry in below},
    )
    if groups and numbered and groups[-1][1] == content:
      groups[-1][0].append(name)
      groups[-1][2].extend(below)
    else:
      groups.append(([name], content, list(below)))
  merged = []
  for names, _, below in groups:
    last = _NUMBERED.fullmatch(names[-1])
    several = f'{names[0]}-{last[2]}' if last else ''
    merged.append((several if len(names) > 1 else names[0], below))
  return merged


def _count(numbers: int) -> str:
  """A count for people: 1.2 M."""
  for power, unit in ((9, 'G'), (6, 'M'), (3, 'k')):
    if numbers >= 10**power:
      return f'{numbers / 10**power:.3g} {unit}'
  return str(numbers)
