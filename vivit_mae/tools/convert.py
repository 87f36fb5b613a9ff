"""Weights from one format to another, with a table of what became of each.

python -m vivit_mae.tools.convert vit_b.pth vit_b
python -m vivit_mae.tools.convert runs/my_videos my_videos_hf --format=hf
"""

import ast
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from vivit_mae import loaded as loaded_lib
from vivit_mae import loading
from vivit_mae.convert import class_names, export, ours
from vivit_mae.tools import arguments

_OURS = 'vivit_mae'
_FORMATS = (_OURS, *export.FORMATS)
_FIELD = '--model.'


def _build_parser() -> arguments.Parser:
  parser = arguments.Parser(
    prog='python -m vivit_mae.tools.convert',
    description=(
      'Reads weights of any known format, prints what became of each tensor, '
      'and writes them as a folder.'
    ),
    epilog=(
      f'{_FIELD}field=value gives a field of the model that the file does not '
      f'tell, or changes one: {_FIELD}heads=6, {_FIELD}num_frames=32.'
    ),
  )
  add = parser.add_argument
  add(
    'source',
    help='a workdir, a file or folder of weights, or a name of the model zoo',
  )
  add('destination', help='the folder to write')
  add(
    '--format',
    choices=_FORMATS,
    help=(
      f'what to write: {_OURS} (model.safetensors under the names of this '
      'library), hf (for from_pretrained of transformers) or videomae '
      f"(the names of the authors' repository); default: {_OURS}, and hf for "
      'a workdir'
    ),
  )
  add(
    '--partial',
    action='store_true',
    help='take what fits where tensors are unknown, missing or misshapen',
  )
  add(
    '--class_names',
    choices=class_names.DATASETS,
    help='whose classes the head tells apart, where the weights do not say',
  )
  add('--overwrite', action='store_true', help='replace files that are there')
  return parser


def convert(
  source: str,
  destination: str,
  *,
  format: str | None = None,
  partial: bool = False,
  class_names: str | None = None,
  overwrite: bool = False,
  fields: dict[str, Any] | None = None,
) -> loaded_lib.Loaded:
  """Converts weights; the arguments are those of the command.

  Args:
    source: A workdir, a file or folder of weights, or a name of the zoo.
    destination: The folder to write.
    format: 'vivit_mae', 'hf' or 'videomae'; None for the first, or for 'hf' of
      a workdir.
    partial: See `vivit_mae.load`.
    class_names: Likewise.
    overwrite: Replaces files that are there.
    fields: Fields of the model, see `vivit_mae.load`.

  Returns:
    What was loaded and written.

  Raises:
    ValueError: See `vivit_mae.load` and `convert.export.export`.
  """
  loaded = loading.load(
    source, partial=partial, class_names=class_names, **(fields or {})
  )
  info, names = loaded.info, loaded.info.class_names
  if format is None:
    format = _OURS if info.coverage else 'hf'
  if format == _OURS:
    ours.write(
      destination,
      loaded.params,
      info.description,
      class_names=names,
      stride=info.stride,
      overwrite=overwrite,
    )
  else:
    export.export(
      loaded.params,
      loaded.model,
      destination,
      format=format,
      class_names=None if isinstance(names, Mapping) else names,
      preprocess={'mean': info.mean, 'std': info.std},
      target_normalise=info.description.target.get('normalise', 'channel'),
      overwrite=overwrite,
    )
  return loaded


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command.

  Args:
    argv: Arguments; those of the process if None.

  Returns:
    The exit status.
  """
  words = list(sys.argv[1:] if argv is None else argv)
  given = [word for word in words if word.startswith(_FIELD)]
  rest = [word for word in words if not word.startswith(_FIELD)]
  options = vars(_build_parser().parse_args(rest))
  try:
    loaded = convert(**options, fields=dict(map(_field, given)))
  except ValueError as error:
    print(f'error: {error}', file=sys.stderr)
    return 1
  info = loaded.info
  print(f'{info.source}: {info.kind}')
  if info.coverage is not None:
    print(info.coverage.table())
    print(info.coverage.summary)
  for note in info.description.notes:
    print(f'note: {note}')
  if info.licence:
    print(f'licence of the weights: {info.licence}')
  print(f'written to {options["destination"]}')
  return 0


def _field(word: str) -> tuple[str, Any]:
  """`--model.heads=6` -> ('heads', 6)."""
  name, equals, text = word.removeprefix(_FIELD).partition('=')
  if not equals:
    raise ValueError(f'{word} has no value: write {_FIELD}{name}=VALUE.')
  try:
    return name, ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return name, text


if __name__ == '__main__':
  sys.exit(main())
