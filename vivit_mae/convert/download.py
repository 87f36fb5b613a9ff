"""Fetches published weights into a cache, and checks what it got.

Files of the Hugging Face hub go through `huggingface_hub` into its own cache.
Others go to `weights` in ours, as `<name>/<file name>`, where any file that is
put there by hand is found too.
"""

import glob
import hashlib
import http
import http.client
import logging
import os
import pathlib
import ssl
import urllib.error
import urllib.request

import filelock
import huggingface_hub
import tqdm

from vivit_mae.convert.zoo_entry import Entry

_log = logging.getLogger('vivit_mae')
_noted: set[str] = set()

_TIMEOUT = 60  # seconds without a byte
_CHUNK = 1 << 20
_CUT = (
  http.client.HTTPException,
  ConnectionError,
  TimeoutError,
  ssl.SSLError,
)
_NETWORK = (urllib.error.URLError, *_CUT)


def note_licence(entry: Entry) -> None:
  """Logs, once in a process, that an entry is not for commercial use."""
  if entry.non_commercial and entry.name not in _noted:
    _noted.add(entry.name)
    _log.warning(
      '%s: these weights are not for commercial use, licence %s.',
      *(entry.name, entry.licence),
    )


def by_hand(
  entry: Entry, cache: str | os.PathLike[str] | None = None
) -> pathlib.Path:
  """Where `fetch` looks for an entry's file before it goes to the network.

  Args:
    entry: What is looked for.
    cache: The directory that `weights` is in. By default $VIVIT_MAE_CACHE, else
      `vivit_mae` in $XDG_CACHE_HOME, else in ~/.cache.

  Returns:
    The path, whether there is a file or not.
  """
  if cache is None:
    cache = os.environ.get('VIVIT_MAE_CACHE') or os.path.join(
      os.environ.get('XDG_CACHE_HOME') or '~/.cache', 'vivit_mae'
    )
  root = pathlib.Path(cache).expanduser().absolute()
  return root / 'weights' / entry.name / entry.basename


def fetch(
  entry: Entry, cache: str | os.PathLike[str] | None = None
) -> pathlib.Path:
  """Finds or downloads the file of an entry.

  A download that is cut goes on where it stopped, in this call or the next,
  unless the server has another file by then. Processes that want the same file
  wait for the one that loads it. A terminal shows a progress bar.

  Args:
    entry: What to fetch.
    cache: See `by_hand`. The hub's files go to the hub's own cache.

  Returns:
    The path of a file that has the size and the digests that the entry names.

  Raises:
    ValueError: it cannot be had, and says which file to put where; or it is not
      the file that the entry describes.
  """
  path = by_hand(entry, cache)
  if path.is_file():
    return _checked(path, entry)
  if entry.hub_id:
    return _checked(_from_hub(entry, path), entry)
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(path.with_name(f'{path.name}.lock')):
      # Another process may have been faster.
      return _checked(path, entry) if path.is_file() else _load(entry, path)
  except OSError as error:
    raise ValueError(
      f'{path.parent}: cannot be written to ({error}); VIVIT_MAE_CACHE chooses '
      'another cache.'
    ) from error


def _from_hub(entry: Entry, path: pathlib.Path) -> pathlib.Path:
  # A file that is here costs no request, and is found without a network.
  cached = huggingface_hub.try_to_load_from_cache(entry.hub_id, entry.filename)
  if isinstance(cached, str):
    return pathlib.Path(cached)
  try:
    found = huggingface_hub.hf_hub_download(entry.hub_id, entry.filename)
  except Exception as error:  # Which, depends on the hub's HTTP library.
    raise ValueError(_unreachable(entry, path, error)) from error
  return pathlib.Path(found)


def _load(entry: Entry, path: pathlib.Path) -> pathlib.Path:
  """Downloads until all is here, or until a connection brings nothing new."""
  _log.info('Downloading %s to %s', entry.url, path)
  done, size, before = 0, 1, -1
  part = path
  try:
    while done < size:
      part, done, size = _connect(entry, path)
      if done <= before:
        raise ConnectionError(f'cut after {done:,} of {size:,} bytes')
      before = done
  except _NETWORK as error:
    raise ValueError(_unreachable(entry, path, error)) from error
  wrong = _mismatch(part, entry)
  if wrong:
    part.unlink()
    raise ValueError(f'{entry.url} is not {entry.name}: {wrong}. Not kept.')
  part.replace(path)
  return path


