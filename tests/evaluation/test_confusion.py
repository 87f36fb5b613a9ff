import numpy as np
import pytest

from vivit_mae.evaluation import confusion

DARK = (8, 48, 107)


def make_counts(classes, seed=0):
  rng = np.random.default_rng(seed)
  counts = 20 * np.eye(classes, dtype=int)
  counts[0, classes - 1] = 5
  return counts + (rng.random((classes, classes)) < 0.02)


def names(classes):
  return [f'class {number}' for number in range(classes)]


def dark_pixels(picture):
  return (picture == DARK).all(-1)


@pytest.mark.parametrize('classes', [2, 10, 51, 101, 400])
def test_every_class_is_seen_and_the_picture_fits_a_screen(classes):
  counts = 3 * np.eye(classes, dtype=int)
  picture = confusion.picture(counts, names(classes))
  assert picture.dtype == np.uint8
  assert max(picture.shape) < 1300
  rows, columns = np.where(dark_pixels(picture))
  # The diagonal: squares from the top left to the bottom right.
  assert len(np.unique(rows)) >= 1.6 * classes
  assert np.corrcoef(rows, columns)[0, 1] > 0.7


def test_the_true_class_is_the_row():
  counts = np.array([[0, 6], [0, 0]])
  picture = confusion.picture(counts, ['a', 'b'])
  rows, columns = np.where(dark_pixels(picture))
  others = confusion.picture(counts.T, ['a', 'b'])
  other_rows, other_columns = np.where(dark_pixels(others))
  assert columns.mean() > other_columns.mean() + 30
  assert rows.mean() < other_rows.mean() - 30


def test_names_counts_and_pairs_change_what_is_drawn():
  counts = make_counts(10)
  usual = confusion.picture(counts, names(10))
  renamed = confusion.picture(counts, ['other', *names(10)[1:]])
  assert usual.shape != renamed.shape or (usual != renamed).any()
  titled = confusion.picture(counts, names(10), 'top-1 90 %')
  assert titled.shape[0] > usual.shape[0]
  # Nothing confused: no list below.
  clean = confusion.picture(np.diag(np.diag(counts)), names(10))
  assert clean.shape[0] < usual.shape[0] - 50


def test_the_most_confused_come_first():
  counts = np.array([[9, 1, 0], [4, 6, 0], [2, 0, 8]])
  lines = confusion._confused(counts, ['a', 'b', 'c'], numbered=True)
  assert lines == [
    'confused most:',
    '4 of 10  1 b  taken for  0 a',
    '2 of 10  2 c  taken for  0 a',
    '1 of 10  0 a  taken for  1 b',
  ]


def test_classes_without_videos_and_long_names_are_drawn():
  counts = make_counts(12)
  counts[3] = 0
  long = ['a name that goes on and on and never comes to an end', *names(11)]
  picture = confusion.picture(counts, long)
  assert picture.shape[1] < 1000


def test_the_names_must_be_as_many_as_the_classes():
  with pytest.raises(ValueError, match='3 classes needs as many names, not 2'):
    confusion.picture(make_counts(3), names(2))
