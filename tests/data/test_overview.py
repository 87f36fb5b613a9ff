from vivit_mae.data import overview
from vivit_mae.data.facts import Facts
from vivit_mae.data.inspection import Row
from vivit_mae.data.isolation import Failure
from vivit_mae.data.overview import Spread

_BROKEN = Failure('empty', '')


def _facts(
  num_frames: int = 100,
  fps: float = 25.0,
  width: int = 320,
  num_bytes: int | None = 1000,
):
  return Facts(
    container='mp4/mov',
    codec='h264',
    pixel_format='yuv420p',
    width=width,
    height=240,
    rotation=0,
    fps=fps,
    num_frames=num_frames,
    duration=num_frames / fps,
    variable_frame_rate=num_frames == 15,
    num_bytes=num_bytes,
  )


def _row(name, label, result, split='train', place=None, segment=None):
  place = f'/v/{name}' if place is None else place
  return Row(split, name, label, place, segment, result)


def test_numbers():
  rows = [
    _row('a', 0, _facts()),
    _row('b', 0, _facts(15, fps=29.996)),
    _row('c', -1, _facts(50, fps=29.97, width=640)),
    _row('d', 1, _BROKEN),
    _row('e', 2, _facts(60, fps=30.0), 'test'),
  ]
  found = overview.summarise(rows, ('x', 'y', 'z', 'none'), num_missing=3)
  seconds = [100 / 25, 15 / 29.996, 50 / 29.97, 60 / 30]
  assert found == overview.Overview(
    splits={'train': 4, 'test': 1},
    broken=4,
    unlabelled=1,
    classes={'': {'x': 2, 'y': 1, 'z': 1, 'none': 0}},
    untrained={'': ['z', 'none']},
    containers={'mp4/mov': 4},
    codecs={'h264': 4},
    pixel_formats={'yuv420p': 4},
    sizes={'320x240': 3, '640x240': 1},
    frame_rates={'30': 2, '25': 1, '29.97': 1},
    variable_frame_rate=1,
    durations=Spread.of(seconds),
    frames=Spread(15, 55.0, 100, 225),
    num_bytes=4000,
  )


def test_spread():
  assert Spread.of([4, 1, 2, 9]) == Spread(1, 3.0, 9, 16)
  assert Spread.of([]) is None


def test_segments_of_one_file_count_its_bytes_once():
  rows = [
    _row('a', 0, _facts(), place='/v/a', segment=(0, 1)),
    _row('b', 0, _facts(), place='/v/a', segment=(1, 2)),
    _row('c', 0, _facts(), place=''),
    _row('d', 0, _facts(num_bytes=None), place=''),
  ]
  found = overview.summarise(rows, ('x',))
  assert found.num_bytes == 2000
  assert found.untrained == {}


def test_several_labels():
  rows = [
    _row('a', (0, 1), _facts()),
    _row('b', (), _facts()),
    _row('c', (-1,), _facts()),
  ]
  found = overview.summarise(rows, ('x', 'y', 'z'))
  assert found.classes == {'': {'x': 1, 'y': 1, 'z': 0}}
  assert found.unlabelled == 1


def test_several_heads():
  rows = [
    _row('a', (0, 1), _facts()),
    _row('b', (0, -1), _facts()),
    _row('c', (-1, -1), _facts()),
    _row('d', (1, 0), _facts(), 'validation'),
  ]
  names = {'verb': ('cut', 'mix'), 'noun': ('pan', 'egg')}
  found = overview.summarise(rows, names)
  assert found.classes == {
    'verb': {'cut': 2, 'mix': 1},
    'noun': {'pan': 1, 'egg': 1},
  }
  assert found.untrained == {'verb': ['mix'], 'noun': ['pan']}
  assert found.unlabelled == 1


def test_nothing_that_can_be_read():
  found = overview.summarise([_row('a', -1, _BROKEN)], ())
  assert (found.durations, found.frames, found.num_bytes) == (None, None, 0)
  assert (found.classes, found.unlabelled, found.broken) == ({}, 1, 1)
