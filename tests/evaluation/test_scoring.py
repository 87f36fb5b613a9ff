import logging

import numpy as np
import pytest

from vivit_mae.evaluation import scoring


def make_rows(videos=4, views=3, classes=5, seed=0, **heads):
  """All views of all videos, as rows: index, view, logits by head, label."""
  rng = np.random.default_rng(seed)
  heads = heads or {'label': classes}
  count = videos * views
  return {
    'index': np.repeat(np.arange(videos), views),
    'view': np.tile(np.arange(views), videos),
    'labels': {head: np.repeat(np.arange(videos), views) for head in heads},
    'results': {
      head: rng.normal(size=(count, n)).astype(np.float32) * 3
      for head, n in heads.items()
    },
  }


def select(rows, places):
  return {
    'index': rows['index'][places],
    'view': rows['view'][places],
    'labels': {k: v[places] for k, v in rows['labels'].items()},
    'results': {k: v[places] for k, v in rows['results'].items()},
  }


def batched(rows, size, order=None):
  order = np.arange(len(rows['index'])) if order is None else order
  return [
    select(rows, order[start : start + size])
    for start in range(0, len(order), size)
  ]


def score(batches, videos=4, views=3, **options):
  return scoring.score(batches, num_videos=videos, num_views=views, **options)


def test_batches_and_their_order_change_nothing():
  rows = make_rows(verb=5, noun=4)
  expected = score(batched(rows, 12))
  order = np.random.default_rng(1).permutation(12)
  for size in (1, 4, 5):
    for places in (None, order):
      found = score(batched(rows, size, places))
      np.testing.assert_array_equal(found.index, range(4))
      for head in ('verb', 'noun'):
        np.testing.assert_array_equal(
          found.probabilities[head], expected.probabilities[head]
        )
        np.testing.assert_array_equal(found.labels[head], range(4))


@pytest.mark.parametrize('average', scoring.AVERAGES)
@pytest.mark.parametrize('multi_label', [False, True])
def test_views_are_averaged_as_asked(average, multi_label):
  rows = make_rows()
  found = score(batched(rows, 5), average=average, multi_label=multi_label)
  logits = rows['results']['label'].astype(np.float64).reshape(4, 3, 5)
  if average == 'logits':
    logits = logits.mean(1, keepdims=True)
  if multi_label:
    shares = 1 / (1 + np.exp(-logits))
  else:
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  np.testing.assert_allclose(
    found.probabilities['label'], shares.mean(1), rtol=1e-10
  )


def test_extreme_logits_are_no_trouble():
  rows = make_rows()
  rows['results']['label'] = np.where(
    rows['results']['label'] > 0, 1e4, -1e4
  ).astype(np.float32)
  for multi_label in (False, True):
    found = score(batched(rows, 12), multi_label=multi_label)
    assert np.isfinite(found.probabilities['label']).all()


def test_a_video_that_lacks_a_view_is_left_out_and_said(caplog):
  rows = make_rows()
  with caplog.at_level(logging.WARNING):
    found = score(batched(rows, 4, np.delete(np.arange(12), [4, 6, 7, 8])))
  np.testing.assert_array_equal(found.index, [0, 3])
  assert '2 of 4 videos could not be read' in caplog.text
  caplog.clear()
  score(batched(rows, 4))
  assert not caplog.text


def test_a_view_that_comes_twice_is_an_error():
  rows = make_rows()
  for twice in ([0, 1, 1], [0, 1, 2, 0]):
    with pytest.raises(RuntimeError, match='of video 0 has come twice'):
      score(batched(rows, 2, np.array(twice)))


def test_nothing_is_read_from_nothing():
  found = score([])
  assert not len(found.index)
  assert not found.probabilities


def test_batch_sizes_are_multiples_of_the_devices():
  sizes = [scoring.batch_size(4, devices) for devices in (1, 2, 3, 8)]
  assert sizes == [4, 4, 6, 8]
