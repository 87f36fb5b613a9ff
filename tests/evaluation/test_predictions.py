import csv
import sys

import numpy as np
import pyarrow.parquet
import pytest
from etils import epath

from vivit_mae.evaluation import predictions
from vivit_mae.tasks import metrics

NAMES = ('a', 'b', 'c', 'd', 'e', 'f', 'g')


def make_scores(**labels):
  rng = np.random.default_rng(0)
  return metrics.Scores(
    np.arange(3),
    {head: rng.dirichlet(np.ones(7), 3) for head in labels or ('label',)},
    {k: np.asarray(v) for k, v in labels.items() if v is not None},
  )


def make_table(scores):
  names = dict.fromkeys(scores.probabilities, NAMES)
  return predictions.columns(scores, ['x/1.mp4', 'y, "z".mp4', 'ü'], names)


def test_columns_are_the_likeliest_classes_in_order():
  scores = make_scores(label=[3, -1, 0])
  table = make_table(scores)
  assert list(table) == [
    'video', 'label', 'predicted',
    'class_1', 'probability_1', 'class_2', 'probability_2', 'class_3',
    'probability_3', 'class_4', 'probability_4', 'class_5', 'probability_5',
  ]  # fmt: skip
  assert table['label'] == ['d', '', 'a']
  for row, probabilities in enumerate(scores.probabilities['label']):
    best = sorted(range(7), key=lambda c: -probabilities[c])
    assert table['predicted'][row] == NAMES[best[0]]
    for place in range(5):
      assert table[f'class_{place + 1}'][row] == NAMES[best[place]]
      found = table[f'probability_{place + 1}'][row]
      assert found == probabilities[best[place]]


def test_several_heads_have_columns_of_their_own():
  table = make_table(make_scores(verb=[0, 1, 2], noun=None))
  assert table['verb.label'] == ['a', 'b', 'c']
  assert table['noun.label'] == ['', '', '']
  assert len(table) == 1 + 2 * 12


def test_several_labels_are_joined():
  several = np.zeros((3, 7), np.float32)
  several[0, [1, 4]] = 1
  scores = make_scores(label=several)
  scores.probabilities['label'][:] = 0.1
  scores.probabilities['label'][2, [0, 6]] = 0.8
  table = make_table(scores)
  assert table['label'] == ['b;e', '', '']
  assert table['predicted'] == ['', '', 'a;g']


@pytest.mark.parametrize('ending', ['csv', 'parquet'])
def test_files_hold_the_table(tmp_path, ending):
  table = make_table(make_scores(label=[3, -1, 0]))
  path = epath.Path(tmp_path / 'new' / f'step_1.{ending}')
  predictions.check_format(ending)
  predictions.write(path, table)
  if ending == 'csv':
    with open(path, encoding='utf8', newline='') as file:
      header, *rows = csv.reader(file)
    assert header == list(table)
    found = dict(zip(header, zip(*rows, strict=True), strict=True))
    numbers = [float(x) for x in found['probability_2']]
    assert numbers == pytest.approx(table['probability_2'], rel=1e-5)
  else:
    found = pyarrow.parquet.read_table(path).to_pydict()
    assert found['probability_2'] == table['probability_2']
  assert list(found['video']) == table['video']
  assert list(found['class_5']) == table['class_5']


def test_formats_that_can_not_be_written_are_refused(monkeypatch):
  predictions.check_format('')
  with pytest.raises(ValueError, match=r"'xls' is unknown: .*'csv'"):
    predictions.check_format('xls')
  monkeypatch.setitem(sys.modules, 'pyarrow.parquet', None)
  with pytest.raises(ValueError, match=r"needs pyarrow: .* take 'csv'"):
    predictions.check_format('parquet')
