"""Names of the classes of published heads, in the heads' order.

A checkpoint holds numbers only, and two heads for one data set may order its
classes differently. So there are names for a data set, never for a number of
classes, and it is for the caller to know that a head follows the list. The
lists are `labels/<data set>.txt`, a name a line. Where they come from, and
which heads follow them:

kinetics_400: torchvision, torchvision/models/_meta.py. The same names in the
  same order are in gluoncv (gluoncv/data/kinetics400, brackets written as
  hyphens), Survai-hrf/Video-Swin-Transformer (demo/label_map_k400.txt) and
  pytorchvideo's kinetics_classnames.json, where names of several words hold
  their CSV quotes. Scenic's heads follow it: in huggingface/transformers
  (modeling_vivit.py) model 1 sees eating spaghetti as class 116. So do
  VideoMAE's, which convert_videomae_to_pytorch.py gives the file of names that
  convert_vivit_flax_to_pytorch.py gives Scenic's, and V2's: in its DATASET.md
  the videos jf7RDuUTrsQ and y9r115bgfNk have the labels 325 and 320, and the
  lists of Sense-X/UniFormer, which has an order of its own, tell that they are
  somersaulting and sniffing. V-JEPA's heads follow yet another order.
kinetics_600: tensorflow/models, official/projects/movinet/files/
  kinetics_600_labels.txt. That Scenic's and VideoMAE V2's heads follow it is
  likely, as their Kinetics-400 heads are alphabetical, but not confirmed.
kinetics_700: open-mmlab/mmaction2, tools/data/kinetics/label_map_k700.txt, and
  gluoncv, gluoncv/data/kinetics700. No published head was checked.
something_something_v2: gluoncv, gluoncv/data/somethingsomethingv2, and
  mmaction2, tools/data/sthv2/label_map.txt: the order of the official
  something-something-v2-labels.json.
ucf101: tensorflow-datasets, video/ucf101_labels.txt: the order of the official
  classInd.txt, which counts from 1 and ignores case. In the order of folders
  sorted by ASCII (gluoncv has it) HammerThrow comes before Hammering and
  JumpRope before JumpingJack. VideoMAE's DATASET.md does not tell which of the
  two its heads follow, nor did its authors when asked for the lists
  (MCG-NJU/VideoMAE, issue 35).
hmdb51: gluoncv, gluoncv/data/hmdb51, and mmaction2, issue 934. VideoMAE does
  not tell the order of its heads; this is the usual one.
diving48: mmaction2, tools/data/diving48/label_map.txt, the order of the
  official Diving48_vocab.json.
epic_kitchens_100_nouns, epic_kitchens_100_verbs: epic-kitchens/
  epic-kitchens-100-annotations, EPIC_100_noun_classes_v2.csv (its first 300;
  hands, feet and gloves came later) and verb_classes.csv, by id. A head of
  Scenic's has 397 classes: 300 nouns, then 97 verbs.
ava: the official list of 80 actions as public demos for SlowFast quote it, 60
  of them checked with mmaction2, demo/label_map_ava.txt. Class i is action
  i + 1, as in MCG-NJU/STMixer, alphaction/dataset/datasets/ava_dataset.py; the
  file of VideoMAE-Action-Detection was not at hand.

Heads of Kinetics-710 have their own order, see `rows_of_710`; no list of all
its names could be confirmed.
"""

from importlib import resources

import numpy as np
from jaxtyping import Int

DATASETS: tuple[str, ...] = (
  'ava',
  'diving48',
  'epic_kitchens_100_nouns',
  'epic_kitchens_100_verbs',
  'hmdb51',
  'kinetics_400',
  'kinetics_600',
  'kinetics_700',
  'something_something_v2',
  'ucf101',
)

_ROWS = {'kinetics_400': 'kinetics_710_to_400'}


def class_names(dataset: str) -> tuple[str, ...]:
  """The names of a data set's classes.

  Args:
    dataset: One of `DATASETS`.

  Returns:
    A name for each output of a head, in the order the module tells.

  Raises:
    ValueError: no names are known for that data set.
  """
  if dataset not in DATASETS:
    raise ValueError(
      f'No class names are known for the data set {dataset!r}; they are for '
      f'{", ".join(DATASETS)}.'
    )
  return _lines(dataset)


def rows_of_710(dataset: str) -> Int[np.ndarray, ' c']:
  """Which rows of a Kinetics-710 head are the classes of a smaller data set.

  VideoMAE V2's heads of 710 classes (`vit_g_hybrid_pt_1200e_k710_ft.pth` and
  the distilled S and B) begin with the 400 of Kinetics-400, in the order of
  UniFormer and not the alphabet's. `kernel[:, rows_of_710('kinetics_400')]` is
  a head for `class_names('kinetics_400')`, as V2 makes one with
  misc/label_710to400.json.

  Source: mmaction2, configs/recognition/uniformerv2/k710_channel_map/
  map_k400.json, which agrees with the names beside it (label_map_k710.txt).
  That V2 begins alike: 31 names quoted with their place in its
  misc/label_map_k710.txt, by ohadravid/vit-trt (who ran the distilled S with
  it) and by users of the giant. One place quoted from after the 400 is not
  mmaction2's: V2 orders the other 310 differently, so the rows of
  Kinetics-600 and Kinetics-700 are not known.

  Args:
    dataset: Of the classes; 'kinetics_400'.

  Returns:
    An index into the 710 rows for each class.

  Raises:
    ValueError: the rows are not known for that data set.
  """
  if dataset not in _ROWS:
    raise ValueError(
      f'Which rows of a Kinetics-710 head are {dataset!r} is not known; it is '
      f'for {", ".join(_ROWS)}.'
    )
  return np.array([int(row) for row in _lines(_ROWS[dataset])], np.int32)


def _lines(name: str) -> tuple[str, ...]:
  folder = resources.files('vivit_mae.convert') / 'labels'
  text = (folder / f'{name}.txt').read_text(encoding='utf-8')
  return tuple(text.splitlines())
