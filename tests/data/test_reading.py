"""What may pass is tried again; what is broken is not."""

import errno
import time

import pytest

from tests.data import tiny_videos
from tests.data.streams import Fake, Wrapped, train
from vivit_mae.data import datasets, decode, reading
from vivit_mae.data.video import VideoError


@pytest.fixture
def pauses(monkeypatch):
  """The pauses that were made; they take no time."""
  made = []
  monkeypatch.setattr(reading, '_patience', reading._Patience())
  monkeypatch.setattr(time, 'sleep', made.append)
  return made


class _Failing:
  """Fails a few times, then does."""

  def __init__(self, *errors: Exception):
    self.errors, self.calls = list(errors), 0

  def __call__(self, example):
    self.calls += 1
    if self.errors:
      raise self.errors.pop(0)
    return example.id


def _read(use, source=None):
  return reading.read(source or Fake(3), 1, use, {})


_STALE = OSError(errno.ESTALE, 'Stale file handle')
_MISSING = VideoError('missing', 'id 1')


def _from_system(kind):
  """An error of which the system's is the cause, as FFmpeg's are."""
  try:
    try:
      raise OSError(errno.EIO, 'Input/output error')
    except OSError:
      raise VideoError(kind, 'id 1') from None
  except VideoError as error:
    return error


@pytest.mark.parametrize(
  'error', [_STALE, _MISSING, _from_system('unreadable')], ids=str
)
def test_what_comes_back_is_read(pauses, error):
  use = _Failing(error, error)
  example, made = _read(use)
  assert example.id == made == 'id 1'
  assert use.calls == 3
  assert pauses == [0.1, 0.4]


@pytest.mark.parametrize(
  ('error', 'kind'), [(_STALE, 'unreadable'), (_MISSING, 'missing')], ids=str
)
def test_what_stays_away_is_given_up(pauses, error, kind):
  use = _Failing(*[error] * 9)
  with pytest.raises(VideoError, match='id 1') as caught:
    _read(use)
  assert caught.value.kind == kind
  assert use.calls == 4
  assert pauses == list(reading.PAUSES)


def test_what_is_broken_is_tried_once(pauses):
  use = _Failing(VideoError('corrupt', 'id 1'))
  with pytest.raises(VideoError, match='corrupt'):
    _read(use)
  assert not pauses


class _Damaged(Wrapped):
  error: Exception = OSError('Transport endpoint is not connected')

  def act(self, index):
    raise self.error


@pytest.mark.parametrize(
  'error', [_Damaged.error, RuntimeError('chunk data hash mismatch')]
)
def test_a_source_that_fails_is_no_more_than_a_bad_video(pauses, error):
  """ArrayRecord reports what is damaged in its files by a RuntimeError."""
  source = _Damaged(Fake(3), 1)
  source.error = error
  with pytest.raises(VideoError, match=f'video 1 of fake: .*{error}'):
    _read(_Failing(), source)
  assert len(pauses) == 3


def test_a_file_that_changes_while_it_is_read_is_read_again(pauses, tmp_path):
  """It is being copied: first its start is there, then all of it."""
  path = tmp_path / 'a.mp4'
  tiny_videos.write(path)
  whole = path.read_bytes()
  path.write_bytes(whole[: len(whole) // 2])
  source = datasets.open_source('folder', str(tmp_path))

  def use(example):
    try:
      return decode.probe(example.video).num_frames
    finally:
      path.write_bytes(whole)

  assert reading.read(source, 0, use, {})[1] == 12
  assert pauses == [0.1]


def test_a_file_that_is_away_for_a_while_changes_nothing(
  monkeypatch, pauses, tmp_path
):
  for number in range(4):
    tiny_videos.write(tmp_path / f'{number}.mp4', number)
  source = datasets.open_source('folder', str(tmp_path))
  straight = next(train(source))
  away = tmp_path / '2.mp4'
  away.rename(tmp_path / 'away')
  monkeypatch.setattr(
    time, 'sleep', lambda pause: (tmp_path / 'away').rename(away)
  )
  iterator = train(source)
  batch = next(iterator)
  assert (batch['video'] == straight['video']).all()
  assert (batch['index'] == straight['index']).all()
  assert not iterator.bad


def test_waiting_is_bounded(pauses, monkeypatch):
  now = [0.0]
  monkeypatch.setattr(time, 'monotonic', lambda: now[0])
  monkeypatch.setattr(reading, '_patience', reading._Patience())

  def lose(count):
    for _ in range(count):
      with pytest.raises(VideoError):
        _read(_Failing(*[_MISSING] * 4))

  lose(500)
  assert 60 <= sum(pauses) < 63
  now[0] = 1000.0
  lose(500)
  assert 110 <= sum(pauses) < 113


def test_what_is_refused_is_not_opened():
  use = _Failing()
  refused = {1: VideoError('crashed', 'id 1', 'SIGSEGV')}
  with pytest.raises(VideoError, match=r'id 1: crashed .*SIGSEGV'):
    reading.read(Fake(3), 1, use, refused)
  assert not use.calls
  assert reading.read(Fake(3), 2, use, refused)[1] == 'id 2'
