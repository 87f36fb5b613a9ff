"""Writes torch_golden.npz: what torch's optimisers and schedules give.

Needs torch (2.13), which the tests do not:

  python tests/training/make_torch_golden.py
"""

# torch is no part of the test installation.
# pyright: reportMissingImports=false

import pathlib

import numpy as np
import torch

OUT = pathlib.Path(__file__).parent / 'data' / 'torch_golden.npz'
DEPTH = 12
LAYER_DECAY = 0.75
# Name, shape, layer of a model of 2 blocks, whether it decays.
PARAMS = (
  ('encoder/embedding/kernel', (2, 3), 0, True),
  ('encoder/position_embedding', (2, 3), 0, False),
  ('encoder/block_00/mlp/kernel', (3, 3), 1, True),
  ('encoder/block_00/mlp/bias', (3,), 1, False),
  ('encoder/block_01/mlp/kernel', (3, 2), 2, True),
  ('head/kernel', (3, 4), 3, True),
  ('head/bias', (4,), 3, False),
)
RATES = (0.03, 0.1, 0.02)
WEIGHT_DECAY = 0.3
TOTAL, WARMUP, FINAL = 30, 8, 0.1


def layer_scales() -> np.ndarray:
  """The rates of one group per layer of a ViT, over the last one's."""
  blocks = [torch.nn.Linear(2, 2) for _ in range(DEPTH)]
  layers = [torch.nn.Linear(2, 2), *blocks, torch.nn.Linear(2, 2)]
  groups = []
  for number, layer in enumerate(layers):
    scale = LAYER_DECAY ** (len(layers) - 1 - number)
    groups.append({'params': list(layer.parameters()), 'lr': scale})
  before = [layer.weight.detach().clone() for layer in layers]
  optimizer = torch.optim.SGD(groups, lr=1.0)
  for layer in layers:
    layer.weight.grad = torch.ones_like(layer.weight)
  optimizer.step()
  moved = [
    (b - x.weight).mean().item() for b, x in zip(before, layers, strict=True)
  ]
  return np.array(moved)


def rates_of(total: int, scheduler_of) -> np.ndarray:
  optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
  scheduler = scheduler_of(optimizer)
  rates = []
  for _ in range(total):
    rates.append(scheduler.get_last_lr()[0])
    optimizer.step()
    scheduler.step()
  return np.array(rates)


def schedule(rise: list[float]) -> np.ndarray:
  """A table of TOTAL iterations: the rise, then a cosine from 1 to FINAL."""
  lr = torch.optim.lr_scheduler

  def make(optimizer):
    parts = [
      lr.LambdaLR(optimizer, lambda i: rise[i] if i < WARMUP else 1.0),
      lr.CosineAnnealingLR(optimizer, TOTAL - WARMUP, eta_min=FINAL),
    ]
    return lr.SequentialLR(optimizer, parts, milestones=[WARMUP])

  return rates_of(TOTAL, make)


def steps(
  start: list[np.ndarray], grads: list[list[np.ndarray]], make, **options
) -> list[np.ndarray]:
  """The parameters after each update, one after the other."""
  params = [torch.tensor(value, requires_grad=True) for value in start]
  last = max(layer for _, _, layer, _ in PARAMS)
  groups = [
    {
      'params': [param],
      'scale': LAYER_DECAY ** (last - layer),
      'weight_decay': WEIGHT_DECAY if decays else 0.0,
    }
    for param, (_, _, layer, decays) in zip(params, PARAMS, strict=True)
  ]
  optimizer = make(groups, lr=1.0, **options)
  history = []
  for rate, values in zip(RATES, grads, strict=True):
    for group in optimizer.param_groups:
      group['lr'] = rate * group['scale']
    for param, value in zip(params, values, strict=True):
      param.grad = torch.tensor(value)
    optimizer.step()
    history.append(joined([param.detach().numpy() for param in params]))
  return history


def joined(values: list[np.ndarray]) -> np.ndarray:
  return np.concatenate([value.ravel() for value in values])


def main() -> None:
  rng = np.random.default_rng(0)
  start = [rng.normal(size=shape) for _, shape, _, _ in PARAMS]
  grads = [[rng.normal(size=x.shape) for x in start] for _ in RATES]

  def run(make, **options):
    return steps(start, grads, make, **options)

  ramp = torch.linspace(0, 1, WARMUP, dtype=torch.float64).tolist()
  sgd = torch.optim.SGD
  np.savez(
    OUT,
    torch_version=torch.__version__,
    names=[name for name, _, _, _ in PARAMS],
    shapes=[' '.join(map(str, shape)) for _, shape, _, _ in PARAMS],
    rates=RATES,
    start=joined(start),
    grads=[joined(values) for values in grads],
    layer_scales=layer_scales(),
    schedule_cosine=schedule(ramp),
    schedule_warmup_cosine=schedule([i / WARMUP for i in range(WARMUP)]),
    adamw=run(torch.optim.AdamW, betas=(0.9, 0.95), eps=1e-8),
    sgd=run(sgd, momentum=0.9),
    sgd_nesterov=run(sgd, momentum=0.9, nesterov=True),
  )


if __name__ == '__main__':
  main()
