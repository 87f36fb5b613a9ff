"""Gathers the examples of a published dataset, and all that is odd about it."""

import dataclasses
import functools
import logging
from collections.abc import Mapping, Sequence

from vivit_mae.data import listing
from vivit_mae.data.labels import ClassNames
from vivit_mae.data.layouts.videos import Videos
from vivit_mae.data.listing import Entry, Listing

_log = logging.getLogger(__name__)


class Collector:
  """Takes the lines of official lists, and makes a listing of those videos.

  Links die and downloads break off: examples whose files are not there are left
  out and counted.
  """

  def __init__(self, layout: str, root: str):
    self._where = f'{layout} at {root}'
    self._entries: list[Entry] = []
    self._listed: dict[str, int] = {}
    self._seen: dict[str, tuple[str, str | tuple[str, ...]]] = {}
    self._missing: list[tuple[str, str]] = []
    self._duplicates: list[tuple[str, str]] = []
    self._skipped: list[tuple[str, str]] = []

  def add(self, entry: Entry, line: str) -> None:
    """Takes in an example.

    Args:
      entry: The example; the path '' means that its video is not there.
      line: The file and line that names it, for messages.
    """
    seen = self._seen.get(entry.id)
    if seen is not None:
      split, label = seen
      other = '' if label == entry.label else f', there as {label!r}'
      self._duplicates.append(
        (entry.id, f'{line}: named before, in {split}{other}')
      )
      if split == entry.split:
        return
    self._seen[entry.id] = entry.split, entry.label
    self._listed[entry.split] = self._listed.get(entry.split, 0) + 1
    if entry.path:
      self._entries.append(entry)
    else:
      self._missing.append((entry.id, f'no such file, named by {line}'))

  def skip(self, name: str, reason: str) -> None:
    """Leaves something out, with a reason to report."""
    self._skipped.append((name, reason))

  def finish(
    self,
    videos: Sequence[Videos],
    class_names: ClassNames,
    unlabelled: Sequence[str],
    multi_label: bool = False,
  ) -> Listing:
    """Makes the listing, and logs how much of the dataset is there.

    Args:
      videos: The files; those that no list names are reported.
      class_names: In the official order.
      unlabelled: Classes, as names or shell patterns, that are to count as
        none.
      multi_label: Whether several may apply to an example.

    Returns:
      The listing.

    Raises:
      ValueError: If no video is there, if an example has a class that is not
        in the class names, or if a name in `unlabelled` fits none.
    """
    if not self._entries:
      raise ValueError(
        f'{self._where}: none of the {sum(self._listed.values())} videos of '
        f'the lists is there; {sum(map(len, videos))} other videos are. They '
        'are looked for in '
        f'{listing.shown(place for v in videos for place in v.places)}. '
        f'Listed are {listing.shown(name for name, _ in self._missing)}.'
      )
    self._check_labels(class_names)
    entries, class_names = _without(
      self._entries, class_names, unlabelled, self._where
    )
    multi_label = multi_label and bool(class_names)
    for files in videos:
      self._skipped.extend(files.unused())
    self._log_counts()
    return listing.number_labels(
      entries,
      class_names,
      multi_label,
      skipped=tuple(self._skipped),
      missing=tuple(self._missing),
      duplicates=tuple(self._duplicates),
    )

  def _check_labels(self, class_names: ClassNames) -> None:
    heads = None
    known = {''}
    if isinstance(class_names, Mapping):
      heads = [{'', *names} for names in class_names.values()]
    else:
      known.update(class_names)
    for entry in self._entries:
      label = (entry.label,) if isinstance(entry.label, str) else entry.label
      for i, name in enumerate(label):
        if name not in (heads[i] if heads else known):
          raise ValueError(
            f'{self._where}: {entry.id} has the class {name!r}, which is not '
            'in the list of classes.'
          )

  def _log_counts(self) -> None:
    there: dict[str, int] = {}
    for entry in self._entries:
      there[entry.split] = there.get(entry.split, 0) + 1
    counts = ', '.join(
      f'{split} {there.get(split, 0)} of {listed}'
      for split, listed in self._listed.items()
    )
    odd = ''.join(
      f', {len(names)} {what}'
      for names, what in (
        (self._duplicates, 'named twice'),
        (self._skipped, 'left out'),
      )
      if names
    )
    log_once(
      logging.INFO, f'data: {self._where}: {counts} videos are there{odd}'
    )
    poor = [
      f'{split} ({there[split]} of {listed})'
      for split, listed in self._listed.items()
      if 0 < there.get(split, 0) < listed / 2
    ]
    if poor:
      log_once(
        logging.WARNING,
        f'data: {self._where}: more than half of the videos are missing in '
        f'{", ".join(poor)}, such as '
        f'{listing.shown(name for name, _ in self._missing[:3])}. Have all '
        'archives been unpacked, and do the lists belong to these videos?',
      )


@functools.cache
def log_once(level: int, message: str) -> None:
  """Logs what the train and the test split of a run would both say.

  Args:
    level: Of `logging`.
    message: The same message is logged once in a process.
  """
  _log.log(level, message)


def _without(
  entries: list[Entry],
  class_names: ClassNames,
  unlabelled: Sequence[str],
  where: str,
) -> tuple[list[Entry], ClassNames]:
  """Takes out the classes that are to count as none."""
  if not unlabelled:
    return entries, class_names
  heads = (
    class_names.values() if isinstance(class_names, Mapping) else [class_names]
  )
  names = {name for head in heads for name in head}
  listing.check_unlabelled(unlabelled, names, f'class of {where}')
  none = {name for name in names if listing.fits(name, unlabelled)}

  def cleared(label):
    if isinstance(label, str):
      return '' if label in none else label
    if isinstance(class_names, Mapping):
      return tuple('' if name in none else name for name in label)
    return ('',) if none.intersection(label) else label

  def kept(head):
    return tuple(name for name in head if name not in none)

  if none == names:
    return [dataclasses.replace(entry, label='') for entry in entries], ()
  entries = [
    dataclasses.replace(entry, label=cleared(entry.label)) for entry in entries
  ]
  if isinstance(class_names, Mapping):
    return entries, {h: kept(names) for h, names in class_names.items()}
  return entries, kept(class_names)
