import dataclasses
import hashlib
import http.server
import io
import logging
import socket
import threading

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants, errors

from vivit_mae.convert import download
from vivit_mae.convert.zoo_entry import Entry

DATA = np.random.default_rng(0).bytes(3 << 20)


class Server(http.server.ThreadingHTTPServer):
  """Serves one file, as well or badly as a test wants."""

  def __init__(self):
    super().__init__(('127.0.0.1', 0), Handler)
    self.data = DATA
    self.etag: str | None = '"one"'
    self.ranges = True
    self.sends_length = True
    self.chunked = False
    self.content_type = 'application/octet-stream'
    self.statuses: list[int] = []  # of the next requests, then 200
    self.ends: list[int] = []  # where the next responses are cut, then nowhere
    self.always_end: int | None = None
    self.asked: list[str | None] = []  # for which bytes

  def handle_error(self, request, client_address):
    pass  # A client that hangs up is no news.


class Handler(http.server.BaseHTTPRequestHandler):
  server: Server

  def do_GET(self):
    server, wanted = self.server, self.headers['Range']
    server.asked.append(wanted)
    status = server.statuses.pop(0) if server.statuses else 200
    if status != 200:
      self.send_error(status)
      return
    start = 0
    if wanted and server.ranges:
      start = int(wanted.removeprefix('bytes=').removesuffix('-'))
    self.send_response(206 if start else 200)
    self.send_header('Content-Type', server.content_type)
    if server.sends_length:
      self.send_header('Content-Length', str(len(server.data) - start))
    if server.chunked:
      self.send_header('Transfer-Encoding', 'chunked')
    if server.etag:
      self.send_header('ETag', server.etag)
    if start:
      total = len(server.data)
      self.send_header('Content-Range', f'bytes {start}-{total - 1}/{total}')
    self.end_headers()
    if server.chunked:
      self.wfile.write(b'%x\r\n' % len(server.data))
    end = server.ends.pop(0) if server.ends else server.always_end
    self.wfile.write(server.data[start:end])

  def log_message(self, *_):
    pass


@pytest.fixture
def server():
  with Server() as server:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()


@pytest.fixture
def entry(server) -> Entry:
  return Entry(
    name='some_weights',
    source='VideoMAE',
    holds='encoder',
    url=f'http://127.0.0.1:{server.server_port}/folder/weights.pth',
    sha256=hashlib.sha256(DATA).hexdigest(),
    licence='CC-BY-NC-4.0',
    non_commercial=True,
    data='a test',
    num_frames=16,
    stride=4,
    confirmed='here',
  )


def on_hub(entry: Entry) -> Entry:
  return dataclasses.replace(
    entry, url='', hub_id='someone/some-weights', filename='sub/weights.bin'
  )


def files(cache) -> list[str]:
  """What is in the entry's folder but for the lock."""
  folder = cache / 'weights' / 'some_weights'
  return sorted(p.name for p in folder.iterdir() if p.suffix != '.lock')


def test_a_file_is_downloaded_once(server, entry, tmp_path, capsys):
  path = download.fetch(entry, tmp_path)
  assert path == tmp_path / 'weights' / 'some_weights' / 'weights.pth'
  assert path.read_bytes() == DATA
  assert files(tmp_path) == ['weights.pth']
  assert download.fetch(entry, str(tmp_path)) == path
  assert server.asked == [None]
  assert capsys.readouterr().err == ''  # no bar where no one looks


def test_a_terminal_shows_a_bar(entry, tmp_path, monkeypatch):
  class Terminal(io.StringIO):
    def isatty(self):
      return True

  terminal = Terminal()
  monkeypatch.setattr('sys.stderr', terminal)
  download.fetch(entry, tmp_path)
  assert 'some_weights: 100%' in terminal.getvalue()


def test_size_and_md5_are_enough(entry, tmp_path):
  entry = dataclasses.replace(
    entry,
    sha256=None,
    size_bytes=len(DATA),
    md5_prefix=hashlib.md5(DATA).hexdigest()[:6],
  )
  assert download.fetch(entry, tmp_path).read_bytes() == DATA


@pytest.mark.parametrize('etag', ['"one"', None])
def test_a_cut_connection_goes_on(server, entry, tmp_path, etag):
  server.etag = etag
  server.ends = [1_000_000, len(DATA), 2_000_000]
  assert download.fetch(entry, tmp_path).read_bytes() == DATA
  rest = [ask for ask in server.asked if ask]
  assert rest == ['bytes=1000000-', 'bytes=2000000-']
  assert files(tmp_path) == ['weights.pth']


def test_a_server_without_ranges_sends_all_again(server, entry, tmp_path):
  server.ranges, server.ends = False, [1_000_000]
  assert download.fetch(entry, tmp_path).read_bytes() == DATA


