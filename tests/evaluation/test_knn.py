import numpy as np
import pytest

from vivit_mae.evaluation import knn


def plain_vote(query, known, labels, classes, k, temperature):
  """One query, by a plain loop."""
  similar = [
    float(query @ x / np.linalg.norm(query) / np.linalg.norm(x)) for x in known
  ]
  nearest = sorted(range(len(known)), key=lambda i: (-similar[i], i))[:k]
  votes = np.zeros(classes)
  for i in nearest:
    votes[labels[i]] += np.exp(similar[i] / temperature)
  return votes / votes.sum()


def make_vectors(count, seed=0, width=6):
  return np.random.default_rng(seed).normal(size=(count, width))


@pytest.mark.parametrize(('k', 'temperature'), [(1, 0.07), (5, 0.5), (99, 1)])
def test_votes_are_those_of_a_plain_loop(k, temperature, monkeypatch):
  queries, known = make_vectors(9), make_vectors(30, seed=1)
  labels = np.random.default_rng(2).integers(0, 4, 30)
  expected = [
    plain_vote(query, known, labels, 4, k, temperature) for query in queries
  ]
  for chunk in (2**24, 60):  # all queries at once, and two by two
    monkeypatch.setattr(knn, '_CHUNK', chunk)
    found = knn.vote(queries, known, labels, 4, k=k, temperature=temperature)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_lengths_do_not_count():
  queries, known = make_vectors(4), make_vectors(10, seed=1)
  labels = np.arange(10) % 3
  found = knn.vote(queries * 7, known * np.arange(1, 11)[:, None], labels, 3)
  np.testing.assert_allclose(
    found, knn.vote(queries, known, labels, 3), rtol=1e-9
  )


def test_unlabelled_neighbours_have_no_vote():
  queries, known = make_vectors(4), make_vectors(10, seed=1)
  labels = np.arange(10) % 3
  labels[::2] = -1
  np.testing.assert_array_equal(
    knn.vote(queries, known, labels, 3, k=3),
    knn.vote(queries, known[1::2], labels[1::2], 3, k=3),
  )
  nobody = knn.vote(queries, known, np.full(10, -1), 3)
  np.testing.assert_allclose(nobody, 1 / 3)


def test_several_labels_are_voted_for_each():
  known = np.eye(3)
  labels = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0]], np.float32)
  query = np.array([[1.0, 1.0, 0.0]])
  np.testing.assert_allclose(
    knn.vote(query, known, labels, 3, k=2), [[0.5, 1, 0]]
  )


def test_of_equal_neighbours_the_first_votes():
  known = np.ones((4, 2))
  labels = np.array([2, 1, 0, 0])
  found = knn.vote(np.ones((1, 2)), known, labels, 3, k=1)
  np.testing.assert_array_equal(found, [[0, 0, 1]])
