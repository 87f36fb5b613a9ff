"""Classes that are left out."""

import pytest

from vivit_mae.data import kept_classes


def test_one_label():
  kept = kept_classes.KeptClasses(('a', 'b', 'c'), ('b',), 'here')
  assert kept.class_names == ('a', 'c')
  assert [kept.number(i) for i in (0, 1, 2, -1)] == [0, -1, 1, -1]


def test_several_labels():
  kept = kept_classes.KeptClasses(('a', 'b', 'c'), ('b',), 'here')
  labels = [(2, 0), (2, 2), (0, 1), (), (-1,)]
  found = [kept.number(label) for label in labels]
  assert found == [(0, 1), (1,), (-1,), (), (-1,)]


def test_heads():
  names = {'verb': ('a', 'b'), 'noun': ('b', 'c', 'd')}
  kept = kept_classes.KeptClasses(names, ('b', 'd'), 'here')
  assert kept.class_names == {'verb': ('a',), 'noun': ('c',)}
  assert kept.number((0, 1)) == (0, 0)
  assert kept.number((1, 2)) == (-1, -1)
  assert kept.number((-1, 1)) == (-1, 0)


def test_names_that_fit_no_class():
  with pytest.raises(ValueError, match='names x, which fits no class of here'):
    kept_classes.KeptClasses(('a',), ('x',), 'here')
