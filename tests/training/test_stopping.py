import signal

import pytest

from vivit_mae.training import checkpoints, stopping


def test_a_signal_is_noted_and_a_second_one_acts(tmp_path):
  with (
    checkpoints.Checkpoints(tmp_path) as saved,
    stopping.StopSignal() as stop,
  ):
    assert not stop.requested(saved, 1)
    signal.raise_signal(signal.SIGINT)
    assert stop.requested(saved, 1)
    assert stop.received == signal.SIGINT
    with pytest.raises(KeyboardInterrupt):
      signal.raise_signal(signal.SIGINT)
