import argparse
import os
import pathlib
import pickle
import subprocess
import sys
import zipfile

import ml_dtypes
import numpy as np
import pytest

from tests.convert import torch_files
from tests.convert.torch_files import Call, Global, Opcodes, View
from vivit_mae.convert import torch_file

_DATA = pathlib.Path(__file__).parent / 'data'
_WRITERS = [torch_files.write_zip, torch_files.write_legacy]
_ROW = np.arange(4, dtype=np.float32)
_MANY_DIGITS = Opcodes(b'\x8b\0\0\x10\0' + b'\x7f' * 2**20)


class _Evil:
  def __init__(self, function, *arguments):
    self._reduced = function, arguments

  def __reduce__(self):
    return self._reduced


def _touch(marker: pathlib.Path) -> _Evil:
  return _Evil(os.system, f'touch {marker}')


def _model(value, name: str = 'w') -> dict:
  return {'model': {name: value, 'ok': _ROW}}


def _known() -> dict[str, np.ndarray]:
  """What make_torch_files.py put into its files."""
  table = np.arange(24, dtype=np.float32).reshape(4, 6)
  return {
    'weight': np.arange(6, dtype=np.float32).reshape(2, 3),
    'bias': np.array([0.5, -0.5], np.float32),
    'half': np.array([1.5, -2], np.float16),
    'brain': np.array([1.5, -2], ml_dtypes.bfloat16),
    'double': np.array(0.1),
    'count': np.array(7),
    'flag': np.array([True, False]),
    'transposed': table.T,
    'window': table[1:3, 1::2],
    'parameter': np.ones(2, np.float32),
    'unsigned': np.array([1, 65535], np.uint16),
    'empty': np.zeros((0, 3), np.float32),
  }


def _assert_same(found, wanted) -> None:
  assert found.keys() == wanted.keys()
  for name, array in wanted.items():
    assert found[name].dtype == array.dtype, name
    np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.parametrize(
  ('name', 'wrapper'),
  [('zip', 'model'), ('legacy', 'model'), ('protocol_4', 'module')],
)
def test_files_that_torch_wrote(name, wrapper):
  found, arrays = torch_file.read(_DATA / f'{name}.pt')
  assert found == wrapper
  _assert_same(arrays, _known())


@pytest.mark.parametrize('write', _WRITERS)
def test_files_of_our_own_writer(tmp_path, write):
  states = _known()
  del states['unsigned'], states['empty']
  states['tied'] = states['weight']
  found, arrays = torch_file.read(write(tmp_path / 'x.pt', {'model': states}))
  assert found == 'model'
  _assert_same(arrays, states)


def test_only_the_pages_of_the_model_are_read(tmp_path):
  path = torch_files.write_zip(tmp_path / 'x.pt', _model(_ROW))
  _, arrays = torch_file.read(path)
  assert isinstance(arrays['w'].base, np.memmap)
  assert not arrays['w'].flags.writeable


@pytest.mark.parametrize(
  ('tree', 'wrapper'),
  [
    ({'w': _ROW}, ''),
    ({'model': {'w': _ROW}, 'module': {'v': _ROW}}, 'model'),
    ({'model': 'ViT-B', 'module': {'w': _ROW}, 'rng': _ROW}, 'module'),
    ({'model_state': {'w': _ROW}, 'optimizer_state': {}}, 'model_state'),
    ({'model_ema': {'v': _ROW}, 'state_dict': {'w': _ROW}}, 'state_dict'),
    ({'model_ema': {'w': _ROW}, 'epoch': 1}, 'model_ema'),
    ({'model': {'state_dict': {'w': _ROW}}}, 'model/state_dict'),
    ({'model': Call('argparse Namespace'), 'w': _ROW, 'n': 3}, ''),
  ],
)
def test_wrappers_are_told_by_what_they_hold(tmp_path, tree, wrapper):
  path = torch_files.write_zip(tmp_path / 'x.pt', tree)
  found, arrays = torch_file.read(path)
  assert found == wrapper
  _assert_same(arrays, {'w': _ROW})


