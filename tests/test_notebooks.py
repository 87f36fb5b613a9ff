import pathlib

import nbclient
import nbformat
import pytest

_ROOT = pathlib.Path(__file__).parents[1]
_TINY = """
STEPS = 4
NUM_VIDEOS = 24
WORKDIR = {workdir!r}
"""


def _read(path):
  return nbformat.read(path, as_version=4)


_NOTEBOOKS = sorted((_ROOT / 'notebooks').glob('*.ipynb'))


@pytest.mark.parametrize('path', _NOTEBOOKS, ids=lambda path: path.stem)
def test_is_stored_without_output(path):
  cells = [c for c in _read(path).cells if c.cell_type == 'code']
  assert cells
  for cell in cells:
    assert not cell.outputs
    assert cell.execution_count is None


@pytest.mark.slow
def test_quickstart_runs_to_its_end(tmp_path, monkeypatch):
  monkeypatch.setenv('VIVIT_MAE_CACHE', str(tmp_path / 'cache'))
  notebook = _read(_ROOT / 'notebooks' / 'quickstart.ipynb')
  parameters = [
    cell
    for cell in notebook.cells
    if 'parameters' in cell.metadata.get('tags', [])
  ]
  assert len(parameters) == 1
  parameters[0].source = _TINY.format(workdir=str(tmp_path / 'run'))
  client = nbclient.NotebookClient(
    notebook,
    timeout=600,
    kernel_name='python3',
    resources={'metadata': {'path': str(_ROOT / 'notebooks')}},
  )
  client.execute()
  outputs = [
    output
    for cell in notebook.cells
    if cell.cell_type == 'code'
    for output in cell.outputs
  ]
  kinds = [kind for output in outputs for kind in output.get('data', {})]
  assert kinds.count('image/gif') == 4
  text = ''.join(
    output.get('text', '') + output.get('data', {}).get('text/plain', '')
    for output in outputs
  )
  assert '(4, 512, 128)' in text
