"""What `dataset prepare` has to say when it is done."""

import collections
import math

from vivit_mae.data.directory import Prepared
from vivit_mae.data.loss import Loss

# Rejected videos on the screen, of each kind; the file has them all.
_SHOWN = 3


def report(prepared: Prepared) -> str:
  """Says what was written, what it lost, and what was left out."""
  counts = ', '.join(f'{k} {v}' for k, v in prepared.counts.items())
  lines = [
    f'{sum(prepared.counts.values())} videos ({counts}), '
    f'{prepared.num_bytes / 1e6:.1f} MB, in {prepared.path}'
  ]
  if prepared.loss is not None:
    lines.append(_loss(prepared.loss))
  if prepared.rejected:
    lines.append(
      f'{len(prepared.rejected)} left out; all are in '
      f'{prepared.path / "rejected.csv"}:'
    )
  kinds = collections.defaultdict(list)
  for rejected in prepared.rejected:
    kinds[rejected.kind].append(rejected.reason)
  for kind, reasons in sorted(kinds.items()):
    lines.append(f'  {kind}: {len(reasons)}')
    lines += [f'    {reason}' for reason in reasons[:_SHOWN]]
  lines.append(
    'Train on it with --config.data.source=tfds '
    f'--config.data.path={prepared.path}'
  )
  return '\n'.join(lines)


def _loss(loss: Loss) -> str:
  after = f'{loss.bytes_after / 1e6:.1f} MB'
  if loss.bytes_before is None:
    size = f'Encoded anew: {after}'
  else:
    size = (
      f'Encoded anew: {loss.bytes_before / 1e6:.1f} MB before, sound '
      f'included, {after} after ({loss.bytes_after / loss.bytes_before:.0%})'
    )
  mean, least = loss.psnr()
  if math.isinf(mean):
    return f'{size}. Luma is the same as in the scaled source.'
  return (
    f'{size}. Luma PSNR against the scaled source: {mean:.1f} dB, in the worst '
    f'frame {least:.1f} dB ({loss.worst_id}).'
  )
