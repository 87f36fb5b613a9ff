import pytest

from tests.data.layouts import trees
from vivit_mae.data import layouts

_MAKEUP = 'v_ApplyEyeMakeup_g08_c01'
_STAND = 'v_HandStandPushups_g01_c01'  # lies in HandstandPushups
_YOYO = 'v_YoYo_g25_c05'
_UCF = ('ApplyEyeMakeup', 'HandstandPushups', 'YoYo')


def _ucf101(root, lists='ucfTrainTestlist'):
  trees.write(
    root,
    f'{lists}/classInd.txt',
    *(f'{i} {name}' for i, name in enumerate(_UCF, start=1)),
  )
  files = [
    f'ApplyEyeMakeup/{_MAKEUP}.avi',
    f'HandstandPushups/{_STAND}.avi',
    f'YoYo/{_YOYO}.avi',
  ]
  for k in range(3):  # split k + 1 tests on video k
    train = [f'{f} {i + 1}' for i, f in enumerate(files) if i != k]
    trees.write(root, f'{lists}/trainlist{k + 1:02d}.txt', *train)
    trees.write(root, f'{lists}/testlist{k + 1:02d}.txt', files[k] + '\r')
  return files


@pytest.mark.parametrize('official_split', [1, 2, 3])
@pytest.mark.parametrize(
  ('lists', 'folder'),
  [
    ('ucfTrainTestlist', 'UCF-101'),
    ('annotations', 'videos'),
    ('.', '.'),
  ],
)
def test_ucf101(tmp_path, official_split, lists, folder):
  files = _ucf101(tmp_path, lists)
  trees.touch(tmp_path / folder, *files)
  listed = layouts.read('ucf101', tmp_path, (), official_split)
  assert listed.class_names == _UCF
  everything = dict(zip((_MAKEUP, _STAND, _YOYO), _UCF, strict=True))
  tested = list(everything)[official_split - 1]
  assert trees.names(listed, 'test') == {tested: everything.pop(tested)}
  assert trees.names(listed, 'train') == everything
  assert listed.missing == listed.skipped == listed.duplicates == ()


def test_ucf101_in_other_containers_and_one_folder(tmp_path):
  _ucf101(tmp_path)
  trees.touch(tmp_path / 'videos', f'{_MAKEUP}.mp4', f'{_YOYO}.mkv', 'b.avi')
  listed = layouts.read('ucf101', tmp_path)
  assert trees.names(listed, 'train') == {_YOYO: 'YoYo'}
  assert dict(listed.missing).keys() == {_STAND}
  assert dict(listed.skipped).keys() == {'videos/b.avi'}


@pytest.mark.parametrize(
  ('name', 'line', 'message'),
  [
    ('classInd.txt', '3 YoYo', r'must be numbered 1, 2, 3'),
    ('classInd.txt', 'YoYo', r"the number is 'YoYo', which is no whole"),
    ('trainlist01.txt', f'YoYo/{_YOYO}.avi 2', "'YoYo' is not number 2"),
    ('trainlist01.txt', f'YoYo/{_YOYO}.avi 0', "'YoYo' is not number 0"),
    ('trainlist01.txt', f'YoYo/{_YOYO}.avi 9', "'YoYo' is not number 9"),
    ('trainlist01.txt', f'{_YOYO}.avi 3', r"is not 'class/video.avi'"),
    ('testlist01.txt', f'Yoyo/{_YOYO}.avi', r"the class 'Yoyo', which is not"),
  ],
)
def test_ucf101_with_wrong_lines(tmp_path, name, line, message):
  trees.touch(tmp_path / 'UCF-101', *_ucf101(tmp_path))
  trees.write(tmp_path, f'ucfTrainTestlist/{name}', line)
  with pytest.raises(ValueError, match=message):
    layouts.read('ucf101', tmp_path)


def _hmdb51(root, lists='testTrainMulti_7030_splits'):
  for k in (1, 2, 3):
    trees.write(
      root,
      f'{lists}/brush_hair_test_split{k}.txt',
      f'April_09_brush_hair_u_nm_np1_ba_goo_0.avi {(k - 1) % 3} ',
      f'#1_(&_brush_hair_u_nm_np1_ba_goo_0.avi {k % 3} ',
    )
    trees.write(
      root,
      f'{lists}/wave_test_split{k}.txt',
      f'20060723sfjff_wave_f_cm_np1_ba_med_0.avi {(k + 1) % 3} ',
    )


_BRUSH = ('April_09_brush_hair_u_nm_np1_ba_goo_0',)
_ODD = ('#1_(&_brush_hair_u_nm_np1_ba_goo_0',)
_WAVE = ('20060723sfjff_wave_f_cm_np1_ba_med_0',)


@pytest.mark.parametrize(
  ('official_split', 'train', 'test', 'unused'),
  [
    (1, _ODD, _WAVE, _BRUSH),
    (2, _BRUSH, _ODD, _WAVE),
    (3, _WAVE, _BRUSH, _ODD),
  ],
)
@pytest.mark.parametrize('folder', ['.', 'videos', 'hmdb51_org'])
def test_hmdb51(tmp_path, official_split, train, test, unused, folder):
  _hmdb51(tmp_path)
  trees.touch(
    tmp_path / folder,
    f'brush_hair/{_BRUSH[0]}.avi',
    f'brush_hair/{_ODD[0]}.avi',
    f'wave/{_WAVE[0]}.avi',
  )
  listed = layouts.read('hmdb51', tmp_path, (), official_split)
  assert listed.class_names == ('brush_hair', 'wave')
  labels = {_BRUSH[0]: 0, _ODD[0]: 0, _WAVE[0]: 1}
  for split, names in (('train', train), ('test', test)):
    assert [(e.id, e.label) for e in listed.splits[split]] == [
      (name, labels[name]) for name in names
    ]
  assert listed.skipped == (
    (unused[0], f'in neither part of split {official_split}'),
  )
  assert listed.missing == ()


def test_hmdb51_that_is_none(tmp_path):
  with pytest.raises(ValueError, match=r'no lists <class>_test_split1\.txt'):
    layouts.read('hmdb51', tmp_path)
  trees.write(tmp_path, 'wave_test_split1.txt', f'{_WAVE[0]}.avi 3')
  with pytest.raises(ValueError, match=r"line 1 is not 'video\.avi' and 0, 1"):
    layouts.read('hmdb51', tmp_path)


@pytest.mark.parametrize('layout', ['ucf101', 'hmdb51'])
@pytest.mark.parametrize('official_split', [0, 4])
def test_three_official_splits(tmp_path, layout, official_split):
  with pytest.raises(ValueError, match=r'official_split is .; it is 1, 2 or 3'):
    layouts.read(layout, tmp_path, (), official_split)
