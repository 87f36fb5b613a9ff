"""Epic-Kitchens-100: verbs and nouns of segments of long videos.

`EPIC_100_train.csv` and `EPIC_100_validation.csv` have the columns
narration_id, video_id, start_timestamp, stop_timestamp (HH:mm:ss.SS),
verb_class, noun_class and others; `EPIC_100_test_timestamps.csv` has no
classes. `EPIC_100_verb_classes.csv` and `EPIC_100_noun_classes.csv` (id, key,
instances, category) number 97 verbs and 300 nouns. All are in
https://github.com/epic-kitchens/epic-kitchens-100-annotations. The official
download script writes `EPIC-KITCHENS/<participant>/videos/<video_id>.MP4`.
"""

from collections.abc import Sequence

from etils import epath

from vivit_mae.data import segments
from vivit_mae.data.layouts import files
from vivit_mae.data.layouts.collector import Collector
from vivit_mae.data.layouts.videos import Videos
from vivit_mae.data.listing import Entry, Listing

_FOLDERS = ('', 'annotations', 'epic-kitchens-100-annotations')
_LISTS = {
  'train': 'EPIC_100_train.csv',
  'validation': 'EPIC_100_validation.csv',
  'test': 'EPIC_100_test_timestamps.csv',
}
_COLUMNS = ('narration_id', 'video_id', 'start_timestamp', 'stop_timestamp')
_VIDEOS = (
  ('EPIC-KITCHENS/*/videos',),
  ('*/videos',),
  ('videos', 'videos/*'),
  ('.',),
)


def read(path: epath.PathLike, unlabelled: Sequence[str]) -> Listing:
  """Lists Epic-Kitchens-100.

  Args:
    path: Its folder.
    unlabelled: Verbs or nouns that are to count as none.

  Returns:
    The listing; an example is a segment, its id the narration_id, its label
    (verb, noun).

  Raises:
    ValueError: If the classes, all lists or all videos are missing, or if a
      line cannot be understood.
  """
  root = files.open_root(path)
  names = {head: _read_classes(root, head) for head in ('verb', 'noun')}
  collector = Collector('epic_kitchens100', root)
  videos = Videos(root, _VIDEOS)
  found = {
    split: place
    for split, name in _LISTS.items()
    if (place := files.find(root, _FOLDERS, [name]))
  }
  if not found:
    raise ValueError(
      f'{root} has none of {", ".join(_LISTS.values())}, neither itself nor in '
      'annotations/. docs/datasets.md says where to get them.'
    )
  for split, place in found.items():
    heads = () if split == 'test' else ('verb_class', 'noun_class')
    for line, fields in files.read_table(place, (*_COLUMNS, *heads)):
      name, video, start, stop, *classes = fields
      try:
        segment = segments.parse(start, stop, line)
      except ValueError as error:
        collector.skip(name, str(error))
        continue
      label = tuple(
        _name(names[head], number, line, head)
        for head, number in zip(names, classes or ('', ''), strict=True)
      )
      entry = Entry(split, videos.find(video), name, label, segment)
      collector.add(entry, line)
  return collector.finish([videos], names, unlabelled)


def _name(names: Sequence[str], number: str, line: str, head: str) -> str:
  if not number:
    return ''
  index = files.whole(number, line, f'{head}_class')
  if not 0 <= index < len(names):
    raise ValueError(
      f'{line}: {head}_class is {index}, and there are {len(names)} {head}s.'
    )
  return names[index]


def _read_classes(root: str, head: str) -> tuple[str, ...]:
  """The keys of the classes. The second list of nouns adds to the first."""
  stem = f'EPIC_100_{head}_classes'
  for name in (f'{stem}.csv', f'{stem}_v2.csv'):
    path = files.find(root, _FOLDERS, [name])
    if path is not None:
      break
  else:
    raise ValueError(
      f'{root} has no {stem}.csv, neither itself nor in annotations/. '
      'docs/datasets.md says where to get it.'
    )
  names = []
  for line, (number, key) in files.read_table(path, ('id', 'key')):
    if files.whole(number, line, 'id') != len(names):
      raise ValueError(
        f'{line}: the ids must be 0, 1, 2, ...; this is {number}.'
      )
    names.append(key)
  return tuple(names)
