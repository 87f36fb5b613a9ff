"""What transformers makes of an exported model, beside what we make of it.

  pip install -e '.[benchmark]'
  python benchmarks/export_parity.py EXPORTED_DIR

Opens a folder of format 'hf', a masked autoencoder or a classifier, with
`from_pretrained` of transformers and with our own reader, gives both the same
random clips and the same tube mask or labels, and prints both losses. Fails
where they differ by more than 1e-5 of the loss.
"""

import argparse
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers

from vivit_mae import masking, targets
from vivit_mae.convert import files, weights
from vivit_mae.models import vivit

_ROWS = 2
_RATIO = 0.75
_TOLERANCE = 1e-5


def main() -> None:
  """Prints the losses and how far they are apart."""
  parser = argparse.ArgumentParser(description=str(__doc__).split('\n', 1)[0])
  parser.add_argument('folder', help='what convert.export has written')
  parser.add_argument('--seed', type=int, default=0)
  args = parser.parse_args()

  converted = weights.convert(files.read(args.folder))
  model = converted.model
  rng = np.random.default_rng(args.seed)
  shape = (_ROWS, model.num_frames, *model.image_size, 3)
  unit = rng.integers(0, 256, shape, np.uint8) / np.float32(255)
  mean, std = (
    np.float32(converted.description.preprocess[name])
    for name in ('mean', 'std')
  )
  video = (unit - mean) / std
  if isinstance(model, vivit.ViViT):
    labels = rng.integers(0, model.total_classes, _ROWS)
    ours = _our_classification(converted, video, labels)
    theirs = _theirs(
      transformers.AutoModelForVideoClassification,
      args.folder,
      video,
      labels=torch.from_numpy(labels),
    )
  else:
    keys = jax.random.split(jax.random.key(args.seed), _ROWS)
    mask = masking.sample(keys, 'tube', _RATIO, model.grid)
    ours = _our_reconstruction(converted, video, unit, mask)
    hidden = np.ones((_ROWS, int(np.prod(model.grid))), bool)
    np.put_along_axis(hidden, np.asarray(mask.visible), False, axis=1)
    theirs = _theirs(
      transformers.VideoMAEForPreTraining,
      args.folder,
      video,
      bool_masked_pos=torch.from_numpy(hidden),
    )
  difference = abs(ours - theirs) / abs(theirs)
  print(f'{converted.family}; transformers {transformers.__version__}')
  print(f'loss here             {ours:.7f}')
  print(f'loss in transformers  {theirs:.7f}')
  print(f'relative difference   {difference:.1e}')
  if not difference <= _TOLERANCE:
    sys.exit(f'The losses differ by more than {_TOLERANCE}.')


def _our_reconstruction(
  converted: weights.Converted,
  video: np.ndarray,
  unit: np.ndarray,
  mask: masking.TokenMask,
) -> float:
  """The mean squared error of our model on masked tokens."""
  model = converted.model
  target = targets.build(
    tubelet=model.tubelet,
    normalise=converted.description.target['normalise'],
  ).target(jnp.asarray(unit), mask.masked)

  @jax.jit
  def predict(params):
    output: Any = model.apply(
      {'params': params}, video, mask, deterministic=True
    )
    return output.prediction

  return float(jnp.square(predict(converted.params) - target).mean())


def _our_classification(
  converted: weights.Converted, video: np.ndarray, labels: np.ndarray
) -> float:
  """The cross-entropy of our model."""

  @jax.jit
  def classify(params):
    output: Any = converted.model.apply(
      {'params': params}, video, deterministic=True
    )
    return output.logits['label']

  log_probabilities = jax.nn.log_softmax(classify(converted.params))
  return float(-log_probabilities[np.arange(_ROWS), labels].mean())


def _theirs(kind, folder: str, video: np.ndarray, **inputs) -> float:
  """The loss of a model of transformers, all of whose weights are there."""
  model, report = kind.from_pretrained(folder, output_loading_info=True)
  problems = {name: found for name, found in report.items() if found}
  if problems:
    sys.exit(
      f'transformers does not find in {folder} what it needs: {problems}'
    )
  pixels = torch.from_numpy(video.transpose(0, 1, 4, 2, 3).copy())
  with torch.no_grad():
    return float(model.eval()(pixels, **inputs).loss)


if __name__ == '__main__':
  main()
