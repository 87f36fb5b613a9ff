import pickle

import numpy as np
import pytest

from tests.data import tiny_videos
from vivit_mae.data import datasets, listing, lists


def _touch(root, *names):
  for name in names:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b'x')
  return root


def _labels(listed, split='train'):
  return {
    e.id: listed.class_names[e.label] if e.label >= 0 else None
    for e in listed.splits[split]
  }


def test_folder_names_classes_by_the_first_level(tmp_path):
  _touch(
    tmp_path,
    *('run/b.mp4', 'run/far/down/a.MKV', 'jump/c d.webm', 'loose.mp4'),
    *('.hidden.mp4', '.cache/x.mp4', 'run/.x.mp4', 'notes.txt', 'run/README'),
  )
  listed = lists.read_folder(tmp_path)
  assert listed.class_names == ('jump', 'run')
  assert _labels(listed) == {
    'jump/c d.webm': 'jump',
    'loose.mp4': None,
    'run/b.mp4': 'run',
    'run/far/down/a.MKV': 'run',
  }
  assert [e.id for e in listed.splits['train']] == sorted(_labels(listed))
  assert [name for name, _ in listed.skipped] == ['notes.txt', 'run/README']


@pytest.mark.parametrize('unlabelled', [('rest',), ('re*',)])
def test_folder_with_unlabelled_classes(tmp_path, unlabelled):
  _touch(tmp_path, 'run/a.mp4', 'rest/b.mp4', 'rest/run/c.mp4')
  listed = lists.read_folder(tmp_path, unlabelled)
  assert listed.class_names == ('run',)
  assert _labels(listed) == {
    'rest/b.mp4': None,
    'rest/run/c.mp4': None,
    'run/a.mp4': 'run',
  }


def test_unlabelled_that_fits_nothing_is_an_error(tmp_path):
  _touch(tmp_path, 'run/a.mp4')
  with pytest.raises(ValueError, match=r'names rset, which fits no .*: run'):
    lists.read_folder(tmp_path, ('rset',))


def test_folder_without_subfolders_has_no_labels(tmp_path):
  listed = lists.read_folder(_touch(tmp_path, 'b.mp4', 'a.mp4'))
  assert listed.class_names == ()
  assert [(e.id, e.label) for e in listed.splits['train']] == [
    ('a.mp4', -1),
    ('b.mp4', -1),
  ]


def test_split_folders(tmp_path):
  _touch(tmp_path, 'train/a/1.mp4', 'train/b/2.mp4', 'val/b/3.mp4', 'info.txt')
  listed = lists.read_folder(tmp_path)
  assert list(listed.splits) == ['train', 'validation']
  assert listed.class_names == ('a', 'b')
  assert _labels(listed, 'validation') == {'val/b/3.mp4': 'b'}


def test_a_class_called_test_is_a_class(tmp_path):
  listed = lists.read_folder(_touch(tmp_path, 'test/a.mp4', 'walk/b.mp4'))
  assert listed.class_names == ('test', 'walk')
  assert list(listed.splits) == ['train']


def test_folder_links_that_lead_up_end(tmp_path):
  _touch(tmp_path, 'a/1.mp4')
  (tmp_path / 'a' / 'again').symlink_to(tmp_path)
  assert list(_labels(lists.read_folder(tmp_path))) == ['a/1.mp4']


def test_numbered_class_folders_keep_their_names(tmp_path):
  listed = lists.read_folder(_touch(tmp_path, '007/a.mp4', '3/b.mp4'))
  assert listed.class_names == ('007', '3')


def test_folder_errors_say_what_is_there(tmp_path):
  with pytest.raises(ValueError, match='No such folder of videos'):
    lists.read_folder(tmp_path / 'nowhere')
  _touch(tmp_path, 'a.txt')
  with pytest.raises(ValueError, match='holds no video: 1 other files'):
    lists.read_folder(tmp_path)


_CSVS = {
  'space': 'a.mp4 run\nsub/b c.mp4 jump\n',
  'comma': 'a.mp4,run\nsub/b c.mp4,jump\n',
  'comma and space': 'a.mp4, run\nsub/b c.mp4, jump\n',
  'semicolon': 'a.mp4;run\nsub/b c.mp4;jump\n',
  'tab': 'a.mp4\trun\nsub/b c.mp4\tjump\n',
  'blank lines': '\na.mp4 run\n\n\nsub/b c.mp4 jump',
  'windows': '\ufeffa.mp4 run\r\nsub/b c.mp4 jump\r\n',
  'quotes': '"a.mp4" run\n"sub/b c.mp4" "jump"\n',
  'quotes and comma': '"a.mp4","run"\n"sub/b c.mp4",jump\n',
  'header, space': 'path label\na.mp4 run\nsub/b c.mp4 jump\n',
  'header, comma': 'Video,Class\na.mp4,run\nsub/b c.mp4,jump\n',
  'header, tab': 'path\tlabel\na.mp4\trun\nsub/b c.mp4\tjump\n',
  'header, label first': 'label,path\nrun,a.mp4\njump,sub/b c.mp4\n',
  'header, more': 'fps,path,x,label\n3,a.mp4,,run\n4,"sub/b c.mp4",,jump\n',
  'dots': './a.mp4 run\nsub/../sub/b c.mp4 jump\n',
}