def test_state_dicts_of_numpy_arrays(tmp_path):
  states = {
    'w': np.arange(6, dtype=np.float32).reshape(2, 3),
    'columns': np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    'big': np.arange(3, dtype='>i4'),
  }
  for protocol in (2, 4):
    pickled = pickle.dumps({'model': states}, protocol)
    path = torch_files.write_archive(tmp_path / 'x.pt', pickled)
    _assert_same(torch_file.read(path)[1], states)


def test_what_surrounds_the_model_is_read_past(tmp_path):
  tree = {
    **_model(_ROW),
    'args': Call('argparse Namespace', (), {'lr': 0.1, 'a': [None, (True,)]}),
    'optimizer': {
      'loss_scaler': Call('deepspeed.runtime.fp16.loss_scaler LossScaler')
    },
    'milestones': Call('collections Counter', ({3: 1},)),
    'names': Call('__builtin__ set', (['a'],)),
    'groups': Call('collections defaultdict', (Global('__builtin__ dict'),)),
    'size': Call('torch Size', ((1, 2),)),
    'old': Call('collections OrderedDict', ([['a', 1]],)),
    ('a', 'tuple'): 1,
  }
  path = torch_files.write_zip(tmp_path / 'x.pt', tree)
  assert torch_file.read(path)[1].keys() == {'w', 'ok'}


@pytest.mark.parametrize('where', ['root', 'list', 'namespace', 'key', 'plain'])
@pytest.mark.parametrize('protocol', [0, 1, 2, 4, 5])
def test_a_pickle_that_calls_the_shell_is_refused(tmp_path, where, protocol):
  marker = tmp_path / 'it_ran'
  evil = _touch(marker)
  namespace = argparse.Namespace(lr=0.1, hidden=[evil])
  tree = {
    'root': evil,
    'list': _model([[1, [evil]]]),
    'namespace': {'model': {}, 'args': namespace},
    'key': {'model': {('a', evil): 1}},
    'plain': evil,
  }[where]
  pickled = pickle.dumps(tree, protocol)
  path = tmp_path / 'evil.pth'
  if where == 'plain':
    path.write_bytes(pickled)
  else:
    torch_files.write_archive(path, pickled)
  with pytest.raises(ValueError, match=rf"{path} asks for 'posix\.system'"):
    torch_file.read(path)
  assert not marker.exists()
  # The test would not notice if it could not run at all.
  pickle.loads(pickled)
  assert marker.exists()


@pytest.mark.parametrize('write', _WRITERS)
@pytest.mark.parametrize(
  ('value', 'name'),
  [
    (Call('posix system', ('touch it_ran',)), 'posix.system'),
    (Call('nt system', ('x',)), 'nt.system'),
    (Call('__builtin__ eval', ('open("it_ran", "w")',)), '__builtin__.eval'),
    (Call('builtins exec', ('1',)), 'builtins.exec'),
    (Call('builtins __import__', ('os',)), 'builtins.__import__'),
    (Call('builtins getattr', ('a', 'b')), 'builtins.getattr'),
    (Call('subprocess Popen', (['touch', 'it_ran'],)), 'subprocess.Popen'),
    (Call('torch load', ('x',)), 'torch.load'),
    (Call('torch.hub load', ('x',)), 'torch.hub.load'),
    (Call('numpy load', ('x',)), 'numpy.load'),
    (Call('collections OrderedDict.__init__', ()), 'OrderedDict.__init__'),
    (Call('argparse FileType', ('w',)), 'argparse.FileType'),
    (Global('models.vit VisionTransformer'), 'models.vit.VisionTransformer'),
    # Never called, and not asked for by the opcode that torch writes.
    (Global('os system'), 'os.system'),
    (Opcodes(b'X\2\0\0\0osX\6\0\0\0system\x93'), 'os.system'),
    (Opcodes(b"(S'touch it_ran'\nios\nsystem\n"), 'os.system'),
    (Opcodes(b'(cos\nsystem\nX\1\0\0\0xo'), 'os.system'),
    (Call('argparse Namespace', (), {'f': Call('os system', ('x',))}), 'os.sy'),
  ],
)
def test_other_globals_are_refused_by_name(
  tmp_path, monkeypatch, write, value, name
):
  monkeypatch.chdir(tmp_path)
  path = write(tmp_path / 'evil.pth', _model(value))
  with pytest.raises(ValueError, match='asks for') as error:
    torch_file.read(path)
  assert name in str(error.value)
  assert str(path) in str(error.value)
  assert not (tmp_path / 'it_ran').exists()