def _connect(entry: Entry, path: pathlib.Path) -> tuple[pathlib.Path, int, int]:
  """Downloads what one connection brings.

  Returns:
    The file with what has come, how many bytes that is, and of how many.
  """
  with _open(entry.url) as response:
    if response.headers.get_content_type() == 'text/html':
      raise http.client.HTTPException('the server sent a web page')
    length = response.headers.get('Content-Length')
    size = None if length is None else int(length)
    version = _version(response)
    part = _part(path, f'{version} {size}')
    done = part.stat().st_size if part.is_file() else 0
    if not size or not 0 < done <= size:
      done = _write(response, entry, part, 0, size)
      return part, done, done if size is None else size
  if done < size:
    with _open(entry.url, done) as response:
      # Else the server ignored the wish for the rest, and sends all of it.
      goes_on = response.status == http.HTTPStatus.PARTIAL_CONTENT
      if goes_on and _version(response) != version:
        raise http.client.HTTPException('the file changed meanwhile')
      done = _write(response, entry, part, done if goes_on else 0, size)
  return part, done, size


def _open(url: str, start: int = 0) -> http.client.HTTPResponse:
  headers = {'User-Agent': 'vivit_mae'}
  if start:
    headers['Range'] = f'bytes={start}-'
  request = urllib.request.Request(url, headers=headers)
  return urllib.request.urlopen(request, timeout=_TIMEOUT)


def _version(response: http.client.HTTPResponse) -> str:
  headers = response.headers
  return headers.get('ETag') or headers.get('Last-Modified') or ''


def _part(path: pathlib.Path, version: str) -> pathlib.Path:
  """The file for what has come of one version; removes those of others."""
  tag = hashlib.sha256(version.encode()).hexdigest()[:8]
  part = path.with_name(f'{path.name}.{tag}.part')
  for other in path.parent.glob(f'{glob.escape(path.name)}.*.part'):
    if other != part:
      other.unlink()
  return part


def _write(
  response: http.client.HTTPResponse,
  entry: Entry,
  part: pathlib.Path,
  start: int,
  size: int | None,
) -> int:
  """Writes a response behind the first `start` bytes; returns their number."""
  with (
    part.open('ab' if start else 'wb') as out,
    tqdm.tqdm(
      desc=entry.name,
      total=size,
      initial=start,
      unit='B',
      unit_scale=True,
      disable=None,  # only on a terminal
    ) as bar,
  ):
    try:
      while chunk := response.read(_CHUNK):
        out.write(chunk)
        bar.update(len(chunk))
    except _CUT:
      if size is None:  # Nothing would tell that it is not all.
        raise
  return part.stat().st_size


def _unreachable(entry: Entry, path: pathlib.Path, error: Exception) -> str:
  reason = getattr(error, 'reason', None)
  if reason is None or isinstance(error, urllib.error.HTTPError):
    reason = error
  said = ' '.join(str(reason).split()) or type(reason).__name__
  return (
    f'{entry.name}: could not be downloaded ({said}). Try again, or get '
    f'{entry.address} elsewhere and put it at {path}'
  )


def _checked(path: pathlib.Path, entry: Entry) -> pathlib.Path:
  wrong = _mismatch(path, entry)
  if wrong:
    raise ValueError(
      f'{path} is not {entry.name}: {wrong}. Remove it, and it is downloaded.'
    )
  return path


def _mismatch(path: pathlib.Path, entry: Entry) -> str:
  """How a file differs from what is known of it; '' if it does not."""
  size = path.stat().st_size
  if not size:
    return 'it is empty'
  if entry.size_bytes not in (None, size):
    return f'it has {size:,} bytes instead of {entry.size_bytes:,}'
  for kind, expected in (('sha256', entry.sha256), ('md5', entry.md5_prefix)):
    if expected is not None:
      with path.open('rb') as stream:
        found = hashlib.file_digest(stream, kind).hexdigest()
      if not found.startswith(expected):
        return f'its {kind} is {found} and not {expected}'
  return ''
