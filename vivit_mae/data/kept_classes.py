"""Leaves classes out of a dataset that has numbered them."""

from collections.abc import Mapping, Sequence

from vivit_mae.data import listing
from vivit_mae.data.labels import ClassNames, Label


class KeptClasses:
  """The classes of a dataset but those whose videos count as unlabelled.

  Attributes:
    class_names: Those that are kept, in their order; see `labels`.
  """

  def __init__(
    self,
    class_names: ClassNames,
    unlabelled: Sequence[str],
    where: str,
  ):
    """Finds the classes to keep.

    Args:
      class_names: All, in the order of their numbers.
      unlabelled: Names or shell patterns of those to leave out.
      where: The name of the data, for errors.

    Raises:
      ValueError: If something in `unlabelled` fits no class.
    """
    heads = (
      class_names if isinstance(class_names, Mapping) else {'': class_names}
    )
    every = {name for names in heads.values() for name in names}
    listing.check_unlabelled(unlabelled, every, f'class of {where}')
    kept = {
      head: [i for i, n in enumerate(names) if not listing.fits(n, unlabelled)]
      for head, names in heads.items()
    }
    self._has_heads = isinstance(class_names, Mapping)
    self._numbers = [
      {old: new for new, old in enumerate(numbers)} for numbers in kept.values()
    ]
    found = {h: tuple(heads[h][i] for i in kept[h]) for h in heads}
    self.class_names: ClassNames = found if self._has_heads else found['']

  def number(self, label: Label) -> Label:
    """A label in the numbers of the kept classes.

    Args:
      label: In the numbers of all classes.

    Returns:
      The same with new numbers. Of several labels that apply, one that is left
      out makes all unknown, as its video may be anything.
    """
    if not isinstance(label, tuple):
      return self._numbers[0].get(label, -1)
    if self._has_heads:
      return tuple(
        numbers.get(i, -1)
        for numbers, i in zip(self._numbers, label, strict=True)
      )
    new = {self._numbers[0].get(i, -1) for i in label}
    return (-1,) if -1 in new else tuple(sorted(new))