@pytest.mark.parametrize(
  ('code', 'message'),
  [
    (b'\x82\x01', 'opcode EXT1'),
    (b'Pposix system\n', 'opcode PERSID'),
    (b'(cargparse\nNamespace\no', 'opcode OBJ'),
    (b'\x97', 'opcode NEXT_BUFFER'),
    # State for what has none: a function of ours, its class, a tensor.
    (b'ctorch._utils\n_rebuild_tensor_v2\n}b', '_rebuild_tensor_v2.*has none'),
    (b'ccollections\nOrderedDict\nN}\x86b', 'OrderedDict.*has none'),
    (b'ctorch\nFloatStorage\n}b', 'torch.FloatStorage.*has none'),
    # Calls of what was made before, and of types.
    (b'cargparse\nNamespace\n)R)R', 'argparse.Namespace in place of'),
    (b'ctorch\nFloatStorage\n)R', 'torch.FloatStorage is called'),
    (b'}(X\1\0\0\0a]u)R', 'a dict in place of'),
    (b'X\1\0\0\0aQ', 'not enough values'),
    (b'(X\7\0\0\0storageNNNNtQ', 'persistent id'),
    (b']]a0', 'opcode POP'),
    (b'h\x09', '9'),
    (b'\x85\x85\x85', 'empty list'),
    (b'tttt', 'empty list'),
  ],
)
def test_opcodes_do_no_more_than_they_must(tmp_path, code, message):
  path = tmp_path / 'x.pth'
  torch_files.write_archive(path, b'\x80\x02' + code + b'.')
  with pytest.raises(ValueError, match=message) as error:
    torch_file.read(path)
  assert str(path) in str(error.value)


def test_attributes_set_by_a_pickle_change_nothing(tmp_path):
  items = Call('collections OrderedDict', (), {'items': 1, '__class__': 2})
  path = torch_files.write_zip(tmp_path / 'x.pth', _model(items))
  torch_file.read(path)
  assert torch_file.read(path)[1].keys() == {'ok'}


@pytest.mark.parametrize('write', _WRITERS)
@pytest.mark.parametrize(
  'view',
  [
    View(_ROW, 0, (2**40,), (1,)),
    View(_ROW, 0, (2**40,), (0,)),
    View(_ROW, 0, (2**61, 2**61), (0, 0)),
    View(_ROW, 0, (0, 2**61), (1, 1)),
    View(_ROW, 0, (5,), (1,)),
    View(_ROW, 1, (4,), (1,)),
    View(_ROW, -1, (2,), (1,)),
    View(_ROW, 3, (2,), (-1,)),
    View(_ROW, 0, (2, 2), (3, 1)),
    View(_ROW, 0, (2,), (2**61,)),
    View(_ROW, 2**63, (2,), (1,)),
    View(_ROW, 0, (-1,), (1,)),
    View(_ROW, 0, (2, 2), (1,)),
    View(_ROW, 0, (1,) * 40, (1,) * 40),
    View(_ROW, 0, 'ab', (1, 1)),
    View(_ROW, 0, (2.0,), (1,)),
    View(_ROW, 0, (_MANY_DIGITS,) * 3, (1, 1, 1)),
    View(_ROW, 0, (2, 2), (_MANY_DIGITS, 1)),
    View(_ROW, 0, (True,), (1,)),
    View(_ROW, None, (2,), (1,)),
    View(_ROW, 0, (4,), (1,), claimed=2**40),
    View(_ROW, 0, (4,), (1,), claimed=5),
    View(_ROW, 0, (4,), (1,), claimed=-4),
    View(_ROW, 0, (4,), (1,), claimed=2**80),
  ],
)
def test_tensors_that_claim_more_than_there_is(tmp_path, write, view):
  path = write(tmp_path / 'x.pth', _model(view))
  with pytest.raises(ValueError, match=f'{path} is damaged'):
    torch_file.read(path)


