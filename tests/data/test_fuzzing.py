"""Damaged videos are read exactly or refused; see `fuzzing`."""

import numpy as np
import pytest

from tests.data import fuzzing


@pytest.mark.slow
def test_two_hundred_damaged_files():
  outcomes = list(fuzzing.run(fuzzing.generated(), range(200), num_workers=1))
  assert len(outcomes) == 200
  assert not [outcome for outcome in outcomes if outcome.is_fault]
  # Else nothing was tried.
  kinds = [outcome.kind for outcome in outcomes]
  assert kinds.count('exact') > 20
  refused = {kind for kind in kinds if kind.startswith('refused')}
  assert len(refused) >= 4
  # No memory is lost: the last quarter's processes hold what the second's did.
  resident = [outcome.resident for outcome in outcomes]
  assert np.mean(resident[150:]) < np.mean(resident[50:100]) + 30


def test_the_check_sees_what_is_wrong(monkeypatch):
  (video,) = fuzzing.generated()[:1]
  assert fuzzing.check((0, video)).kind == 'exact'
  monkeypatch.setattr(
    fuzzing, '_plain', lambda frame, info, size: np.zeros((*size, 3), np.uint8)
  )
  assert fuzzing.check((0, video)).kind == 'wrong frames'


def test_damage_is_reproducible():
  videos = fuzzing.generated()[:2]
  assert fuzzing.damaged(videos, 5) == fuzzing.damaged(videos, 5)
  assert fuzzing.damaged(videos, 5) != videos[1]
