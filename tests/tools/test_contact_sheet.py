import numpy as np

from vivit_mae.tools import contact_sheet
from vivit_mae.tools.contact_sheet import Strip


def _strips(size, texts=('a', 'b')):
  rng = np.random.default_rng(0)
  return [
    Strip(text, rng.integers(0, 256, (4, *size, 3), np.uint8), tuple('wxyz'))
    for text in texts
  ]


def _find(sheet, frame):
  """Where a picture stands in a sheet: left and top."""
  height, width = frame.shape[:2]
  for top, left in np.argwhere((sheet == frame[0, 0]).all(-1)).tolist():
    part = sheet[top : top + height, left : left + width]
    if np.array_equal(part, frame):
      return left, top
  raise AssertionError('It is not there.')


def test_every_frame_has_its_place():
  strips = _strips((391, 391))  # as wide as a column
  sheet = contact_sheet.draw(['one', 'two'], strips)
  assert sheet.width == 1600
  pixels = np.asarray(sheet)
  places = [[_find(pixels, f) for f in strip.frames] for strip in strips]
  for row in places:
    lefts, tops = zip(*row, strict=True)
    assert len(set(tops)) == 1
    assert np.diff(lefts).tolist() == [395] * 3
    assert lefts[-1] + 391 <= sheet.width
  assert places[1][0][1] > places[0][0][1] + 391
  assert places[1][0][1] + 391 < sheet.height


def test_small_frames_show_their_pixels_and_large_ones_are_averaged():
  (strip, _) = _strips((2, 2))
  sheet = np.asarray(contact_sheet.draw([], [strip]))
  colours = {tuple(c) for c in strip.frames.reshape(-1, 3).tolist()}
  found, counts = np.unique(sheet.reshape(-1, 3), axis=0, return_counts=True)
  large = {
    tuple(c) for c, n in zip(found.tolist(), counts, strict=True) if n > 9e3
  }
  assert large >= colours
  wide = np.zeros((4, 100, 4 * 391, 3), np.uint8)
  wide[:, :, 1::2] = 200
  sheet = np.asarray(contact_sheet.draw([], [Strip('', wide, ('',) * 4)]))
  assert np.all(sheet[len(sheet) // 2, 20:390] == 100)


def test_long_lines_are_shortened_in_their_middle():
  def ink(text):
    (strip, _) = _strips((391, 391))
    sheet = contact_sheet.draw([text], [strip]).crop((0, 0, 1600, 40))
    return np.asarray(sheet.convert('L')) < 128

  assert not ink('').any()
  short, long = ink('start end'), ink(f'start {300 * "long "} end')
  for found in (short, long):
    assert found.any()
    assert not found[:, -12:].any()
  np.testing.assert_array_equal(short[:, :50], long[:, :50])
