import json
import pathlib
import random
import struct
import zipfile

import flax.serialization
import jax.numpy as jnp
import ml_dtypes
import msgpack
import numpy as np
import pytest
import safetensors.numpy

from tests.convert import torch_files
from vivit_mae.convert import files

_ROW = np.arange(4, dtype=np.float32)
_TYPES = {
  'brain': np.array([1.5, -2], ml_dtypes.bfloat16),
  'half': np.array([[1.5], [-2]], np.float16),
  'single': _ROW,
  'number': np.array(7, np.int32),
}


def _write_torch(path: pathlib.Path, arrays) -> pathlib.Path:
  arrays = {**arrays, 'number': np.array(7)}
  return torch_files.write_zip(path, {'model': arrays, 'epoch': 1})


def _write_legacy(path: pathlib.Path, arrays) -> pathlib.Path:
  arrays = {**arrays, 'number': np.array(7)}
  return torch_files.write_legacy(path, {'model': arrays, 'epoch': 1})


def _write_safetensors(path: pathlib.Path, arrays) -> pathlib.Path:
  safetensors.numpy.save_file(dict(arrays), path)
  return path


def _write_msgpack(path: pathlib.Path, arrays) -> pathlib.Path:
  tree = {'params': dict(arrays), 'step': 3}
  path.write_bytes(flax.serialization.to_bytes(tree))
  return path


def _write_npz(path: pathlib.Path, arrays) -> pathlib.Path:
  with path.open('wb') as file:
    np.savez(file, **{f'params/{name}': x for name, x in arrays.items()})
  return path


_WRITERS = {
  'torch': _write_torch,
  'legacy': _write_legacy,
  'safetensors': _write_safetensors,
  'msgpack': _write_msgpack,
  'npz': _write_npz,
}


@pytest.fixture(params=_WRITERS)
def written(request, tmp_path) -> pathlib.Path:
  """A file of each format, whose name tells nothing."""
  return _WRITERS[request.param](tmp_path / request.param, _TYPES)


def _assert_same(found, wanted) -> None:
  assert found.keys() == wanted.keys()
  for name, array in wanted.items():
    np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_every_format_and_type(written):
  found = files.read(written)
  assert found.kind == written.name.replace('legacy', 'torch')
  assert (
    found.wrapper
    == {
      'torch': 'model',
      'safetensors': '',
      'msgpack': 'params',
      'npz': 'params',
    }[found.kind]
  )
  assert found.path == written
  assert found.config is None
  _assert_same(found.arrays, _TYPES)
  for name in ('brain', 'half', 'single'):
    assert found.arrays[name].dtype == _TYPES[name].dtype


def test_a_file_that_ends_early_is_refused(written, tmp_path):
  whole = written.read_bytes()
  path = tmp_path / 'cut'
  for size in range(0, len(whole), len(whole) // 60):
    path.write_bytes(whole[:size])
    with pytest.raises(ValueError, match=str(path)):
      files.read(path)


def test_a_damaged_file_is_read_or_refused(written, tmp_path):
  rng = random.Random(0)
  whole = written.read_bytes()
  path = tmp_path / 'damaged'
  messages = []
  for _ in range(200):
    damaged = bytearray(whole)
    for _ in range(rng.choice([1, 1, 4])):
      damaged[rng.randrange(len(whole))] = rng.choice([0, 0x7F, 0x80, 0xFF])
    path.write_bytes(damaged)
    try:
      found = files.read(path)
    except ValueError as error:
      messages.append(str(error))
    else:
      for array in found.arrays.values():
        np.array(array)
  assert messages
  for message in messages:
    assert str(path) in message
    assert len(message) < 600


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (b'', 'is empty'),
    (b'<!DOCTYPE html><html>', 'is a web page'),
    (b'\n <html>', 'is a web page'),
    (b'version https://git-lfs.github.com/spec/v1\n', 'a pointer of git-lfs'),
    (b'\x89HDF\r\n\x1a\n', r"no known format: it begins with b'\\x89HDF"),
    (b'\x00', 'no known format'),
    (b'\x80', 'damaged or cut short'),
    (b'PK\3\4', 'archive that is damaged or cut short'),
    (b'\x82\xa1a', 'damaged or cut short'),
    (b'\x81\xa1a\1', 'holds no arrays'),
    (b'\x81\xa1a\1\1', 'it goes on after byte 4'),
    (b'\x10\0\0\0\0\0\0\0{}', 'safetensors file that is damaged, cut short'),
    (b'\x02\0\0\0\0\0\0\0{}', 'holds no arrays'),
  ],
)
def test_what_is_no_weights_file(tmp_path, content, message):
  path = tmp_path / 'checkpoint.pth'
  path.write_bytes(content)
  with pytest.raises(ValueError, match=message) as error:
    files.read(path)
  assert str(path) in str(error.value)
  assert '\n' not in str(error.value)


