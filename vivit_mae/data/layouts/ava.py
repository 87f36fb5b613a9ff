"""AVA 2.2: who does what in the middle of two seconds of a film.

`ava_train_v2.2.csv` and `ava_val_v2.2.csv` have, without a first line of names,
video_id, middle_frame_timestamp (seconds), x1, y1, x2, y2 (fractions of the
frame), action_id, person_id: a line for each action of each person. Every
second from 902 to 1798 of a film is a key frame, but for those of
`ava_<split>_excluded_timestamps_v2.2.csv` (video_id, timestamp).
`ava_action_list_v2.2.pbtxt` names 80 actions, numbered from 1;
`ava_action_list_v2.2_for_activitynet_2019.pbtxt` the 60 of them that count in
the benchmark. `ava_test_v2.2.txt` names the films of the test split, which has
no labels. From https://research.google.com/ava/download.html.

Films are `<video_id>.mp4`, `.mkv` or `.webm`, in `trainval/` and `test/` of
https://github.com/cvdfoundation/ava-dataset or in `videos/`. Where only
`videos_15min/` is there, minutes 15 to 30 as SlowFast and mmaction2 cut them
out, times count from 900 s.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence

from etils import epath

from vivit_mae.data import scan
from vivit_mae.data.layouts import files
from vivit_mae.data.layouts.collector import Collector
from vivit_mae.data.layouts.videos import Videos
from vivit_mae.data.listing import Box, Entry, Listing

_FOLDERS = ('', 'annotations', 'ava_v2.2')
_LISTS = {'train': 'train', 'validation': 'val'}
_ACTIONS = (
  'ava_action_list_v2.2.pbtxt',
  'ava_action_list_v2.2_for_activitynet_2019.pbtxt',
)
_COLUMNS = (
  *('video_id', 'middle_frame_timestamp', 'x1', 'y1', 'x2', 'y2'),
  *('action_id', 'person_id'),
)
_NUM_ACTIONS = 80
_TEST_SECONDS = range(902, 1799)
_CUT_AT = 900  # where the films of videos_15min start
_AROUND = 1  # seconds before and after a key frame
_SECONDS = range(_CUT_AT + _AROUND, 1801)
_FILMS = (('trainval', 'test'), ('videos', 'videos/*'), ('.',))


@dataclasses.dataclass
class _KeyFrame:
  """The persons of a key frame: (x1, y1, x2, y2, person) -> action ids."""

  line: str
  persons: dict[tuple[float, float, float, float, int], set[int]]


def read(path: epath.PathLike, unlabelled: Sequence[str]) -> Listing:
  """Lists AVA 2.2.

  Args:
    path: Its folder.
    unlabelled: '*' for no labels, or nothing.

  Returns:
    The listing. An example is a key frame with the second before and the one
    after it; its id is 'video_id,timestamp', its label all actions of all
    persons, its boxes the persons. Key frames in which nobody is annotated are
    in no list, and no example.

  Raises:
    ValueError: If the actions, all lists or all films are missing, if a line
      cannot be understood, or if `unlabelled` names single actions.
  """
  if unlabelled not in ((), ('*',)):
    raise ValueError(
      f'data.unlabelled is {list(unlabelled)}; for AVA, whose persons have '
      "several actions, it is ['*'] or empty."
    )
  root = files.open_root(path)
  names, places = _read_actions(root)
  collector = Collector('ava', root)
  films = Videos(root, _FILMS)
  cut = Videos(root, [('videos_15min',)])
  found = {
    split: place
    for split, word in _LISTS.items()
    if (place := files.find(root, _FOLDERS, [f'ava_{word}_v2.2.csv']))
  }
  tests = files.find(root, _FOLDERS, ['ava_test_v2.2.txt'])
  if not found and tests is None:
    raise ValueError(
      f'{root} has none of ava_train_v2.2.csv, ava_val_v2.2.csv and '
      'ava_test_v2.2.txt, neither itself nor in annotations/. '
      'docs/datasets.md says where to get them.'
    )

  def add(split, film, second, line, label, boxes):
    place, start = films.find(film), second - _AROUND
    if not place:
      place, start = cut.find(film), start - _CUT_AT
    segment = start, start + 2 * _AROUND
    name = f'{film},{second:04d}'
    collector.add(Entry(split, place, name, label, segment, boxes), line)

  for split, place in found.items():
    excluded = _read_excluded(root, _LISTS[split])
    frames = _read_frames(place)
    for (film, second), frame in frames.items():
      if (film, second) in excluded:
        collector.skip(f'{film},{second:04d}', 'an excluded timestamp')
        continue
      boxes = tuple(
        Box(*box, tuple(sorted(places[i] for i in ids if i in places)))
        for box, ids in frame.persons.items()
      )
      label = tuple(
        names[i] for i in sorted({i for box in boxes for i in box.classes})
      )
      boxes = None if unlabelled else boxes
      add(split, film, second, frame.line, label, boxes)
  if tests is not None:
    excluded = _read_excluded(root, 'test')
    for line, film in files.read_lines(tests):
      film = film[: -len(scan.extension(film))] if scan.is_video(film) else film
      for second in _TEST_SECONDS:
        if (film, second) not in excluded:
          add('test', film, second, line, ('',), None)
  return collector.finish([films, cut], names, unlabelled, multi_label=True)


def _read_actions(root: str) -> tuple[tuple[str, ...], Mapping[int, int]]:
  """The names of the actions, and where an action's id stands among them."""
  for name in _ACTIONS:
    path = files.find(root, _FOLDERS, [name])
    if path is not None:
      break
  else:
    raise ValueError(
      f'{root} has no {_ACTIONS[0]}, neither itself nor in annotations/. '
      'docs/datasets.md says where to get it.'
    )
  ids: dict[int, str] = {}
  for block in re.findall(r'\{(.*?)\}', files.read_text(path), re.DOTALL):
    name = re.search(r'name:\s*"([^"]*)"', block)
    number = re.search(r'\b(?:label_id|id):\s*(\d+)', block)
    if name is None or number is None or int(number[1]) in ids:
      raise ValueError(
        f'{path}: an action has one name and one number of its own; this is '
        f'{block.strip()!r:.200}.'
      )
    ids[int(number[1])] = name[1]
  if not ids:
    raise ValueError(f'{path} names no actions.')
  order = sorted(ids)
  return tuple(ids[i] for i in order), {i: k for k, i in enumerate(order)}


