"""Does a masked autoencoder predict motion, or does a still picture do as well?

  python benchmarks/still_pictures.py RUN VIDEOS.csv

Held-out videos are masked and filled in by a run of pretraining (RUN is its
workdir) and, beside it, by what is visible of the same place at other times,
averaged: all there is to know where nothing moves. Mean squared errors over
masked tubelets whose place is visible at some time, by how much moves there.
The csv lists path, label and split, as those of the experiments here do; the
rows of 'validation' are taken.
"""

import argparse
from typing import Any

import experiments
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

import vivit_mae
from vivit_mae import config as config_lib
from vivit_mae import masking
from vivit_mae.data import datasets, pipeline
from vivit_mae.tasks import mae
from vivit_mae.training import checkpoints

# Shares of the tubelets, in the order of how much moves.
_PARTS = {
  'all': (0.0, 1.0),
  'stillest half': (0.0, 0.5),
  'most moving tenth': (0.9, 1.0),
}


def main() -> None:
  """Prints the table."""
  parser = argparse.ArgumentParser(description=str(__doc__).split('\n', 1)[0])
  parser.add_argument('run')
  parser.add_argument('videos')
  parser.add_argument('--num_videos', type=int, default=200)
  args = parser.parse_args()
  loaded = vivit_mae.load(args.run)
  task = loaded.info.task
  if not isinstance(task, mae.MaskedAutoencoding):
    raise SystemExit(f'{args.run} is {loaded.info.kind}, no pretraining.')
  parts = [
    _errors(task, loaded.params, video)
    for video in _clips(args.run, args.videos, task, args.num_videos)
  ]
  model, still, motion = (
    np.concatenate(values) for values in zip(*parts, strict=True)
  )
  rows = []
  for name, quantiles in _PARTS.items():
    low, high = np.quantile(motion, quantiles)
    taken = (motion >= low) & (motion <= high)
    ours, theirs = model[taken].mean(), still[taken].mean()
    rows.append([name, f'{ours:.5f}', f'{theirs:.5f}', f'{ours / theirs:.2f}'])
  print(experiments.table(['tubelets', 'model', 'still picture', ''], rows))


def _clips(run: str, videos: str, task: mae.MaskedAutoencoding, count: int):
  """The middle clips of held-out videos, one at a time."""
  saved = checkpoints.saved_config(run, 'RUN')
  assert saved is not None
  data = config_lib.from_saved(saved).data.to_dict()
  source = datasets.open_source(source='csv', path=videos, split='validation')
  batches = pipeline.eval_iterator(
    source,
    data,
    num_frames=task.model.num_frames,
    image_size=task.model.image_size,
    batch_size=1,
  )
  for _, batch in zip(range(min(count, len(source))), batches, strict=False):
    yield batch['video']


def _errors(
  task: mae.MaskedAutoencoding, params: Any, video: Any
) -> tuple[Float[np.ndarray, ' m'], ...]:
  """Errors of the model and of the still picture, and how much moves."""
  mask = task.sample_mask(jax.random.key(int(video.sum()))[None])
  unit, inputs = task.inputs(jnp.asarray(video))
  prediction = task.predict(
    {'params': params}, inputs, mask, deterministic=True
  )
  pixels = np.asarray(task.target.pixels(unit))[0]
  still, known = _still(pixels, mask, task.model.grid[0])
  motion = pixels.reshape(task.model.grid[0], -1, pixels.shape[-1]).std(0)
  motion = np.tile(motion.mean(-1), task.model.grid[0])
  masked = np.asarray(mask.masked)[0]
  ours = np.square(np.asarray(prediction)[0] - pixels[masked]).mean(-1)
  theirs = np.square(still[masked] - pixels[masked]).mean(-1)
  kept = known[masked]
  return ours[kept], theirs[kept], motion[masked][kept]


def _still(
  pixels: Float[np.ndarray, 'n p'], mask: masking.TokenMask, frames: int
) -> tuple[Float[np.ndarray, 'n p'], Any]:
  """Each place's visible pixels averaged over time, and where there are any."""
  visible = np.zeros(len(pixels), bool)
  visible[np.asarray(mask.visible)[0]] = True
  seen = visible.reshape(frames, -1)
  sums = (pixels * visible[:, None]).reshape(frames, -1, pixels.shape[-1])
  counts = seen.sum(0)
  mean = sums.sum(0) / np.maximum(counts, 1)[:, None]
  return np.tile(mean, (frames, 1)), np.tile(counts > 0, frames)


if __name__ == '__main__':
  main()
