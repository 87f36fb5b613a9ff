import pytest

from vivit_mae.data import lists, scan, segments


def _write(root, text, *files):
  for name in files:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(b'x')
  (root / 'list.csv').write_text(text)
  return root / 'list.csv'


@pytest.mark.parametrize('columns', ['start,end', 'start_time,end_time'])
def test_csv_with_segments(tmp_path, columns):
  path = _write(
    tmp_path,
    f'path,label,{columns}\n'
    'a.mp4,run,0,2.5\n'
    'a.mp4,jump,0:00:02.50,1:02:03\n'
    'b.mp4,run,,\n',
    *('a.mp4', 'b.mp4'),
  )
  found = lists.read_csv(path).splits['train']
  assert [e.id for e in found] == [
    'a.mp4#t=0,2.5',
    'a.mp4#t=2.5,3723',
    'b.mp4',
  ]
  assert [e.segment for e in found] == [(0.0, 2.5), (2.5, 3723.0), None]
  assert [e.label for e in found] == [1, 0, 1]
  assert {e.video for e in found[:2]} == {str(tmp_path / 'a.mp4')}


def test_segments_with_heads_and_splits(tmp_path):
  path = _write(
    tmp_path,
    'label.verb\tlabel.noun\tend\tstart\tsplit\tpath\n'
    'cut\tbread\t4\t1\tval\ta.mp4\n',
    'a.mp4',
  )
  (example,) = lists.read_csv(path).splits['validation']
  assert example.segment == (1.0, 4.0)
  assert example.label == (0, 0)


@pytest.mark.parametrize(
  ('lines', 'message'),
  [
    ('path,start,end\na.mp4,5,2', r'line 2: .* from 5 to 2 is empty'),
    ('path,start,end\na.mp4,5,5', r'line 2: .* is empty'),
    ('path,start,end\na.mp4,5,', r"line 2: .* end is ''"),
    ('path,start,end\na.mp4,5,soon', r"line 2: 'soon' is no time"),
    ('path,start,end\na.mp4,-1,2', r"line 2: '-1' is no time"),
    ('path,start,end\na.mp4,0,1:75', r"line 2: '1:75' is no time"),
    ('path,start,end\na.mp4,0,1:2:3:4', r'is no time'),
    ('path,label,start\na.mp4,run,5', r'none for the other: path, label, st'),
  ],
)
def test_segments_that_are_none(tmp_path, lines, message):
  with pytest.raises(ValueError, match=message):
    lists.read_csv(_write(tmp_path, lines, 'a.mp4'))


@pytest.mark.parametrize(
  ('text', 'time'),
  [
    ('83.5', 83.5),
    (' 1:23.5', 83.5),
    ('00:01:23.50', 83.5),
    ('90:00', 5400.0),
    ('.5', 0.5),
    ('0', 0.0),
  ],
)
def test_times(text, time):
  assert segments.seconds(text, 'here') == time


def test_missing_files_are_those_that_are_not_there(tmp_path):
  path = _write(
    tmp_path,
    'path,start,end\n'
    'a.mp4,0,1\n'
    'sub/../a.mp4,1,2\n'
    'gone.mp4,0,1\n'
    'nowhere/gone.mp4,,\n'
    'dead.mp4,,\n',
    'a.mp4',
  )
  (tmp_path / 'dead.mp4').symlink_to(tmp_path / 'nothing')
  assert [name for name, _ in lists.read_csv(path).missing] == [
    'gone.mp4#t=0,1',
    'nowhere/gone.mp4',
    'dead.mp4',
  ]


def test_a_folder_is_looked_at_once(tmp_path, monkeypatch):
  names = [f'{i}.mp4' for i in range(50)]
  path = _write(tmp_path, '\n'.join(names), *names)
  looked = []
  children = scan.children
  monkeypatch.setattr(
    scan, 'children', lambda folder: looked.append(folder) or children(folder)
  )
  assert len(lists.read_csv(path).splits['train']) == 50
  assert looked == [str(tmp_path)]
