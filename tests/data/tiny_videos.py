"""Small real videos for tests: each can be told from its pixels."""

import pathlib
from collections.abc import Iterable

import numpy as np

from vivit_mae.data import encode


def frames(number: int, num_frames: int = 12) -> np.ndarray:
  """Frames whose shade grows with time, and whose tint tells the video."""
  rng = np.random.default_rng(number)
  still = rng.integers(0, 128, (8, 10, 3), np.uint8).repeat(4, 0).repeat(4, 1)
  return np.stack([still + np.uint8(8 * (t % 16)) for t in range(num_frames)])


def write(path: pathlib.Path, number: int = 0, num_frames: int = 12) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  encode.write_video(path, frames(number, num_frames), fps=10.0)


def folder(root: pathlib.Path, names: Iterable[str]) -> pathlib.Path:
  """A folder with a different video under each name."""
  for number, name in enumerate(names):
    write(root / name, number)
  return root


def broken(path: pathlib.Path) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(b'this is no video' * 20)