@pytest.mark.parametrize('text', _CSVS.values(), ids=_CSVS)
def test_csv_variants(tmp_path, text):
  _touch(tmp_path, 'a.mp4', 'sub/b c.mp4')
  (tmp_path / 'list.csv').write_text(text, encoding='utf-8')
  listed = lists.read_csv(tmp_path / 'list.csv')
  assert listed.class_names == ('jump', 'run')
  assert _labels(listed) == {'a.mp4': 'run', 'sub/b c.mp4': 'jump'}
  paths = [e.video for e in listed.splits['train']]
  assert paths == [str(tmp_path / 'a.mp4'), str(tmp_path / 'sub/b c.mp4')]
  assert not listed.missing


@pytest.mark.parametrize(
  ('lines', 'names', 'labels'),
  [
    ('a.mp4 2\nb.mp4 0', ('0', '1', '2'), [2, 0]),
    ('a.mp4 02\nb.mp4 -1', ('0', '1', '2'), [2, -1]),
    ('a.mp4\nb.mp4', (), [-1, -1]),
    ('path\na.mp4\nb.mp4', (), [-1, -1]),
    ('a.mp4,\nb.mp4,x', ('x',), [-1, 0]),
    ('a.mp4 playing the guitar\nb.mp4 x', ('playing the guitar', 'x'), [0, 1]),
    ('a.mp4,"one, two"\nb.mp4,x', ('one, two', 'x'), [0, 1]),
  ],
)
def test_csv_labels(tmp_path, lines, names, labels):
  _touch(tmp_path, 'a.mp4', 'b.mp4')
  (tmp_path / 'l.csv').write_text(lines)
  listed = lists.read_csv(tmp_path / 'l.csv')
  assert listed.class_names == names
  assert [e.label for e in listed.splits['train']] == labels


def test_csv_of_paths_without_known_extension(tmp_path):
  _touch(tmp_path, 'clips/a b', 'clips/c')
  (tmp_path / 'l.txt').write_text('clips/a b run\nclips/c walk\n')
  assert _labels(lists.read_csv(tmp_path / 'l.txt')) == {
    'clips/a b': 'run',
    'clips/c': 'walk',
  }


def test_csv_elsewhere_and_absolute_paths(tmp_path):
  _touch(tmp_path, 'videos/a.mp4', 'other/b.mp4')
  (tmp_path / 'l.csv').write_text(f'a.mp4 x\n{tmp_path}/other/b.mp4 y\n')
  listed = lists.read_csv(tmp_path / 'l.csv', root=tmp_path / 'videos')
  assert not listed.missing
  ids = [e.id for e in listed.splits['train']]
  assert ids == ['a.mp4', str(tmp_path / 'other/b.mp4')]


def test_csv_splits_by_column_and_by_file(tmp_path):
  _touch(tmp_path, 'a.mp4', 'b.mp4', 'c.mp4')
  (tmp_path / 'l.csv').write_text(
    'path,label,split\na.mp4,x,train\nb.mp4,y,val\nc.mp4,,extra\n'
  )
  listed = lists.read_csv(tmp_path / 'l.csv', ('y',))
  assert {k: len(v) for k, v in listed.splits.items()} == {
    'train': 1,
    'validation': 1,
    'extra': 1,
  }
  assert _labels(listed, 'validation') == {'b.mp4': None}
  (tmp_path / 'train.csv').write_text('a.mp4 0\nb.mp4 1\n')
  (tmp_path / 'val.csv').write_text('c.mp4 1\n')
  listed = lists.read_csv(tmp_path)
  assert list(listed.splits) == ['train', 'validation']
  assert listed.class_names == ('0', '1')


