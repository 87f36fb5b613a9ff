"""Public weights by name, and as a table.

`zoo_files` lists them, `download` fetches them.
"""

import difflib

from vivit_mae.convert.zoo_entry import Entry
from vivit_mae.convert.zoo_files import ENTRIES, PAPERS

ZOO: dict[str, Entry] = {entry.name: entry for entry in ENTRIES}


def lookup(name: str) -> Entry:
  """Finds an entry by its name.

  Args:
    name: A key of `ZOO`.

  Returns:
    The entry.

  Raises:
    ValueError: there is none of that name; says which are nearest.
  """
  if name in ZOO:
    return ZOO[name]
  raise ValueError(
    f'No public weights are called {name!r}; the nearest of {len(ZOO)} names '
    f'(all in docs/model_zoo.md): {", ".join(nearest(name))}.'
  )


def nearest(name: str) -> list[str]:
  """The three names most like one that is not there."""
  return difflib.get_close_matches(name, ZOO, n=3, cutoff=0)


_COLUMNS = (
  *('name', 'holds', 'trained on', 'frames x stride'),
  *('published top-1 (not measured by us)', 'licence', 'checked by'),
  *('address read in', 'notes'),
)


def table() -> str:
  """The entries as Markdown, a table for each source; docs/ holds a copy."""
  parts = []
  for source, papers in PAPERS.items():
    entries = [entry for entry in ENTRIES if entry.source == source]
    rows = [_COLUMNS, ('---',) * len(_COLUMNS), *map(_row, entries)]
    parts.append(f'### {source}\n\n{papers}\n')
    parts.append('\n'.join(f'| {" | ".join(row)} |' for row in rows) + '\n')
    sources = {e.accuracy_source: None for e in entries if e.accuracy}
    if sources:
      parts.append(f'Accuracies published in: {"; ".join(sources)}.\n')
  return '\n'.join(parts)


def _row(entry: Entry) -> tuple[str, ...]:
  if entry.num_frames == 1:
    clip = 'image'
  else:
    clip = f'{entry.num_frames} x {entry.stride or "even"}'
  checks = (
    ('sha256', entry.sha256),
    (f'MD5 {entry.md5_prefix}', entry.md5_prefix),
    ('size', entry.size_bytes),
  )
  return (
    f'[`{entry.name}`]({entry.address})',
    entry.holds,
    entry.data,
    clip,
    entry.accuracy,
    entry.licence,
    ', '.join(what for what, value in checks if value),
    entry.confirmed,
    entry.notes,
  )
