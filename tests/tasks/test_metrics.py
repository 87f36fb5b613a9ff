import numpy as np
import pytest

from vivit_mae.tasks import metrics


def softmax(x):
  x = np.exp(x - x.max(-1, keepdims=True))
  return x / x.sum(-1, keepdims=True)


def make_scores(count=40, seed=0, **heads):
  """Random scores of heads, given as name=classes."""
  rng = np.random.default_rng(seed)
  heads = heads or {'label': 7}
  return metrics.Scores(
    index=np.arange(count),
    probabilities={
      head: softmax(rng.normal(size=(count, classes)))
      for head, classes in heads.items()
    },
    labels={
      head: rng.integers(0, classes, count) for head, classes in heads.items()
    },
  )


def test_one_head_by_hand():
  probabilities = np.array(
    [
      [0.4, 0.3, 0.1, 0.1, 0.06, 0.04],  # right
      [0.4, 0.3, 0.1, 0.1, 0.06, 0.04],  # second
      [0.4, 0.3, 0.1, 0.1, 0.06, 0.04],  # last
      [0.1, 0.1, 0.1, 0.1, 0.1, 0.5],  # right
      [0.9, 0.02, 0.02, 0.02, 0.02, 0.02],  # no label
    ]
  )
  labels = np.array([0, 1, 5, 5, -1])
  scores = metrics.Scores(
    np.arange(5), {'label': probabilities}, {'label': labels}
  )
  numbers = metrics.summarise(scores)
  assert numbers == pytest.approx(
    {
      'loss': -np.log([0.4, 0.3, 0.04, 0.5]).mean(),
      'top1': 2 / 4,
      'top5': 3 / 4,
      # Classes 0, 1 and 5 have videos: all, none and half are right.
      'mean_class_accuracy': (1 + 0 + 0.5) / 3,
    }
  )


def test_five_classes_have_no_top_five():
  assert 'top5' not in metrics.summarise(make_scores(label=5))
  assert 'top5' in metrics.summarise(make_scores(label=6))


def test_the_order_of_the_rows_changes_nothing():
  scores = make_scores(verb=9, noun=7)
  order = np.random.default_rng(1).permutation(len(scores.index))
  mixed = metrics.Scores(
    index=scores.index[order],
    probabilities={k: v[order] for k, v in scores.probabilities.items()},
    labels={k: v[order] for k, v in scores.labels.items()},
  )
  assert metrics.summarise(mixed) == pytest.approx(
    metrics.summarise(scores), rel=1e-12
  )


def test_equal_scores_rank_as_argmax_chooses():
  scores = np.array([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.2, 0.4, 0.4]])
  labels = np.array([0, 1, 2])
  np.testing.assert_array_equal(metrics.ranks(scores, labels), [0, 1, 1])
  scores = np.random.default_rng(0).integers(0, 3, (50, 6)) / 3
  labels = np.arange(50) % 6
  np.testing.assert_array_equal(
    metrics.ranks(scores, labels) == 0, scores.argmax(1) == labels
  )


def test_confusion_counts_rows_that_have_a_label():
  labels = np.array([0, 0, 1, 2, -1])
  predicted = np.array([0, 1, 1, 0, 2])
  np.testing.assert_array_equal(
    metrics.confusion(labels, predicted, 4),
    [[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]],
  )
  assert np.isnan(metrics.mean_class_accuracy(np.zeros((2, 2), int)))


@pytest.mark.parametrize(
  ('scores', 'positive', 'expected'),
  [
    ([3, 2, 1], [1, 0, 0], 1.0),
    ([3, 2, 1], [0, 0, 1], 1 / 3),
    ([4, 3, 2, 1], [1, 0, 1, 0], (1 + 2 / 3) / 2),
    # Equal scores stand or fall together, whatever their order.
    ([2, 2, 1], [1, 0, 0], 1 / 2),
    ([2, 2, 1], [0, 1, 0], 1 / 2),
    ([1, 1, 1, 1], [0, 1, 0, 1], 1 / 2),
  ],
)
def test_average_precision_by_hand(scores, positive, expected):
  found = metrics.average_precision(
    np.array(scores, float), np.array(positive, bool)
  )
  assert found == pytest.approx(expected)


def test_several_labels():
  rng = np.random.default_rng(0)
  probabilities = rng.uniform(0.01, 0.99, (30, 4))
  labels = (rng.random((30, 4)) < 0.3).astype(np.float32)
  labels[:, 3] = 0  # a class that nothing has
  labels[0] = -1  # a video without labels
  numbers = metrics.summarise(
    metrics.Scores(np.arange(30), {'label': probabilities}, {'label': labels})
  )
  p, y = probabilities[1:], labels[1:]
  binary = -(y * np.log(p) + (1 - y) * np.log(1 - p)).sum(1).mean()
  # The definition, threshold by threshold.
  precisions = []
  for c in range(3):
    area, recall = 0.0, 0.0
    for threshold in sorted(p[:, c], reverse=True):
      taken = p[:, c] >= threshold
      now = y[taken, c].sum() / y[:, c].sum()
      area += (now - recall) * y[taken, c].mean()
      recall = now
    precisions.append(area)
  assert numbers == pytest.approx(
    {'loss': binary, 'mean_average_precision': np.mean(precisions)}, rel=1e-6
  )


def test_several_heads_are_counted_apart_and_together():
  scores = make_scores(200, verb=6, noun=8)
  scores.labels['noun'][:50] = -1
  numbers = metrics.summarise(scores)
  for head in ('verb', 'noun'):
    alone = metrics.Scores(
      scores.index,
      {head: scores.probabilities[head]},
      {head: scores.labels[head]},
    )
    for name, value in metrics.summarise(alone).items():
      assert numbers[f'{head}_{name}'] == value
  # Over the whole table of combinations.
  verb, noun = scores.probabilities['verb'], scores.probabilities['noun']
  products = (verb[:, :, None] * noun[:, None]).reshape(200, -1)[50:]
  own = (scores.labels['verb'] * 8 + scores.labels['noun'])[50:]
  place = metrics.ranks(products, own)
  assert numbers['joint_top1'] == pytest.approx((place < 1).mean())
  assert numbers['joint_top5'] == pytest.approx((place < 5).mean())
  assert numbers['joint_top5'] > numbers['joint_top1'] > 0


def test_nothing_is_said_where_nothing_has_a_label():
  scores = make_scores()
  none = np.full_like(scores.labels['label'], -1)
  assert not metrics.summarise(
    metrics.Scores(scores.index, scores.probabilities, {'label': none})
  )
  assert not metrics.summarise(
    metrics.Scores(scores.index, scores.probabilities, {})
  )