def test_what_is_not_there(tmp_path):
  with pytest.raises(ValueError, match=r'none.pth does not exist; a file of'):
    files.read(tmp_path / 'none.pth')
  with pytest.raises(ValueError, match=r'a folder without weights; one that'):
    files.read(tmp_path)
  with zipfile.ZipFile(tmp_path / 'x', 'w') as archive:
    archive.writestr('readme.txt', 'hello')
  with pytest.raises(ValueError, match=r'of neither torch nor numpy'):
    files.read(tmp_path / 'x')


@pytest.mark.parametrize(
  ('names', 'found', 'wrapper'),
  [
    (['module.a', 'module.b'], ['a', 'b'], 'module.'),
    (['_orig_mod.module.a'], ['a'], '_orig_mod./module.'),
    (['module._orig_mod.model.a'], ['a'], 'module./_orig_mod./model.'),
    (['backbone.a', 'backbone.b'], ['a', 'b'], 'backbone.'),
    (['backbone.a', 'head.b'], ['backbone.a', 'head.b'], ''),
    (['encoder.a', 'encoder.b'], ['a', 'b'], 'encoder.'),
    (['encoder.a', 'decoder.b'], ['encoder.a', 'decoder.b'], ''),
    (['_orig_mod.encoder.a', '_orig_mod.b'], ['encoder.a', 'b'], '_orig_mod.'),
    (['encoder_to_decoder.a'], ['encoder_to_decoder.a'], ''),
  ],
)
def test_prefixes_of_all_names_are_taken_away(tmp_path, names, found, wrapper):
  path = _write_safetensors(tmp_path / 'x', dict.fromkeys(names, _ROW))
  checkpoint = files.read(path)
  assert set(checkpoint.arrays) == set(found)
  assert checkpoint.wrapper == wrapper


def test_wrapper_and_prefix_are_both_recorded(tmp_path):
  tree = {'model': {'_orig_mod.encoder.a': _ROW}}
  path = torch_files.write_zip(tmp_path / 'x', tree)
  checkpoint = files.read(path)
  assert checkpoint.wrapper == 'model/_orig_mod./encoder.'
  _assert_same(checkpoint.arrays, {'a': _ROW})


_PARAMS = {'embedding': {'kernel': _ROW}, 'blocks': [{'bias': _ROW}]}
_FLAT = {'embedding/kernel': _ROW, 'blocks/0/bias': _ROW}


def _write_tree(path: pathlib.Path, tree) -> pathlib.Path:
  path.write_bytes(flax.serialization.msgpack_serialize(tree))
  return path


@pytest.mark.parametrize(
  ('tree', 'wrapper'),
  [
    (_PARAMS, ''),
    ({'params': _PARAMS}, 'params'),
    (
      {
        'global_step': 3,
        'optimizer': {'state': {'step': np.array(3)}, 'target': _PARAMS},
        'model_state': {'batch_stats': {'mean': _ROW}},
        'rng': np.array([0, 1], np.uint32),
        'accum_train_time': np.float32(1),
      },
      'optimizer/target',
    ),
    ({'optimizer': {'target': {'params': _PARAMS}}}, 'optimizer/target/params'),
    (
      {'opt_state': {'0': _PARAMS}, 'params': _PARAMS, 'model_state': _PARAMS},
      'params',
    ),
    ({'optimizer': None, 'params': {'params': _PARAMS}}, 'params/params'),
  ],
)
def test_train_states_of_flax(tmp_path, tree, wrapper):
  checkpoint = files.read(_write_tree(tmp_path / 'checkpoint', tree))
  assert checkpoint.kind == 'msgpack'
  assert checkpoint.wrapper == wrapper
  _assert_same(checkpoint.arrays, _FLAT)


