"""One pretraining step (forward, backward, AdamW): ours beside transformers.

  pip install -e '.[benchmark]'
  python benchmarks/train_step.py --size=S --batch=4
  python benchmarks/train_step.py --size=B --batch=64 --device=gpu

Both sides hold the same model (VideoMAE V1, tubelets 2x16x16, 16 frames of
224x224), the same tube masks at 90 %, the same batch and number of threads,
and live in processes of their own that step in turn, so that a machine whose
speed drifts slows both; the medians and the median of the pairwise ratios are
printed. The peer is handed float pixels that are normalised already, ours
uint8 that it normalises inside the step; neither reports norms. On a GPU the
peers also run in bfloat16 autocast and under torch.compile; the fastest of them
counts.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time

import numpy as np

# Seconds for the threads of one to fall asleep before the other's step.
_PAUSE = 0.5
_PEERS = {
  'cpu': ('transformers sdpa',),
  'gpu': (
    'transformers sdpa',
    'transformers sdpa bf16',
    'transformers sdpa bf16 compile',
  ),
}
_OURS = {'cpu': ('ours',), 'gpu': ('ours', 'ours bf16')}
# Peak dense bfloat16 rate of the GPUs that a run may meet, FLOP/s, from their
# data sheets.
_PEAK = {'H200': 989e12, 'H100': 989e12, 'A100': 312e12}


def main() -> None:
  """Runs the workers in turn and prints the table."""
  parser = argparse.ArgumentParser(description=str(__doc__).split('\n', 1)[0])
  parser.add_argument('--size', default='S', choices=['Ti', 'S', 'B', 'L', 'H'])
  parser.add_argument('--batch', type=int, default=4)
  parser.add_argument('--device', default='cpu', choices=['cpu', 'gpu'])
  parser.add_argument('--steps', type=int, default=10)
  parser.add_argument('--warmup', type=int, default=2)
  parser.add_argument('--threads', type=int, default=os.cpu_count())
  parser.add_argument('--worker', default='', help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.worker:
    _serve(args)
    return
  names = _OURS[args.device] + _PEERS[args.device]
  workers = {name: _Worker(name, args) for name in names}
  times = {name: [] for name in names}
  for step in range(args.warmup + args.steps):
    for name, worker in workers.items():
      time.sleep(_PAUSE)
      answer = worker.step()
      if step >= args.warmup:
        times[name].append(answer['seconds'])
  _print_table(args, workers, times)
  for worker in workers.values():
    worker.close()


class _Worker:
  """A process that makes one step each time it is asked."""

  def __init__(self, name: str, args: argparse.Namespace):
    threads = str(args.threads)
    environment = dict(
      os.environ, OMP_NUM_THREADS=threads, MKL_NUM_THREADS=threads
    )
    if args.device == 'cpu':
      environment['JAX_PLATFORMS'] = 'cpu'
    else:
      # The workers share the card: neither may take all of its memory.
      environment['XLA_PYTHON_CLIENT_PREALLOCATE'] = 'false'
    self._process = subprocess.Popen(
        [sys.executable, __file__, f'--worker={name}', f'--size={args.size}',
         f'--batch={args.batch}', f'--device={args.device}',
         f'--threads={threads}'],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )  # fmt: skip
    self.about = self._read()
    print(f'{name}: ready', file=sys.stderr)

  def step(self) -> dict:
    assert self._process.stdin is not None
    self._process.stdin.write('step\n')
    self._process.stdin.flush()
    return self._read()

  def close(self) -> None:
    assert self._process.stdin is not None
    self._process.stdin.close()
    self._process.wait()

  def _read(self) -> dict:
    assert self._process.stdout is not None
    line = self._process.stdout.readline()
    if not line:
      raise SystemExit('A worker ended early; its message stands above.')
    return json.loads(line)


def _print_table(args, workers, times) -> None:
  """Medians of the step, and ours over each peer pair by pair."""
  about = workers['ours'].about
  print(
    f'VideoMAE-{args.size}, 16x224x224, tube .9, batch {args.batch},'
    f' {args.threads} threads, {about["device"]};'
    f' {args.steps} steps each, in turn'
  )
  formula, compiled = about['formula_flops'], about['compiled_flops']
  print(
    f'forward GFLOPs a clip: {formula / 1e9:.2f} by formula,'
    f' {compiled / 1e9:.2f} counted by XLA'
  )
  best_ours = min(
    (n for n in times if n.startswith('ours')),
    key=lambda n: statistics.median(times[n]),
  )
  print(f'{"":34}{"ms/step":>9}{"clips/s":>9}{"TFLOP/s":>9}{"MFU":>7}'
        f'{"ratio to " + best_ours:>20}')  # fmt: skip
  peak = next((v for k, v in _PEAK.items() if k in about['device']), None)
  for name, seconds in times.items():
    median = statistics.median(seconds)
    rate = 3 * formula * args.batch / median
    mfu = f'{rate / peak:.1%}' if peak else '-'
    pairs = zip(seconds, times[best_ours], strict=True)
    ratio = statistics.median(a / b for a, b in pairs)
    print(f'{name:34}{1e3 * median:9.1f}{args.batch / median:9.2f}'
          f'{rate / 1e12:9.3f}{mfu:>7}{ratio:>20.2f}')  # fmt: skip


def _serve(args: argparse.Namespace) -> None:
  """A worker: builds its side, then steps at each line on standard input."""
  make = _make_ours if args.worker.startswith('ours') else _make_peer
  step, about = make(args)
  answers = os.fdopen(os.dup(1), 'w')
  os.dup2(2, 1)
  print(json.dumps(about), file=answers, flush=True)
  for _ in sys.stdin:
    start = time.perf_counter()
    loss = step()
    seconds = time.perf_counter() - start
    print(json.dumps({'seconds': seconds, 'loss': loss}), file=answers,
          flush=True)  # fmt: skip


def _clips(batch: int) -> np.ndarray:
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, (batch, 16, 224, 224, 3), np.uint8)


def _make_ours(args: argparse.Namespace):
  """The library's own jitted update."""
  import jax

  from vivit_mae import config as config_lib
  from vivit_mae import tasks
  from vivit_mae.training import memory, sharding, state
  from vivit_mae.training import optimizer as optimizer_lib

  memory.keep_freed()  # as `train_and_evaluate` does
  config = config_lib.defaults('mae')
  config.model.variant = f'{args.size}/16x2'
  config.model.dtype = 'bfloat16' if 'bf16' in args.worker else 'float32'
  config.optimizer.warmup_steps = 0
  task = tasks.build(config)
  optimizer, schedule = optimizer_lib.build(
    config.optimizer,
    batch_size=args.batch,
    repeats=1,
    total_steps=1000,
    steps_per_epoch=1000,
  )
  mesh = sharding.make_mesh()
  _, create = state.build(
    task.init, optimizer, seed=0, mesh=mesh, fsdp_min_bytes=2**62
  )
  update = jax.jit(
    state.make_update(
      task.loss, optimizer, schedule, seed=0, accum_steps=1, norms=False
    ),
    donate_argnums=0,
  )
  clips = {'video': _clips(args.batch), 'valid': np.ones(args.batch, bool)}
  batch = sharding.put_batch(clips, sharding.batch_sharding(mesh))
  current = create()
  compiled = update.lower(current, batch).compile()

  def step() -> float:
    nonlocal current
    current, report = compiled(current, batch)
    return float(report['loss'])

  about = {
    'device': jax.devices()[0].device_kind,
    'formula_flops': task.flops_per_clip(),
    'compiled_flops': _count(task) if args.worker == 'ours' else 0,
  }
  return step, about


