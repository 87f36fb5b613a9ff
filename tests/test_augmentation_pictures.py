"""The picture of the augmentations can be drawn anew."""

import pathlib
import runpy

import numpy as np
from PIL import Image


def test_picture(tmp_path):
  docs = pathlib.Path(__file__).parents[1] / 'docs'
  script = runpy.run_path(str(docs / 'make_augmentation_pictures.py'))
  script['main'](tmp_path / 'out.png')
  with Image.open(tmp_path / 'out.png') as new:
    with Image.open(docs / 'images' / 'augmentations.png') as kept:
      assert new.size == kept.size
    pixels = np.asarray(new)
  # Nine rows of frames, each unlike the first one.
  frames = [pixels[4 + 132 * k :][:128, 190:].astype(int) for k in range(9)]
  for row in frames[1:]:
    assert np.abs(row - frames[0]).mean() > 2