def _read_frames(path: str) -> dict[tuple[str, int], _KeyFrame]:
  """All key frames of a list, in its order."""
  frames: dict[tuple[str, int], _KeyFrame] = {}
  for line, fields in files.read_table(path, _COLUMNS, (_COLUMNS,)):
    film, second, *box, action, person = fields
    key = film, files.whole(second, line, 'the timestamp')
    if key[1] not in _SECONDS:
      raise ValueError(
        f'{line}: the timestamp is {second}; AVA has seconds 900 to 1800.'
      )
    frame = frames.setdefault(key, _KeyFrame(line, {}))
    if not any(box) and not action:
      continue  # nobody is annotated
    number = files.whole(action, line, 'the action')
    if not 1 <= number <= _NUM_ACTIONS:
      raise ValueError(
        f'{line}: the action is {number}; AVA has 1 to {_NUM_ACTIONS}.'
      )
    who = files.whole(person, line, 'the person') if person else -1
    place = (*_fractions(box, line), who)
    frame.persons.setdefault(place, set()).add(number)
  return frames


def _fractions(
  box: Sequence[str], line: str
) -> tuple[float, float, float, float]:
  try:
    x1, y1, x2, y2 = map(float, box)
  except ValueError:
    x1 = y1 = x2 = y2 = -1.0
  if not (0 <= x1 <= x2 <= 1 and 0 <= y1 <= y2 <= 1):
    raise ValueError(
      f'{line}: {",".join(box)} is no box; x1, y1, x2, y2 are fractions of the '
      'frame, from 0 to 1.'
    )
  return x1, y1, x2, y2


def _read_excluded(root: str, word: str) -> set[tuple[str, int]]:
  name = f'ava_{word}_excluded_timestamps_v2.2.csv'
  path = files.find(root, _FOLDERS, [name])
  return set(_timestamps(path)) if path else set()


def _timestamps(path: str) -> Iterator[tuple[str, int]]:
  for line, text in files.read_lines(path):
    film, _, second = text.partition(',')
    yield film, files.whole(second.strip(), line, 'the timestamp')
