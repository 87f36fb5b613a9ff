"""Leaves of a tree by their names, `encoder/block_00/mlp/kernel`."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax

_LISTED = 8


def name_of(path: Sequence[Any]) -> str:
  """The name of a leaf by its path, the parts joined with slashes."""
  return jax.tree_util.keystr(tuple(path), simple=True, separator='/')


def flat(tree: Any) -> dict[str, Any]:
  """All leaves by name; whatever has a shape is a leaf."""
  leaves = jax.tree.leaves_with_path(
    tree, is_leaf=lambda x: hasattr(x, 'shape')
  )
  return {name_of(path): leaf for path, leaf in leaves}


def unflat(leaves: Mapping[str, Any]) -> dict[str, Any]:
  """The nested dicts of leaves by name."""
  tree: dict[str, Any] = {}
  for name, leaf in leaves.items():
    *parents, last = name.split('/')
    branch = tree
    for parent in parents:
      branch = branch.setdefault(parent, {})
    branch[last] = leaf
  return tree


def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
  """The shapes of all leaves by name."""
  return {name: tuple(leaf.shape) for name, leaf in flat(tree).items()}


def map_named(function: Callable[[str, Any], Any], tree: Any) -> Any:
  """A tree of `function(name, leaf)`."""
  return jax.tree.map_with_path(
    lambda path, leaf: function(name_of(path), leaf), tree
  )


def listed(names: Iterable[str]) -> str:
  """The first few names for a message, and how many there are besides."""
  names = list(names)
  more = f' and {len(names) - _LISTED} more' if len(names) > _LISTED else ''
  return ', '.join(names[:_LISTED]) + more


def matching(
  patterns: Sequence[str], names: Iterable[str], field: str
) -> set[str]:
  """The names that one of the patterns describes from end to end.

  Args:
    patterns: Regular expressions, such as `encoder/block_0[0-3]/.*`.
    names: Names of parameters.
    field: Where the patterns come from, for the error.

  Raises:
    ValueError: A pattern is no regular expression, or it matches no name.
  """
  names = list(names)
  found = set()
  for pattern in patterns:
    try:
      expression = re.compile(pattern)
    except re.error as error:
      raise ValueError(
        f'{field}: {pattern!r} is no regular expression: {error}'
      ) from error
    hits = {name for name in names if expression.fullmatch(name)}
    if not hits:
      raise ValueError(
        f'{field}: {pattern!r} matches none of the {len(names)} parameters; '
        "a pattern describes a whole name, such as 'encoder/block_00/.*'. The "
        f'names are {listed(names)}'
      )
    found |= hits
  return found
