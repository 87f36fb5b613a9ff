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
    f'{_size(prepared.num_bytes)}, in {prepared.path}'
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
  after = _size(loss.bytes_after)
  if loss.bytes_before is None:
    text = f'Encoded anew, without sound: {after}'
  else:
    before = _size(loss.bytes_before)
    share = loss.bytes_after / loss.bytes_before
    text = (
      f'Encoded anew, without sound: {before} before, {after} after '
      f'({share:.0%})'
    )
  mean, least = loss.psnr()
  if math.isinf(mean):
    return f'{text}. Luma is as in the scaled source.'
  return (
    f'{text}. Luma PSNR against the scaled source: {mean:.1f} dB, in the worst '
    f'frame {least:.1f} dB ({loss.worst_id}).'
  )


def _size(num_bytes: int) -> str:
  if num_bytes < 1e6:
    return f'{num_bytes / 1e3:.1f} kB'
  return f'{num_bytes / 1e6:.1f} MB'