def test_a_later_call_goes_on(server, entry, tmp_path):
  server.ends, server.statuses = [1_000_000], [200, 503]
  with pytest.raises(ValueError, match='503'):
    download.fetch(entry, tmp_path)
  (part,) = files(tmp_path)
  assert part.endswith('.part')
  assert download.fetch(entry, tmp_path).read_bytes() == DATA
  assert server.asked[-1] == 'bytes=1000000-'


def test_another_file_by_then_is_loaded_from_the_start(server, entry, tmp_path):
  server.data, server.etag = DATA[::-1], '"zero"'
  server.ends, server.statuses = [1_000_000], [200, 503]
  with pytest.raises(ValueError, match='503'):
    download.fetch(entry, tmp_path)
  server.data, server.etag = DATA, '"one"'
  assert download.fetch(entry, tmp_path).read_bytes() == DATA
  assert server.asked == [None] * 3
  assert files(tmp_path) == ['weights.pth']


def test_a_part_that_is_whole_is_not_loaded_again(server, entry, tmp_path):
  server.ends, server.statuses = [len(DATA) - 1], [200, 503]
  with pytest.raises(ValueError, match='503'):
    download.fetch(entry, tmp_path)
  (part,) = (tmp_path / 'weights' / 'some_weights').glob('*.part')
  part.write_bytes(DATA)  # killed before it was renamed
  assert download.fetch(entry, tmp_path).read_bytes() == DATA
  assert not any(server.asked)


def test_a_connection_that_brings_nothing_new_ends_it(server, entry, tmp_path):
  server.always_end = 1_000_000
  with pytest.raises(ValueError, match='cut after 1,000,000 of 3,145,728 byt'):
    download.fetch(entry, tmp_path)


def test_a_server_may_not_know_the_length(server, entry, tmp_path):
  server.sends_length = False
  assert download.fetch(entry, tmp_path).read_bytes() == DATA


def test_a_cut_without_a_length_is_noticed(server, entry, tmp_path):
  server.sends_length, server.chunked, server.ends = False, True, [1_000_000]
  with pytest.raises(ValueError, match='IncompleteRead'):
    download.fetch(dataclasses.replace(entry, sha256=None), tmp_path)
  assert 'weights.pth' not in files(tmp_path)


@pytest.mark.parametrize(
  ('facts', 'message'),
  [
    ({'sha256': '0' * 64}, rf'its sha256 is [0-9a-f]{{64}} and not {"0" * 64}'),
    ({'sha256': None, 'md5_prefix': 'abcdef'}, r'its md5 is .* and not abcdef'),
    ({'size_bytes': 12}, r'it has 3,145,728 bytes instead of 12'),
  ],
)
def test_the_wrong_file_is_not_kept(entry, tmp_path, facts, message):
  wrong = dataclasses.replace(entry, **facts)
  with pytest.raises(ValueError, match=f'{entry.url} is not .*{message}'):
    download.fetch(wrong, tmp_path)
  assert files(tmp_path) == []


def test_an_empty_file_is_not_kept(server, entry, tmp_path):
  server.data = b''
  with pytest.raises(ValueError, match='it is empty'):
    download.fetch(dataclasses.replace(entry, sha256=None), tmp_path)
  assert files(tmp_path) == []


def test_a_web_page_is_no_weights(server, entry, tmp_path):
  server.content_type = 'text/html; charset=utf-8'
  with pytest.raises(ValueError, match='sent a web page'):
    download.fetch(dataclasses.replace(entry, sha256=None), tmp_path)
  assert files(tmp_path) == []


def test_a_missing_file_is_named(server, entry, tmp_path):
  server.statuses = [404]
  with pytest.raises(ValueError, match=r'some_weights.*404') as caught:
    download.fetch(entry, tmp_path)
  assert entry.url in str(caught.value)


def test_offline_says_what_to_put_where_and_then_finds_it(entry, tmp_path):
  with socket.socket() as closed:
    closed.bind(('127.0.0.1', 0))
    url = f'http://127.0.0.1:{closed.getsockname()[1]}/weights.pth'
  entry = dataclasses.replace(entry, url=url)
  path = download.by_hand(entry, tmp_path)
  with pytest.raises(ValueError, match=r'Connection refused') as caught:
    download.fetch(entry, tmp_path)
  assert str(caught.value).endswith(f'get {url} elsewhere and put it at {path}')
  path.write_bytes(DATA)
  assert download.fetch(entry, tmp_path) == path


def test_a_host_that_is_not_found_is_offline_too(entry, tmp_path, monkeypatch):
  def unknown(*_, **__):
    raise socket.gaierror(-2, 'Name or service not known')

  monkeypatch.setattr(socket, 'getaddrinfo', unknown)
  with pytest.raises(ValueError, match=r'Name or service not kno.*put it at'):
    download.fetch(entry, tmp_path)


def test_a_wrong_file_put_by_hand_is_refused_and_left(entry, tmp_path):
  path = download.by_hand(entry, tmp_path)
  path.parent.mkdir(parents=True)
  path.write_bytes(b'something else')
  with pytest.raises(ValueError, match=f'{path} is not some_weights: its sha'):
    download.fetch(entry, tmp_path)
  assert path.read_bytes() == b'something else'


