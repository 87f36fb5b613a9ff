"""Makes `data/*.pt` with torch itself, which no test needs.

python3 -m venv torch && torch/bin/pip install torch==2.13.0 numpy
torch/bin/python tests/convert/make_torch_files.py
"""
# pyright: reportMissingImports=false

import argparse
import pathlib

import numpy as np
import torch

_OUT = pathlib.Path(__file__).parent / 'data'


def state_dict() -> dict[str, torch.Tensor]:
  """The tensors that `test_torch_file.py` knows by heart."""
  linear = torch.nn.Linear(3, 2)
  with torch.no_grad():
    linear.weight.copy_(torch.arange(6.0).reshape(2, 3))
    linear.bias.copy_(torch.tensor([0.5, -0.5]))
  table = torch.arange(24.0).reshape(4, 6)
  states = linear.state_dict()
  states['half'] = torch.tensor([1.5, -2.0]).half()
  states['brain'] = torch.tensor([1.5, -2.0]).bfloat16()
  states['double'] = torch.tensor(0.1, dtype=torch.float64)
  states['count'] = torch.tensor(7)
  states['flag'] = torch.tensor([True, False])
  states['transposed'] = table.T
  states['window'] = table[1:3, 1::2]
  states['parameter'] = torch.nn.Parameter(torch.ones(2))
  states['unsigned'] = torch.tensor([1, 65535], dtype=torch.uint16)
  states['empty'] = torch.zeros(0, 3)
  return states


def checkpoint() -> dict[str, object]:
  """What a training program saves around it."""
  model = torch.nn.Linear(2, 2)
  optimizer = torch.optim.AdamW(model.parameters())
  model(torch.ones(1, 2)).sum().backward()
  optimizer.step()
  args = argparse.Namespace(
    lr=1e-3,
    tubelet=(2, 16, 16),
    device=torch.device('cuda:0'),
    dtype=torch.float16,
    output=pathlib.PosixPath('out'),
    best=np.float64(0.5),
    classes={1, 2},
  )
  return {
    'model': state_dict(),
    'optimizer': optimizer.state_dict(),
    'scaler': torch.amp.GradScaler('cpu').state_dict(),
    'args': args,
    'epoch': 3,
    'shape': torch.Size([1, 2]),
    'mean': np.arange(3, dtype=np.float32),
  }


def main() -> None:
  _OUT.mkdir(exist_ok=True)
  torch.manual_seed(0)
  torch.save(checkpoint(), _OUT / 'zip.pt')
  torch.save(
    checkpoint(), _OUT / 'legacy.pt', _use_new_zipfile_serialization=False
  )
  torch.save(
    {'module': state_dict(), 'sparse_tensor_module_names': set()},
    _OUT / 'protocol_4.pt',
    pickle_protocol=4,
  )


if __name__ == '__main__':
  main()
