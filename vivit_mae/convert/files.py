"""Weights from files of any of the known formats, whatever they are wrapped in.

The format is told by the content, because the suffixes are not: Scenic's files
are called `checkpoint`, and a page that says "log in first" is saved as `.pth`.
"""

import dataclasses
import functools
import json
import os
import pathlib
import zipfile
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import ml_dtypes  # noqa: F401  numpy, and so safetensors, learns bfloat16
import numpy as np
import safetensors
from jaxtyping import Shaped

from vivit_mae.convert import flax_file, torch_file

Arrays = Mapping[str, Shaped[np.ndarray, '...']]

# What DistributedDataParallel, torch.compile and outer modules put before the
# names of all of a model's parameters.
PREFIXES = ('_orig_mod.', 'module.', 'backbone.', 'model.', 'encoder.')

# What a folder is searched for, in this order.
_IN_FOLDER = (
  'model.safetensors',
  'model.safetensors.index.json',
  'pytorch_model.bin',
  'pytorch_model.bin.index.json',
  'mp_rank_00_model_states.pt',  # DeepSpeed
  'checkpoint',  # Scenic
)
_INDEX = '.index.json'
_OF_HUGGING_FACE = ('.safetensors', '.bin', '.json')

_KNOWN = (
  'a file of torch.save (.pth, .pt, .pyth, .bin), safetensors, msgpack or npz '
  'would do'
)
_HEAD = 64
# safetensors itself takes no longer header.
_LONGEST_HEADER = 100_000_000


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  """The arrays of a model as a file holds them.

  Attributes:
    arrays: By the foreign names: dotted those of torch, joined with slashes
      those of a tree. Of the file's types, perhaps read-only, and those of
      torch mapped from the file: it should not change while they are in use.
    path: The file; of sharded weights, their index.
    kind: 'torch', 'safetensors', 'msgpack' or 'npz'.
    wrapper: The keys above the arrays and then the prefixes of all names that
      were taken away, joined by slashes: '', 'model', 'optimizer/target',
      'model/_orig_mod./encoder.'.
    config: The config.json of Hugging Face beside the file, if there is one.
  """

  # Any, because what is planned has only shapes.
  arrays: Mapping[str, Any]
  path: pathlib.Path
  kind: str
  wrapper: str = ''
  config: dict[str, Any] | None = None


def read(path: str | os.PathLike[str]) -> Checkpoint:
  """Reads a model's weights.

  Args:
    path: A file that torch.save, safetensors, Flax (msgpack) or numpy (npz)
      wrote, or a folder of Hugging Face, DeepSpeed or Scenic that holds one.
      Its content decides which it is.

  Returns:
    The arrays. Of all else in the file, the state of an optimiser above all,
    nothing is kept.

  Raises:
    ValueError: The path does not exist, the file is empty, damaged or of no
      known format, it asks for more than arrays, or it holds none.
  """
  path = _file(pathlib.Path(path))
  if path.name.endswith(_INDEX):
    kind, wrapper, arrays = _read_shards(path)
  else:
    kind, wrapper, arrays = _read_file(path)
  if not arrays:
    raise ValueError(f'{path} holds no arrays; weights of a model would do.')
  prefixes, arrays = _without_prefixes(arrays)
  return Checkpoint(
    arrays=arrays,
    path=path,
    kind=kind,
    wrapper='/'.join(filter(None, (wrapper, *prefixes))),
    config=_config(path),
  )


def _file(path: pathlib.Path) -> pathlib.Path:
  """The file that is meant by a path."""
  if path.is_dir():
    found = next((path / n for n in _IN_FOLDER if (path / n).is_file()), None)
    if found is None:
      raise ValueError(
        f'{path} is a folder without weights; one that holds '
        f'{", ".join(_IN_FOLDER[:-1])} or {_IN_FOLDER[-1]} would do.'
      )
    return found
  if not path.is_file():
    raise ValueError(f'{path} does not exist; {_KNOWN}.')
  return path


def _read_file(path: pathlib.Path) -> tuple[str, str, Arrays]:
  """Kind, wrapper and arrays of one file."""
  kind = _kind(path)
  return kind, *_READERS[kind](path)