def test_two_at_once_load_one_file_once(server, entry, tmp_path):
  start, found = threading.Barrier(4), []

  def fetch():
    start.wait()
    found.append(download.fetch(entry, tmp_path).read_bytes() == DATA)

  threads = [threading.Thread(target=fetch) for _ in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert found == [True] * 4
  assert server.asked == [None]


def test_a_cache_that_cannot_be_written_is_named(entry, tmp_path):
  (tmp_path / 'file').write_text('no directory')
  with pytest.raises(ValueError, match=r'file.* cannot be writt.*VIVIT_MAE_C'):
    download.fetch(entry, tmp_path / 'file')


def test_the_default_cache_is_the_users(entry, tmp_path, monkeypatch):
  end = 'weights/some_weights/weights.pth'
  monkeypatch.setenv('VIVIT_MAE_CACHE', str(tmp_path / 'chosen'))
  assert download.by_hand(entry) == tmp_path / 'chosen' / end
  monkeypatch.delenv('VIVIT_MAE_CACHE')
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'xdg'))
  assert download.by_hand(entry) == tmp_path / 'xdg' / 'vivit_mae' / end
  monkeypatch.delenv('XDG_CACHE_HOME')
  monkeypatch.setenv('HOME', str(tmp_path))
  expected = tmp_path / '.cache' / 'vivit_mae' / end
  assert download.by_hand(entry) == expected


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
  """An empty cache of the hub's, and no way to the hub."""
  path = tmp_path / 'hub'
  monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(path))
  monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
  return path


def test_a_file_of_the_hub_is_downloaded_by_the_hub(
  entry, tmp_path, hub_cache, monkeypatch
):
  source = tmp_path / 'from_the_hub'
  source.write_bytes(DATA)
  asked = []

  def hf_hub_download(*args):
    asked.append(args)
    return str(source)

  monkeypatch.setattr(huggingface_hub, 'hf_hub_download', hf_hub_download)
  assert download.fetch(on_hub(entry), tmp_path) == source
  assert asked == [('someone/some-weights', 'sub/weights.bin')]
  source.write_bytes(b'changed')
  with pytest.raises(ValueError, match='from_the_hub is not some_weights'):
    download.fetch(on_hub(entry), tmp_path)


def test_what_the_hub_has_cached_is_not_asked_for(entry, tmp_path, hub_cache):
  repository = hub_cache / 'models--someone--some-weights'
  (repository / 'refs').mkdir(parents=True)
  (repository / 'refs' / 'main').write_text('f' * 40)
  path = repository / 'snapshots' / ('f' * 40) / 'sub' / 'weights.bin'
  path.parent.mkdir(parents=True)
  path.write_bytes(DATA)
  assert download.fetch(on_hub(entry), tmp_path) == path


def test_without_the_hub_a_file_put_by_hand_is_found(
  entry, tmp_path, hub_cache
):
  hub = on_hub(entry)
  path = tmp_path / 'weights' / 'some_weights' / 'weights.bin'
  with pytest.raises(ValueError, match='could not be downloaded') as caught:
    download.fetch(hub, tmp_path)
  assert isinstance(caught.value.__cause__, errors.LocalEntryNotFoundError)
  assert str(caught.value).endswith(
    'get https://huggingface.co/someone/some-weights/resolve/main/sub/'
    f'weights.bin elsewhere and put it at {path}'
  )
  path.parent.mkdir(parents=True)
  path.write_bytes(DATA)
  assert download.fetch(hub, tmp_path) == path


@pytest.mark.parametrize(
  'error',
  [
    errors.OfflineModeIsEnabled('offline'),
    errors.LocalEntryNotFoundError('not here'),
    errors.XetDownloadError('cut'),
    OSError('reset'),
  ],
)
def test_whatever_the_hub_raises_becomes_one_sentence(
  entry, tmp_path, hub_cache, monkeypatch, error
):
  def fails(*_):
    raise error

  monkeypatch.setattr(huggingface_hub, 'hf_hub_download', fails)
  with pytest.raises(ValueError, match=rf'\({error}\)\. Try again.*put it at'):
    download.fetch(on_hub(entry), tmp_path)


def test_a_licence_is_noted_once(entry, caplog, monkeypatch):
  monkeypatch.setattr(download, '_noted', set())
  with caplog.at_level(logging.WARNING, 'vivit_mae'):
    for _ in range(2):
      download.note_licence(entry)
      download.note_licence(dataclasses.replace(entry, name='other'))
    free = dataclasses.replace(entry, name='free', non_commercial=False)
    download.note_licence(free)
  assert [record.getMessage() for record in caplog.records] == [
    f'{name}: these weights are not for commercial use, licence CC-BY-NC-4.0.'
    for name in ('some_weights', 'other')
  ]
