"""Writes videomae_golden.npz: a tiny VideoMAE of `transformers` and its output.

Needs torch and transformers >= 5, which the tests do not:

  python tests/data/make_videomae_golden.py
"""

# torch and transformers are no part of the test installation.
# pyright: reportMissingImports=false

import pathlib

import numpy as np
import torch
import transformers

_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_STD = np.array([0.229, 0.224, 0.225], np.float32)
_FRAMES, _SIZE, _ROWS = 4, 24, 2


def main() -> None:
  torch.manual_seed(0)
  rng = np.random.default_rng(0)
  config = transformers.VideoMAEConfig(
    image_size=_SIZE,
    patch_size=8,
    num_frames=_FRAMES,
    tubelet_size=2,
    hidden_size=24,
    num_hidden_layers=3,
    num_attention_heads=3,
    intermediate_size=48,
    decoder_hidden_size=16,
    decoder_num_hidden_layers=2,
    decoder_num_attention_heads=2,
    decoder_intermediate_size=32,
    layer_norm_eps=1e-6,
    norm_pix_loss=True,
    use_mean_pooling=False,  # Otherwise the encoder has no final norm.
  )
  model = transformers.VideoMAEForPreTraining(config).eval()
  model.decoder.norm.eps = 1e-6
  with torch.no_grad():
    for name, weight in model.named_parameters():
      # Away from zeros and ones, so that every tensor shows in the output.
      offset = 1.0 if 'norm' in name and name.endswith('weight') else 0.0
      weight.copy_(offset + 0.3 * torch.randn_like(weight))
  eps = {m.eps for m in model.modules() if isinstance(m, torch.nn.LayerNorm)}
  assert eps == {1e-6}, eps

  unit = rng.random((_ROWS, _FRAMES, _SIZE, _SIZE, 3), np.float32)
  video = (unit - _MEAN) / _STD
  places = (_SIZE // 8) ** 2
  frame = np.stack(
    [rng.permutation(np.arange(places) < 6) for _ in range(_ROWS)]
  )
  mask = np.tile(frame, (1, _FRAMES // 2))
  with torch.no_grad():
    output = model(
      torch.from_numpy(video.transpose(0, 1, 4, 2, 3).copy()),
      bool_masked_pos=torch.from_numpy(mask),
    )
  path = pathlib.Path(__file__).with_name('videomae_golden.npz')
  np.savez_compressed(
    path,
    unit=unit,
    mask=mask,
    logits=output.logits.numpy(),
    loss=output.loss.numpy(),
    **{
      f'weights/{name}': weight.numpy()
      for name, weight in model.state_dict().items()
    },
  )
  print(path, path.stat().st_size, 'bytes, loss', float(output.loss))
  for name, weight in model.state_dict().items():
    print(name, tuple(weight.shape))


if __name__ == '__main__':
  main()
