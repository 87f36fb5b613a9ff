"""The code of docs/use_in_your_project.md runs as it stands there."""

import pathlib
import re

DOCS = pathlib.Path(__file__).parents[1] / 'docs'


def test_use_in_your_project_runs():
  text = (DOCS / 'use_in_your_project.md').read_text()
  blocks = re.findall(r'^```python\n(.*?)^```', text, re.DOTALL | re.MULTILINE)
  assert len(blocks) == 5
  scope = {}
  for block in blocks:
    exec(compile(block, 'use_in_your_project.md', 'exec'), scope)