_SMALL_MACHINE = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
from vivit_mae.convert import torch_file
for path in sys.argv[1:]:
  try:
    print(torch_file.read(path))
  except ValueError as error:
    print(error)
"""


def test_bombs_do_not_go_off(tmp_path):
  # Each would take gigabytes, or the C stack, if it were taken at its word.
  big = b'\xff\xff\xff\xff\xff\xff\xff\x3f'
  bombs = {
    'memo': b'}r\xff\xff\xff\x7f',
    'bytes': b'\x8e' + big,
    'text': b'\x8d' + big,
    'bytearray': b'\x96' + big,
    'frame': b'\x95' + big + b'}',
    'long': b'\x8b\xff\xff\xff\x7f',
    'lists': b']' * 100_000 + b'a' * 99_999,
    'tuples': b')' + b'\x85' * 100_000,
    'key': b'})' + b'\x85' * 100_000 + b'Ns',
    'doubled': b']q\0' + b'(h\0h\0lq\0' * 2_000,
    'own': b'}q\0(X\5\0\0\0modelh\0u',
  }
  paths = [
    torch_files.write_archive(tmp_path / name, b'\x80\x04' + code + b'.')
    for name, code in bombs.items()
  ]
  out = subprocess.run(
    [sys.executable, '-c', _SMALL_MACHINE, *map(str, paths)],
    capture_output=True,
    text=True,
    check=True,
    timeout=100,
  ).stdout
  lines = dict(line.split(' ', 1) for line in out.splitlines())
  assert lines.keys() == {str(path) for path in paths}
  damaged = {'bytes', 'text', 'bytearray', 'long'}
  for path in paths:
    cause = 'is damaged' if path.name in damaged else 'holds no tensors'
    assert lines[str(path)].startswith(cause), path


def test_a_zip_bomb_is_refused(tmp_path):
  zeros = np.zeros(2**20, np.float32)
  path = torch_files.write_zip(
    tmp_path / 'x.pth', _model(zeros), zipfile.ZIP_DEFLATED
  )
  with pytest.raises(ValueError, match='compressed, which torch never'):
    torch_file.read(path)


def test_a_pickle_beyond_the_bound_is_refused(tmp_path):
  pickled = pickle.dumps(_model(np.zeros(2**22, np.float32)), 4)
  path = torch_files.write_archive(tmp_path / 'x.pth', pickled)
  with pytest.raises(ValueError, match='a pickle of more than 16777216 bytes'):
    torch_file.read(path)


def test_other_things_than_state_dicts(tmp_path):
  path = tmp_path / 'x.pth'
  torch_files.write_zip(path, {'epoch': 1, 'args': 'none'})
  with pytest.raises(ValueError, match=r"it holds 'epoch', 'args'\."):
    torch_file.read(path)
  torch_files.write_zip(path, [_ROW])
  with pytest.raises(ValueError, match=r'it holds a list\.'):
    torch_file.read(path)
  torch_files.write_zip(path, _model(_ROW), byteorder='big')
  with pytest.raises(ValueError, match='a big-endian machine'):
    torch_file.read(path)
  torch_files.write_legacy(path, _model(_ROW), little_endian=False)
  with pytest.raises(ValueError, match='a big-endian machine'):
    torch_file.read(path)
  path.write_bytes(pickle.dumps({'model': 1}))
  with pytest.raises(ValueError, match='is a plain Python pickle'):
    torch_file.read(path)
  torch_files.write_zip(path, _model(_ROW))
  with zipfile.ZipFile(path, 'a') as archive:
    archive.writestr('archive/constants.pkl', b'')
  with pytest.raises(ValueError, match='is a TorchScript program'):
    torch_file.read(path)