def _kind(path: pathlib.Path) -> str:
  """The format that the first bytes tell, and in an archive the names."""
  with path.open('rb') as file:
    head = file.read(_HEAD)
  if not head:
    raise ValueError(f'{path} is empty; {_KNOWN}.')
  header = int.from_bytes(head[:8], 'little')
  if head.startswith(b'PK\3\4'):
    kind = _kind_of_archive(path)
  elif head[8:9] == b'{' and header <= _LONGEST_HEADER:
    kind = 'safetensors'
  elif head[0] == 0x80:  # A pickle; as msgpack, an empty map.
    kind = 'torch'
  elif flax_file.is_msgpack(head):
    kind = 'msgpack'
  else:
    raise ValueError(f'{path} {_unknown(head)}; {_KNOWN}.')
  return kind


def _kind_of_archive(path: pathlib.Path) -> str:
  try:
    with zipfile.ZipFile(path) as archive:
      names = archive.namelist()
  except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
    raise ValueError(
      f'{path} is an archive that is damaged or cut short ({error}); get the '
      'file again.'
    ) from error
  if any(name.endswith('/data.pkl') for name in names):
    return 'torch'
  if any(name.endswith('.npy') for name in names):
    return 'npz'
  raise ValueError(
    f'{path} is a zip archive of neither torch nor numpy; if there are weights '
    f'in it, unpack it: {_KNOWN}.'
  )


def _unknown(head: bytes) -> str:
  """What a file is that isn't known, as far as one can tell."""
  text = head.lstrip().lower()
  if text.startswith((b'<!doctype', b'<html', b'<?xml')):
    return 'is a web page, not the file that its address promised'
  if text.startswith(b'version https://git-lfs'):
    return 'is a pointer of git-lfs; fetch the file itself with git lfs pull'
  return f'is of no known format: it begins with {head[:8]!r}'


def _read_safetensors(path: pathlib.Path) -> tuple[str, Arrays]:
  try:
    with safetensors.safe_open(path, framework='np') as file:
      return '', {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
  except (safetensors.SafetensorError, AttributeError, TypeError) as error:
    raise ValueError(
      f'{path} is a safetensors file that is damaged, cut short or of types '
      f'that numpy has not ({error}); get the file again.'
    ) from error


_READERS: dict[str, Callable[[pathlib.Path], tuple[str, Arrays]]] = {
  'torch': torch_file.read,
  'safetensors': _read_safetensors,
  'msgpack': flax_file.read_msgpack,
  'npz': flax_file.read_npz,
}


def _read_shards(path: pathlib.Path) -> tuple[str, str, Arrays]:
  """Kind, wrapper and arrays of Hugging Face's weights in several files."""
  shards = _json(path).get('weight_map')
  if not isinstance(shards, dict) or not shards:
    raise ValueError(f'{path} has no weight_map; the index of weights has one.')
  for shard in set(shards.values()):
    # Nothing outside the folder is for the index to name.
    if not isinstance(shard, str) or pathlib.Path(shard).name != shard:
      raise ValueError(f'{path} names {shard!r}, which is no file beside it.')
  kinds, wrappers, arrays = set(), set(), {}
  for shard in sorted(set(shards.values())):
    kind, wrapper, found = _read_file(_file(path.parent / shard))
    kinds.add(kind)
    wrappers.add(wrapper)
    arrays |= found
  missing = sorted(shards.keys() - arrays.keys())
  if missing or len(kinds) > 1 or len(wrappers) > 1:
    raise ValueError(
      f'{path} does not fit the files that it names: {len(missing)} arrays are '
      f'missing, {missing[:1]} first; get the files again.'
    )
  return kinds.pop(), wrappers.pop(), arrays


def _without_prefixes(arrays: Arrays) -> tuple[list[str], Arrays]:
  """Takes away, as often as there is one, a prefix that all names have."""
  taken = []
  while prefix := _common_prefix(arrays):
    taken.append(prefix)
    arrays = {name.removeprefix(prefix): x for name, x in arrays.items()}
  return taken, arrays


def _common_prefix(names: Iterable[str]) -> str | None:
  common = functools.partial(_all_start_with, list(names))
  return next(filter(common, PREFIXES), None)


def _all_start_with(names: list[str], prefix: str) -> bool:
  return all(name.startswith(prefix) for name in names)


def _config(path: pathlib.Path) -> dict[str, Any] | None:
  beside = path.parent / 'config.json'
  if path.suffix not in _OF_HUGGING_FACE or not beside.is_file():
    return None
  return _json(beside)


def _json(path: pathlib.Path) -> dict[str, Any]:
  try:
    value = json.loads(path.read_bytes())
  except (ValueError, RecursionError) as error:
    raise ValueError(
      f'{path} is no JSON ({error}); mend or remove it.'
    ) from error
  if not isinstance(value, dict):
    raise ValueError(f'{path} holds no JSON object; mend or remove it.')
  return value
