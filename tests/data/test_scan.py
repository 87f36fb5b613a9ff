import pytest

from vivit_mae.data import scan


@pytest.fixture(params=[False, True], ids=['local', 'through epath'])
def where(request, monkeypatch):
  """Local folders, read as such and in the way of remote ones."""
  monkeypatch.setattr(scan, 'is_remote', lambda path: request.param)


def _tree(root):
  for name in ('b.mp4', 'A.mp4', 'sub/c.mp4', 'sub/d e.mp4'):
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).touch()
  return root


def test_children(tmp_path, where):
  assert scan.children(_tree(tmp_path)) == [
    ('A.mp4', False, False),
    ('b.mp4', False, False),
    ('sub', True, False),
  ]
  assert scan.children(tmp_path / 'nowhere') == []
  assert scan.children(tmp_path / 'b.mp4') == []


def test_existing(tmp_path, where):
  _tree(tmp_path)
  names = ('b.mp4', 'a.mp4', 'sub/d e.mp4', 'sub/b.mp4', 'sub', 'far/a.mp4')
  paths = [str(tmp_path / name) for name in names]
  assert scan.existing(paths) == {paths[0], paths[2], paths[4]}


def test_links(tmp_path):
  _tree(tmp_path)
  (tmp_path / 'dead').symlink_to(tmp_path / 'nothing')
  (tmp_path / 'file').symlink_to(tmp_path / 'b.mp4')
  (tmp_path / 'folder').symlink_to(tmp_path / 'sub')
  found = {child.name: child[1:] for child in scan.children(tmp_path)}
  assert found['dead'] == (False, True)
  assert found['file'] == (False, False)
  assert found['folder'] == (True, False)
  paths = [str(tmp_path / name) for name in ('dead', 'file')]
  assert scan.existing(paths) == {paths[1]}


def test_names_of_videos():
  assert scan.is_video('a.b/C d.MKV')
  assert not scan.is_video('a.mp4.txt')
  assert not scan.is_video('mp4')
  assert scan.extension('a.b/C d.MKV') == '.mkv'
  assert scan.is_remote('gs://bucket/a.mp4')
  assert not scan.is_remote('/data/a.mp4')