def test_csv_errors_name_the_line(tmp_path):
  file = tmp_path / 'l.csv'
  with pytest.raises(ValueError, match='No list of videos at'):
    lists.read_csv(file)
  file.write_bytes(b'\xff\xfe\x00a')
  with pytest.raises(ValueError, match='it is not UTF-8 text'):
    lists.read_csv(file)
  file.write_text('\n')
  with pytest.raises(ValueError, match='is empty'):
    lists.read_csv(file)
  file.write_text('a.mp4,run\na.mp4,run,7\n')
  with pytest.raises(
    ValueError, match=r'line 2 has more than a path and a lab'
  ):
    lists.read_csv(file)
  file.write_text('path,label,x\na.mp4,run,1\na, b.mp4,run,1\n')
  with pytest.raises(ValueError, match='line 3 has 4 columns'):
    lists.read_csv(file)


def test_missing_files_are_one_clear_error(tmp_path):
  _touch(tmp_path, 'a.mp4')
  names = ['a', *'bcdefghijklmnop']
  (tmp_path / 'l.csv').write_text('\n'.join(f'{n}.mp4 0' for n in names))
  with pytest.raises(ValueError, match=r'15 files .*b\.mp4, c.*and 5 more'):
    datasets.open_source('csv', str(tmp_path / 'l.csv'))


def test_held_out_videos_stay_put_when_the_data_grows(tmp_path):
  names = [f'{n:03}.mp4' for n in range(200)]
  _touch(tmp_path, *names)

  def held(split):
    source = datasets.open_source(
      'folder', str(tmp_path), split, eval_fraction=0.2
    )
    return {source[i].id for i in range(len(source))}

  before = held('validation')
  assert 20 < len(before) < 60
  assert not before & held('train')
  assert before | held('train') == set(names) == held('all')
  _touch(tmp_path, *(f'{n:03}x.mp4' for n in range(50)))
  assert before == {name for name in held('val') if 'x' not in name}


def test_a_split_that_is_not_there(tmp_path):
  _touch(tmp_path, 'a.mp4')
  with pytest.raises(ValueError, match=r"split 'test'. There are: train \(1\)"):
    datasets.open_source('folder', str(tmp_path), 'test')
  with pytest.raises(ValueError, match=r'data\.eval_fraction is 1'):
    datasets.open_source('folder', str(tmp_path), eval_fraction=1.0)


def test_a_share_too_small_to_hold_anything_out(tmp_path):
  _touch(tmp_path, 'a.mp4')
  listed = lists.read_folder(tmp_path)
  assert list(listing.hold_out(listed.splits, 0.001)) == ['train']
  with pytest.raises(
    ValueError, match=r'data\.eval_fraction holds out a share'
  ):
    listing.select(listed, 'validation', 0.001, 'here')


def test_own_validation_split_makes_eval_fraction_idle():
  train = tuple(listing.Example('', -1, str(i)) for i in range(100))
  splits = {'train': train, 'validation': train[:1]}
  assert listing.hold_out(splits, 0.5) == splits


def test_unknown_source_lists_the_known():
  with pytest.raises(ValueError, match="'synthetic', 'tfds', 'folder', 'csv'"):
    datasets.open_source('directory', 'x')
  with pytest.raises(ValueError, match=r'data.path is empty'):
    datasets.open_source('folder')


def test_source_from_config_and_pickle(tmp_path):
  tiny_videos.folder(tmp_path, ['train/a/1.mp4', 'val/a/2.mp4'])
  data = dict(source='folder', path=str(tmp_path), split='train', stride=3)
  source = datasets.source_from(data)
  assert source[0].id == 'train/a/1.mp4'
  source = datasets.source_from(data, 'validation')
  copy = pickle.loads(pickle.dumps(source))
  assert (len(copy), copy[0], copy.class_names) == (1, source[0], ('a',))


@pytest.mark.parametrize('path', ['', 'no_such_dataset_here'])
def test_no_prepared_dataset(path):
  with pytest.raises(ValueError, match=r'data.path is empty|No prepared data'):
    datasets.open_source('tfds', path)


def test_unfinished_dataset_does_not_open(tmp_path):
  with pytest.raises(ValueError, match='no finished dataset'):
    datasets.open_source('tfds', str(tmp_path))


def test_few_labelled_videos_of_each_class():
  examples = [
    datasets.Example(video=b'', label=i % 3, id=f'{i}') for i in range(30)
  ]
  source = datasets.FileSource('thirty', examples, ('a', 'b', 'c'), False)
  few = datasets.labelled(source, 4)
  found = [few[i] for i in range(len(few))]
  assert len(found) == 12
  counts = np.bincount([example.label for example in found])
  assert counts.tolist() == [4, 4, 4]
  assert len({example.id for example in found}) == 12
  # The same ones each time.
  again = datasets.labelled(source, 4)
  assert [again[i].id for i in range(12)] == [example.id for example in found]
  with pytest.raises(ValueError, match=r"labels_per_class=11.* 10 .* 'a'"):
    datasets.labelled(source, 11)
