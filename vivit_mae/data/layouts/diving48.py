"""Diving48, second version (V2) of its labels.

`Diving48_V2_train.json` and `Diving48_V2_test.json` are lists of {vid_name,
label, start_frame, end_frame}; `Diving48_vocab.json` lists what the labels
mean, each as four words: ["Back", "15som", "05Twis", "FREE"]. Videos are
`rgb/<vid_name>.mp4`. From http://www.svcl.ucsd.edu/projects/resound/dataset.html
"""

from collections.abc import Sequence

from etils import epath

from vivit_mae.data.layouts import files
from vivit_mae.data.layouts.collector import Collector
from vivit_mae.data.layouts.videos import Videos
from vivit_mae.data.listing import Entry, Listing

_FOLDERS = ('', 'annotations')
_VIDEOS = (('rgb',), ('videos',), ('Diving48_rgb/rgb',), ('.',))


def read(path: epath.PathLike, unlabelled: Sequence[str]) -> Listing:
  """Lists Diving48.

  Args:
    path: Its folder.
    unlabelled: Classes that are to count as none, named as in mmaction2:
      'Back+15som+05Twis+FREE'.

  Returns:
    The listing, with the splits 'train' and 'test'; an id is the `vid_name`.

  Raises:
    ValueError: If a list or all videos are missing, or if one does not hold
      what it should.
  """
  root = files.open_root(path)
  vocabulary = files.need(root, _FOLDERS, ['Diving48_vocab.json'])
  names = tuple(
    words if isinstance(words, str) else '+'.join(map(str, words))
    for words in files.read_json(vocabulary, list)
  )
  collector = Collector('diving48', root)
  videos = Videos(root, _VIDEOS)
  for split in ('train', 'test'):
    found = files.need(root, _FOLDERS, [f'Diving48_V2_{split}.json'])
    for line, (name, label) in files.read_items(found, ('vid_name', 'label')):
      number = files.whole(label, line, 'label')
      if not 0 <= number < len(names):
        raise ValueError(
          f'{line}: the label is {number}, and {vocabulary} has '
          f'{len(names)} classes.'
        )
      entry = Entry(split, videos.find(name), name, names[number])
      collector.add(entry, line)
  return collector.finish([videos], names, unlabelled)
