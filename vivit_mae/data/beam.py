"""Writes shards with Apache Beam: in several processes, or on many machines.

The files are those that `writer.write_dataset` writes by itself.
"""

import contextlib
import dataclasses
import functools
import importlib
import io
from collections.abc import Sequence
from typing import Any

from vivit_mae.data import shards as shards_lib
from vivit_mae.data.listing import Examples
from vivit_mae.data.shards import Recipe, Shard


@dataclasses.dataclass(frozen=True)
class BeamWriter:
  """To be given to `writer.write_dataset` as `write_shards`.

  Attributes:
    runner: Beam's name of what runs it; 'DirectRunner' is this machine.
    options: Beam's own, such as '--direct_num_workers=2'.
    num_threads: Videos opened at the same time for each shard.

  Raises:
    ValueError: Beam is not installed, or it knows no such runner or option.
  """

  runner: str = 'DirectRunner'
  options: Sequence[str] = ()
  num_threads: int = 1

  def __post_init__(self):
    beam = _import_beam()
    try:
      beam.runners.create_runner(self.runner)
    except ImportError as error:
      raise ValueError(f'Beam has no {self.runner} here: {error}') from None
    self._parse_options()

  def __call__(self, shards: Sequence[Shard], recipe: Recipe) -> None:
    """Writes some shards."""
    beam = _import_beam()
    alone = [
      dataclasses.replace(shard, examples=_examples(shard)) for shard in shards
    ]
    write = functools.partial(
      shards_lib.write_shard, recipe=recipe, num_threads=self.num_threads
    )
    with beam.Pipeline(
      runner=self.runner, options=self._parse_options()
    ) as pipeline:
      _ = (
        pipeline
        | 'Shards' >> beam.Create(alone)
        | 'Spread' >> beam.Reshuffle()
        | 'Write' >> beam.Map(write)
      )

  def _parse_options(self) -> Any:
    strange = [option for option in self.options if option[:2] != '--']
    if strange:
      raise ValueError(
        f'{strange[0]!r} is no option of Beam: each begins with --, and a '
        'comma stands between two, as in --direct_num_workers=2,'
        '--direct_running_mode=multi_processing.'
      )
    options = _import_beam().options.pipeline_options
    parsed = options.PipelineOptions(list(self.options))
    said = io.StringIO()
    try:
      with contextlib.redirect_stderr(said):
        known = parsed.get_all_options()
        every = parsed.get_all_options(retain_unknown_options=True)
    except SystemExit:
      raise ValueError(
        f'Beam: {said.getvalue().strip().rpartition("error: ")[2]}.'
      ) from None
    # The service behind another runner may know more than Beam does here.
    unknown = every.keys() - known.keys()
    if unknown and self.runner.lower() == 'directrunner':
      raise ValueError(
        f'The DirectRunner of Beam has no option {", ".join(sorted(unknown))}; '
        'see https://beam.apache.org/documentation/runners/direct/.'
      )
    return parsed


def _examples(shard: Shard) -> Examples:
  """What a worker needs: its own of a list, or what makes them on demand."""
  if isinstance(shard.examples, list | tuple):
    return {i: shard.examples[i] for i in shard.part}
  return shard.examples


def _import_beam() -> Any:
  """Apache Beam, which is not a part of the default installation."""
  try:
    return importlib.import_module('apache_beam')
  except ImportError:
    raise ValueError(
      "Apache Beam is not installed: pip install 'vivit_mae[beam]', or in a "
      "copy of the repository pip install -e '.[beam]'."
    ) from None