def test_the_state_of_an_optimiser_is_skipped_unread(tmp_path):
  # What would be refused if it were looked at.
  lie = msgpack.ExtType(1, msgpack.packb(((2**40,), 'float32', b'')))
  tree = {
    'opt_state': {'mu': lie},
    'optimizer': {'state': [lie], 'target': {'w': None}},
    'params': {'w': lie},
  }
  path = tmp_path / 'checkpoint'
  path.write_bytes(msgpack.packb(tree))
  with pytest.raises(ValueError, match=r'shape \(1099511627776,\) that comes'):
    files.read(path)
  row = flax.serialization.msgpack_serialize({'w': _ROW})
  tree['optimizer']['target'] = msgpack.unpackb(row)
  del tree['params']
  path.write_bytes(msgpack.packb(tree))
  _assert_same(files.read(path).arrays, {'w': _ROW})


def test_arrays_in_parts_are_joined(tmp_path, monkeypatch):
  monkeypatch.setattr(flax.serialization, 'MAX_CHUNK_SIZE', 16)
  table = np.arange(15, dtype=np.float32).reshape(3, 5)
  path = _write_tree(tmp_path / 'checkpoint', {'params': {'w': table}})
  assert b'__msgpack_chunked_array__' in path.read_bytes()
  _assert_same(files.read(path).arrays, {'w': table})


@pytest.mark.parametrize(
  ('shape', 'dtype', 'data', 'message'),
  [
    ((3,), 'float32', bytes(8), r'shape \(3,\) that comes with 2 numbers'),
    ((-1,), 'float32', bytes(8), 'a shape that is none'),
    ((2.0,), 'float32', bytes(8), 'a shape that is none'),
    ((2**62, 2**62, 0), 'float32', b'', 'damaged'),
    ((2,), 'float33', bytes(8), "data type 'float33' not understood"),
    ((2,), 'object', bytes(16), 'holds no arrays'),
    ((2,), 'str', bytes(16), 'holds no arrays'),
    ((2,), 'float32', bytes(7), 'buffer size'),
  ],
)
def test_msgpack_that_lies_about_an_array(
  tmp_path, shape, dtype, data, message
):
  path = tmp_path / 'checkpoint'
  array = msgpack.ExtType(1, msgpack.packb((shape, dtype, data)))
  path.write_bytes(msgpack.packb({'params': {'w': array}}))
  with pytest.raises(ValueError, match=message) as error:
    files.read(path)
  assert str(path) in str(error.value)


def test_msgpack_that_never_ends(tmp_path):
  path = tmp_path / 'checkpoint'
  for content in (
    b'\x81\xa1a' * 5_000,  # Maps in maps.
    b'\x81\xa1a' + b'\x91' * 5_000 + b'\xc0',  # Lists in lists.
    b'\x81\xa1a\xdd\xff\xff\xff\xff',
    b'\x81\xa1a\xdf\xff\xff\xff\xff',
    b'\x81\xa1a\xc9\xff\xff\xff\x7f\x01',
  ):
    path.write_bytes(content)
    with pytest.raises(ValueError, match='damaged or cut short'):
      files.read(path)


def test_names_of_npz_files(tmp_path):
  path = _write_npz(tmp_path / 'x', {'a/kernel': _ROW})
  _assert_same(files.read(path).arrays, {'a/kernel': _ROW})
  with path.open('wb') as file:
    names = ('opt/target/w', 'opt/state/w', 'rng')
    np.savez_compressed(file, allow_pickle=False, **dict.fromkeys(names, _ROW))
  checkpoint = files.read(path)
  assert checkpoint.wrapper == 'opt/target'
  _assert_same(checkpoint.arrays, {'w': _ROW})
  with path.open('wb') as file:
    np.savez(file, w=_ROW, label=np.array(['a']), what=np.array([{}]))
  _assert_same(files.read(path).arrays, {'w': _ROW})


def _npy(shape: str, data: bytes) -> bytes:
  head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}\n"
  return b'\x93NUMPY\1\0' + struct.pack('<H', len(head)) + head.encode() + data


def test_npz_that_lies_about_an_array(tmp_path):
  path = tmp_path / 'x.npz'
  for shape in ('(1099511627776,)', '(3,)', '(1,)', '(-2,)', "('a',)", '()()'):
    with zipfile.ZipFile(path, 'w') as archive:
      archive.writestr('w.npy', _npy(shape, bytes(8)))
    with pytest.raises(ValueError, match=f'{path} is damaged'):
      files.read(path)


