"""UCF101 and HMDB51: folders of classes, and three official splits each."""

from collections.abc import Sequence

from etils import epath

from vivit_mae.data import scan
from vivit_mae.data.layouts import files
from vivit_mae.data.layouts.collector import Collector
from vivit_mae.data.layouts.videos import Videos
from vivit_mae.data.listing import Entry, Listing


def read_ucf101(
  path: epath.PathLike, unlabelled: Sequence[str], official_split: int
) -> Listing:
  """Lists UCF101.

  `ucfTrainTestlist/` of https://www.crcv.ucf.edu/data/UCF101.php holds
  `classInd.txt` ('1 ApplyEyeMakeup'), whose numbers are the order of the
  classes, `trainlist01.txt` ('ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1')
  and `testlist01.txt` (without the number), and the same for 02 and 03.

  Args:
    path: Its folder, with `UCF-101/<class>/<video>.avi`.
    unlabelled: Classes that are to count as none.
    official_split: 1, 2 or 3.

  Returns:
    The listing, with the splits 'train' and 'test'; an id is the name of the
    file without its extension.

  Raises:
    ValueError: If a list or all videos are missing, or if a line contradicts
      the list of classes.
  """
  root = files.open_root(path)
  folders = ('ucfTrainTestlist', 'annotations', '')
  classes = files.need(root, folders, ['classInd.txt'])
  names = _read_classes(classes)
  collector = Collector('ucf101', root)
  places = ('UCF-101/*', 'UCF101/*', 'videos/*', '*', 'videos', '.')
  videos = Videos(root, [(place,) for place in places])
  for split in ('train', 'test'):
    name = f'{split}list{official_split:02d}.txt'
    for line, text in files.read_lines(files.need(root, folders, [name])):
      video, _, number = text.rpartition(' ')
      if not number.isdecimal():
        video, number = text, ''
      folder, separator, file = video.strip().rpartition('/')
      if not separator or not scan.is_video(file):
        raise ValueError(f"{line} is not 'class/video.avi': {text!r:.200}")
      if number and names[int(number) - 1 : int(number)] != (folder,):
        raise ValueError(
          f'{line}: {folder!r} is not number {number} in {classes}.'
        )
      stem = file[: -len(scan.extension(file))]
      place = videos.find(stem, folder)
      collector.add(Entry(split, place, stem, folder), line)
  return collector.finish([videos], names, unlabelled)


def _read_classes(path: str) -> tuple[str, ...]:
  names = []
  for line, text in files.read_lines(path):
    number, _, name = text.partition(' ')
    if files.whole(number, line, 'the number') != len(names) + 1:
      raise ValueError(f'{line}: the classes must be numbered 1, 2, 3, ...')
    names.append(name.strip())
  return tuple(names)


_HMDB51_LISTS = (
  'testTrainMulti_7030_splits',
  'test_train_splits/testTrainMulti_7030_splits',
  'annotations',
  '',
)


def read_hmdb51(
  path: epath.PathLike, unlabelled: Sequence[str], official_split: int
) -> Listing:
  """Lists HMDB51.

  `testTrainMulti_7030_splits/<class>_test_split<k>.txt`, unpacked from
  test_train_splits.rar of
  https://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database/,
  gives each video of a class 1 (training), 2 (testing) or 0 (neither). Classes
  have no official numbers; they are sorted by name, as in mmaction2.

  Args:
    path: Its folder, with `<class>/<video>.avi`, directly or in `videos/` or
      `hmdb51_org/`.
    unlabelled: Classes that are to count as none.
    official_split: 1, 2 or 3.

  Returns:
    The listing, with the splits 'train' and 'test'; an id is the name of the
    file without its extension.

  Raises:
    ValueError: If the lists or all videos are missing, or if a line cannot be
      understood.
  """
  root = files.open_root(path)
  ending = f'_test_split{official_split}.txt'
  lists = {}
  for folder in _HMDB51_LISTS:
    place = f'{root}/{folder}' if folder else root
    lists = {
      child.name.removesuffix(ending): f'{place}/{child.name}'
      for child in scan.children(place)
      if child.name.endswith(ending)
    }
    if lists:
      break
  if not lists:
    raise ValueError(
      f'{root} has no lists <class>{ending}, neither itself nor in '
      'testTrainMulti_7030_splits/. docs/datasets.md says where to get them.'
    )
  collector = Collector('hmdb51', root)
  places = ('hmdb51_org/*', 'hmdb51/*', 'videos/*', '*', 'videos', '.')
  videos = Videos(root, [(place,) for place in places])
  splits = {'1': 'train', '2': 'test', '0': ''}
  for label, found in sorted(lists.items()):
    for line, text in files.read_lines(found):
      file, _, use = text.rpartition(' ')
      if use not in splits or not scan.is_video(file.strip()):
        raise ValueError(
          f"{line} is not 'video.avi' and 0, 1 or 2: {text!r:.200}"
        )
      file = file.strip()
      stem = file[: -len(scan.extension(file))]
      place = videos.find(stem, label)
      if splits[use]:
        collector.add(Entry(splits[use], place, stem, label), line)
      elif place:
        collector.skip(stem, f'in neither part of split {official_split}')
  return collector.finish([videos], tuple(sorted(lists)), unlabelled)