def _count(task) -> float:
  """XLA's own count of one clip's forward pass, without scans or blocks."""
  import jax

  plain = dataclasses.replace(
    task, model=task.model.clone(attention='xla', scan=False)
  )
  model = plain.model
  video = jax.ShapeDtypeStruct(
    (1, model.num_frames, *model.image_size, model.channels), 'uint8'
  )
  batch = {'video': video, 'valid': jax.ShapeDtypeStruct((1,), 'bool')}
  variables = jax.eval_shape(plain.init, jax.random.key(0))
  keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
  compiled = jax.jit(plain.loss).lower(variables, batch, keys).compile()
  analysis = compiled.cost_analysis()
  return analysis['flops'] if analysis else float('nan')


def _make_peer(args: argparse.Namespace):
  """The step of transformers' VideoMAEForPreTraining under torch."""
  import torch
  import transformers

  from vivit_mae.models import variants

  torch.manual_seed(0)
  torch.set_num_threads(args.threads)
  device = 'cuda' if args.device == 'gpu' else 'cpu'
  ours = variants.build(f'{args.size}/16x2')
  config = transformers.VideoMAEConfig(
    hidden_size=ours.width,
    num_hidden_layers=ours.depth,
    num_attention_heads=ours.heads,
    intermediate_size=ours.mlp_dim,
    decoder_hidden_size=ours.decoder_width,
    decoder_num_hidden_layers=ours.decoder_depth,
    decoder_num_attention_heads=ours.decoder_heads,
    decoder_intermediate_size=ours.decoder_mlp_dim,
    layer_norm_eps=1e-6,
    use_mean_pooling=False,  # with a final norm in the encoder, as VideoMAE
    attn_implementation='sdpa',
  )
  model = transformers.VideoMAEForPreTraining(config).to(device).train()
  optimizer = torch.optim.AdamW(
      model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05,
      fused=True,
  )  # fmt: skip
  forward = torch.compile(model) if 'compile' in args.worker else model
  mean = torch.tensor([0.485, 0.456, 0.406])
  std = torch.tensor([0.229, 0.224, 0.225])
  unit = torch.from_numpy(_clips(args.batch)).float() / 255
  video = ((unit - mean) / std).permute(0, 1, 4, 2, 3).contiguous()
  video = video.to(device)
  rng = np.random.default_rng(0)
  hidden = np.stack(
    [np.tile(rng.permutation(196) < 176, 8) for _ in range(args.batch)]
  )
  mask = torch.from_numpy(hidden).to(device)
  half = 'bf16' in args.worker

  def step() -> float:
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(device, torch.bfloat16, enabled=half):
      loss = forward(video, bool_masked_pos=mask).loss
    loss.backward()
    optimizer.step()
    return loss.item()

  return step, {'device': device}


if __name__ == '__main__':
  main()
