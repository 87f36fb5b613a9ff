"""Writes tests/data/hf: tiny models of `transformers` and what they return.

Each folder holds what `save_pretrained` writes, and golden.npz: inputs and
outputs, and the names of the same weights in a `state_dict`, which are not
those of the file. Needs torch and transformers >= 5.20, which the tests do not:

  python tests/data/make_hf_golden.py
"""

# torch and transformers are no part of the test installation.
# pyright: reportMissingImports=false

import pathlib
from typing import Any

import numpy as np
import torch
import transformers

_FOLDER = pathlib.Path(__file__).with_name('hf')
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_STD = np.array([0.229, 0.224, 0.225], np.float32)
_ROWS, _FRAMES, _SIZE, _PATCH = 2, 4, (8, 12), 4
_ENCODER = {
  'image_size': list(_SIZE),
  'num_frames': _FRAMES,
  'hidden_size': 16,
  'num_hidden_layers': 2,
  'num_attention_heads': 4,
  'intermediate_size': 24,
}
_VIDEOMAE = {
  **_ENCODER,
  'patch_size': _PATCH,
  'tubelet_size': 2,
  'decoder_hidden_size': 12,
  'decoder_num_hidden_layers': 1,
  'decoder_num_attention_heads': 3,
  'decoder_intermediate_size': 20,
}
_LABELS = ('draw', 'fold', 'pour', 'stir', 'turn')


def main() -> None:
  torch.manual_seed(0)
  rng = np.random.default_rng(0)
  video = rng.integers(0, 256, (_ROWS, _FRAMES, *_SIZE, 3), np.uint8)
  unit = video / np.float32(255)
  imagenet = (unit - _MEAN) / _STD
  half = (unit - np.float32(0.5)) / np.float32(0.5)

  config = transformers.VideoMAEConfig(**_VIDEOMAE, use_mean_pooling=False)
  model = _randomised(transformers.VideoMAEForPreTraining(config))
  places = (_SIZE[0] // _PATCH) * (_SIZE[1] // _PATCH)
  frame = np.stack([rng.permutation(places) < 4 for _ in range(_ROWS)])
  mask = np.tile(frame, (1, _FRAMES // 2))
  arguments = {
    'pixel_values': _input(imagenet),
    'bool_masked_pos': torch.from_numpy(mask),
  }
  with torch.no_grad():
    output = model(**arguments)
    model.config.norm_pix_loss = False
    raw = model(**arguments)
    model.config.norm_pix_loss = True
  _save(
    model,
    'videomae_pretraining',
    video=video,
    mask=mask,
    logits=output.logits,
    loss=output.loss,
    loss_of_pixels=raw.loss,
  )

  labels = {
    'id2label': dict(enumerate(_LABELS)),
    'label2id': {name: i for i, name in enumerate(_LABELS)},
  }
  for name, pooled, depth in (
    ('videomae', True, 2),
    ('videomae_first', False, 1),
  ):
    config = transformers.VideoMAEConfig(
      **{**_VIDEOMAE, **labels, 'num_hidden_layers': depth},
      use_mean_pooling=pooled,
    )
    model = _randomised(transformers.VideoMAEForVideoClassification(config))
    with torch.no_grad():
      logits = model(_input(imagenet)).logits
    _save(model, f'{name}_classifier', video=video, logits=logits)

  config = transformers.VivitConfig(
    **_ENCODER, **labels, tubelet_size=[2, _PATCH, _PATCH]
  )
  model = _randomised(transformers.VivitForVideoClassification(config))
  with torch.no_grad():
    logits = model(_input(half)).logits
  _save(model, 'vivit_classifier', video=video, logits=logits)


def _input(video: np.ndarray) -> torch.Tensor:
  return torch.from_numpy(video.transpose(0, 1, 4, 2, 3).copy())


def _randomised(model: torch.nn.Module) -> torch.nn.Module:
  """Away from zeros and ones, so that every tensor shows in the output."""
  with torch.no_grad():
    for name, weight in model.named_parameters():
      offset = 1.0 if 'norm' in name and name.endswith('weight') else 0.0
      weight.copy_(offset + 0.3 * torch.randn_like(weight))
  return model.eval()


def _save(model, name: str, **arrays: torch.Tensor | np.ndarray) -> None:
  folder = _FOLDER / name
  model.save_pretrained(folder)
  contents: dict[str, Any] = {k: np.asarray(v) for k, v in arrays.items()}
  contents['state_dict_names'] = np.array(sorted(model.state_dict()))
  np.savez_compressed(folder / 'golden.npz', **contents)
  size = sum(path.stat().st_size for path in folder.iterdir())
  print(folder, size, 'bytes', sorted(path.name for path in folder.iterdir()))


if __name__ == '__main__':
  main()
