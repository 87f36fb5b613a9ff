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

import logging
import posixpath
from collections.abc import Sequence

from etils import epath

from vivit_mae.data.layouts import files
from vivit_mae.data.layouts.collector import Collector
from vivit_mae.data.layouts.videos import Videos, squeeze
from vivit_mae.data.listing import SPLITS, Entry, Listing

_log = logging.getLogger(__name__)

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
    lines = list(files.read_table(lists, _COLUMNS, _BARE))
    names.update(fields[0] for _, fields in lines)
    _check_splits(lists, split, [fields[4] for _, fields in lines])
    folders = []
    for line, (label, youtube_id, start, end, _) in lines:
      stem = (
        f'{youtube_id}_{files.whole(start, line, "time_start"):06d}'
        f'_{files.whole(end, line, "time_end"):06d}'
      )
      place = videos.find(stem, label)
      folders.append((label, place))
      if youtube_id in short:
        place = replacements.find(short[youtube_id])
      collector.add(Entry(split, place, stem, label), line)
    _check_folders(lists, folders)
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


def _check_splits(lists: str, split: str, written: Sequence[str]) -> None:
  """The list's name says the split; a column that says another is odd."""
  other = [w for w in written if SPLITS.get(w.lower(), split) != split]
  if other:
    _log.warning(
      'data: %s: %d of %d lines say another split, such as %r; they count as '
      '%s, as the file says',
      *(lists, len(other), len(written), other[0], split),
    )


def _check_folders(lists: str, folders: Sequence[tuple[str, str]]) -> None:
  """A class folder that contradicts the list is odd; the list counts."""
  classes = {squeeze(label) for label, _ in folders} - {''}
  odd = []
  for label, place in folders:
    if not place or not label:
      continue
    folder = squeeze(posixpath.basename(posixpath.dirname(place)))
    if folder in classes and folder != squeeze(label):
      odd.append(f'{place} ({label})')
  if odd:
    _log.warning(
      'data: %d videos lie in the folder of another class than %s says, such '
      'as %s; the list counts',
      *(len(odd), lists, odd[0]),
    )