def test_a_bomb_of_npz(tmp_path, monkeypatch):
  path = tmp_path / 'x.npz'
  np.savez_compressed(path, w=np.zeros(2**20, np.float32))
  monkeypatch.setattr('vivit_mae.convert.flax_file._SURELY_FITS', 2**20)
  with pytest.raises(ValueError, match='claims to hold'):
    files.read(path)


def test_folders_of_hugging_face(tmp_path):
  config = {'model_type': 'videomae'}
  (tmp_path / 'config.json').write_text(json.dumps(config))
  torch_files.write_zip(tmp_path / 'pytorch_model.bin', {'w': _ROW})
  found = files.read(tmp_path)
  assert (found.kind, found.config) == ('torch', config)
  _write_safetensors(tmp_path / 'model.safetensors', {'v': _ROW})
  found = files.read(str(tmp_path))
  assert (found.kind, found.config) == ('safetensors', config)
  assert found.path == tmp_path / 'model.safetensors'
  _assert_same(found.arrays, {'v': _ROW})
  assert files.read(tmp_path / 'model.safetensors').config == config
  torch_files.write_zip(tmp_path / 'other.pth', {'w': _ROW})
  assert files.read(tmp_path / 'other.pth').config is None


@pytest.mark.parametrize('text', ['{', '[]', '[' * 100_000])
def test_a_config_that_is_none(tmp_path, text):
  (tmp_path / 'config.json').write_text(text)
  _write_safetensors(tmp_path / 'model.safetensors', {'v': _ROW})
  with pytest.raises(ValueError, match=r'config.json .*; mend or remove it'):
    files.read(tmp_path)


def test_weights_in_several_files(tmp_path):
  index = tmp_path / 'model.safetensors.index.json'
  names = {
    'encoder.a': 'model-1.safetensors',
    'encoder.b': 'model-2.safetensors',
  }
  for name, file in names.items():
    _write_safetensors(tmp_path / file, {name: _ROW})
  index.write_text(json.dumps({'metadata': {}, 'weight_map': names}))
  found = files.read(tmp_path)
  assert (found.path, found.kind) == (index, 'safetensors')
  assert found.wrapper == 'encoder.'
  _assert_same(found.arrays, {'a': _ROW, 'b': _ROW})
  for names, message in (
    ({'c': 'model-1.safetensors'}, 'does not fit the files'),
    ({'a': 'model-3.safetensors'}, 'model-3.safetensors does not exist'),
    ({'a': '../model-1.safetensors'}, 'which is no file beside it'),
    ({'a': '/etc/passwd'}, 'which is no file beside it'),
    ({'a': 3}, 'which is no file beside it'),
    ({'a': '..'}, 'without weights|no file beside it'),
    ({}, 'has no weight_map'),
  ):
    index.write_text(json.dumps({'weight_map': names}))
    with pytest.raises(ValueError, match=message):
      files.read(tmp_path)


def test_folders_of_deepspeed_and_scenic(tmp_path):
  _write_tree(tmp_path / 'checkpoint', {'params': _PARAMS})
  assert files.read(tmp_path).kind == 'msgpack'
  torch_files.write_legacy(
    tmp_path / 'mp_rank_00_model_states.pt',
    {'module': {'w': _ROW.astype(np.float16)}, 'ds_version': '0.5.8'},
  )
  found = files.read(tmp_path)
  assert (found.kind, found.wrapper) == ('torch', 'module')
  assert found.arrays['w'].dtype == np.float16


def test_arrays_go_to_jax(written):
  for name, array in files.read(written).arrays.items():
    np.testing.assert_array_equal(jnp.asarray(array), _TYPES[name])


def test_a_malicious_file_is_refused_whatever_it_is_called(tmp_path):
  path = tmp_path / 'model.safetensors'
  evil = torch_files.Call('posix system', (f'touch {tmp_path}/it_ran',))
  torch_files.write_zip(path, {'model': {'w': _ROW}, 'args': evil})
  with pytest.raises(ValueError, match=rf"{path} asks for 'posix.system'"):
    files.read(tmp_path)
  assert not (tmp_path / 'it_ran').exists()
