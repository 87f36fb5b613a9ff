"""Kinetics-400, -600 and -700.

The lists are csv files with the columns label, youtube_id, time_start, time_end
and split (Kinetics-400 of CVDF has is_cc besides; the test list of Kinetics-700
has no label): `train.csv`, `val.csv` and `test.csv` of
https://github.com/cvdfoundation/kinetics-dataset, or `train.csv`,
`validate.csv` and `test.csv` of DeepMind's archives. A video is
`<youtube_id>_<start>_<end>.mp4` with six digits for each time: all of a split
in one folder, as CVDF packs them, or in a folder for each class, as
`arrange_by_classes.py` there, ActivityNet's crawler and torchvision have it.

Labels are numbered in the order of the sorted class names, as mmaction2
(tools/data/parse_file_list.py, label_map_k700.txt) and the published models
have it.
"""

import collections
import logging
import posixpath
from collections.abc import Sequence

from etils import epath

from vivit_mae.data.layouts import files
from vivit_mae.data.layouts.collector import Collector, log_once
from vivit_mae.data.layouts.videos import Videos, squeeze
from vivit_mae.data.listing import SPLITS, Entry, Listing

_SPLITS = {
  'train': ('train',),
  'validation': ('val', 'validate', 'validation'),
  'test': ('test',),
}
_COLUMNS = ('label?', 'youtube_id', 'time_start', 'time_end', 'split?')
_BARE = (
  ('youtube_id', 'time_start', 'time_end', 'split'),
  ('label', 'youtube_id', 'time_start', 'time_end', 'split'),
  ('label', 'youtube_id', 'time_start', 'time_end', 'split', 'is_cc'),
)
_ID_LENGTH = 11  # of YouTube


def read(
  path: epath.PathLike, unlabelled: Sequence[str], num_classes: int
) -> Listing:
  """Lists one of the Kinetics datasets.

  Args:
    path: Its folder.
    unlabelled: Classes that are to count as none.
    num_classes: 400, 600 or 700. The lists may name fewer.

  Returns:
    The listing; an id is the name of the file without its extension.

  Raises:
    ValueError: If there is no list or no video, if a line cannot be understood,
      or if there are too many classes.
  """
  root = files.open_root(path)
  layout = f'kinetics{num_classes}'
  collector = Collector(layout, root)
  names: set[str] = set()
  found = []
  replacements = _replacements(root, num_classes)
  short = {stem[:_ID_LENGTH]: stem for stem in replacements.stems()}
  for split, words in _SPLITS.items():
    lists = _find_list(root, words, num_classes)
    if lists is None:
      continue
    videos = Videos(root, _folders(words, num_classes))
    found.append(videos)
    oddities = _Oddities(lists, split)
    for line, fields in files.read_table(lists, _COLUMNS, _BARE):
      label, youtube_id, start, end, written = fields
      stem = (
        f'{youtube_id}_{files.whole(start, line, "time_start"):06d}'
        f'_{files.whole(end, line, "time_end"):06d}'
      )
      place = videos.find(stem, label)
      oddities.add(label, written, place)
      if youtube_id in short:
        place = replacements.find(short[youtube_id])
      collector.add(Entry(split, place, stem, label), line)
    oddities.log()
    names.update(oddities.labels)
  if not found:
    raise ValueError(
      f'{root} has no list of {layout}: train.csv, val.csv (or validate.csv) '
      'or test.csv, in the folder itself or in annotations/. Lists of paths '
      "and labels, as VideoMAE and mmaction2 write them, are source 'csv'."
    )
  names.discard('')
  if len(names) > num_classes:
    raise ValueError(
      f'The lists in {root} name {len(names)} classes; {layout} has '
      f'{num_classes}. Which dataset is it?'
    )
  return collector.finish(found, tuple(sorted(names)), unlabelled)


def _find_list(root: str, words: Sequence[str], number: int) -> str | None:
  name = f'kinetics{number}'
  prefixes = ('', 'kinetics_', f'{name}_', *_tags(number))
  return files.find(
    root,
    (
      *('', 'annotations', name, f'annotations/{name}', 'kinetics700_2020'),
      *('annotations/deepmind', 'annotations/deepmind/kinetics700_2020'),
    ),
    [f'{prefix}{word}.csv' for prefix in prefixes for word in words],
  )


def _tags(number: int) -> tuple[str, str]:
  return f'kinetics-{number}_', f'kinetics_{number}_'


def _folders(words: Sequence[str], number: int) -> list[tuple[str, str]]:
  starts = ('', 'videos/', 'videos_', *_tags(number))
  places = [f'{start}{word}' for start in starts for word in words]
  return [(place, f'{place}/*') for place in places]


def _replacements(root: str, number: int) -> Videos:
  """CVDF's whole copies of broken videos, which count instead of those."""
  folder = 'replacement_for_corrupted_k400'
  places = [(f'replacement/{folder}',), (folder,), ('replacement',)]
  return Videos(root, places if number == 400 else [])


class _Oddities:
  """Counts what a list says in other words than names of files and folders.

  Attributes:
    labels: The classes that the list names.
  """

  def __init__(self, path: str, split: str):
    self._path, self._split = path, split
    self._splits = collections.Counter[str]()
    self._places: dict[tuple[str, str], list[str]] = {}
    self.labels: set[str] = set()

  def add(self, label: str, split: str, place: str) -> None:
    """Takes in a line, and where its video is."""
    self.labels.add(label)
    self._splits[split] += 1
    folder = posixpath.basename(posixpath.dirname(place))
    if place and label and squeeze(folder) != squeeze(label):
      self._places.setdefault((folder, label), []).append(place)

  def log(self) -> None:
    """Says what counts: the split of the list's name, the class in the list."""
    others = {
      word: count
      for word, count in self._splits.items()
      if SPLITS.get(word.lower(), self._split) != self._split
    }
    if others:
      log_once(
        logging.WARNING,
        f'data: {self._path}: {sum(others.values())} of '
        f'{self._splits.total()} lines say another split, such as '
        f'{next(iter(others))!r}; they count as {self._split}, as the name of '
        'the file says',
      )
    classes = {squeeze(label) for label in self.labels}
    odd = [
      f'{place} ({label})'
      for (folder, label), places in self._places.items()
      if squeeze(folder) in classes
      for place in places
    ]
    if odd:
      log_once(
        logging.WARNING,
        f'data: {len(odd)} videos lie in the folder of another class than '
        f'{self._path} says, such as {odd[0]}; the list counts',
      )
