"""Something-Something v2.

`something-something-v2-labels.json` maps templates to numbers, which are the
order of the classes; `...-train.json` and `...-validation.json` are lists of
{id, label, template, placeholders} whose templates have brackets around
"something"; `...-test.json` holds ids. Qualcomm's release calls them
`labels/labels.json`, `train.json` and so on, and adds `test-answers.csv` with
lines `id;template`. Videos are `20bn-something-something-v2/<id>.webm`. As read
by mmaction2 (tools/data/parse_file_list.py).

Many classes tell left from right: clips must not be flipped.
"""

from collections.abc import Sequence

from etils import epath

from vivit_mae.data.layouts import files
from vivit_mae.data.layouts.collector import Collector
from vivit_mae.data.layouts.videos import Videos
from vivit_mae.data.listing import Entry, Listing

_FOLDERS = ('', 'labels', 'annotations')
_PREFIX = 'something-something-v2-'
_VIDEOS = (
  ('20bn-something-something-v2',),
  ('videos/20bn-something-something-v2',),
  ('videos',),
  ('.',),
)


def read(path: epath.PathLike, unlabelled: Sequence[str]) -> Listing:
  """Lists Something-Something v2.

  Args:
    path: Its folder.
    unlabelled: Classes that are to count as none.

  Returns:
    The listing; ids are the dataset's numbers. The test split has labels where
    `test-answers.csv` is there.

  Raises:
    ValueError: If the classes, all lists or all videos are missing, or if one
      of the files does not hold what it should.
  """
  root = files.open_root(path)
  names = _read_classes(files.need(root, _FOLDERS, _names('labels.json')))
  lists = {
    split: found
    for split in ('train', 'validation', 'test')
    if (found := files.find(root, _FOLDERS, _names(f'{split}.json')))
  }
  if not lists:
    raise ValueError(
      f'{root} has none of {", ".join(_names("train.json"))}, the same for '
      'validation and for test. docs/datasets.md says where to get them.'
    )
  answers = files.find(root, _FOLDERS, _names('test-answers.csv'))
  templates = dict(_read_answers(answers)) if answers else {}
  collector = Collector('ssv2', root)
  videos = Videos(root, _VIDEOS)
  for split, found in lists.items():
    fields = ('id',) if split == 'test' else ('id', 'template')
    for line, (number, *template) in files.read_items(found, fields):
      if template:
        label = template[0].replace('[', '').replace(']', '')
      else:
        label = templates.get(str(number), '')
      name = str(number)
      collector.add(Entry(split, videos.find(name), name, label), line)
  return collector.finish([videos], names, unlabelled)


def _names(name: str) -> tuple[str, str]:
  return _PREFIX + name, name


def _read_classes(path: str) -> tuple[str, ...]:
  numbers = {
    name: files.whole(number, path, repr(name))
    for name, number in files.read_json(path, dict).items()
  }
  if sorted(numbers.values()) != list(range(len(numbers))):
    raise ValueError(
      f'{path} must number its {len(numbers)} classes from 0 to '
      f'{len(numbers) - 1}, each once.'
    )
  return tuple(sorted(numbers, key=numbers.__getitem__))


def _read_answers(path: str):
  for line, text in files.read_lines(path):
    number, separator, template = text.partition(';')
    if not separator:
      raise ValueError(f"{line} is not 'id;template': {text!r:.200}")
    yield number.strip(), template.strip()
