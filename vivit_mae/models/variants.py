"""Named sizes: `variants.build('B/16x2')`."""

import dataclasses
import difflib
import re
from typing import Any

from vivit_mae.models import transformer, tubelets, video_mae


@dataclasses.dataclass(frozen=True)
class Size:
  """Dimensions of an encoder or a decoder."""

  width: int
  depth: int
  heads: int
  mlp_dim: int


# S to H: VideoMAE; g: VideoMAE V2; Ti: DeiT.
SIZES = {
  'Ti': Size(192, 12, 3, 768),
  'S': Size(384, 12, 6, 1536),
  'B': Size(768, 12, 12, 3072),
  'L': Size(1024, 24, 16, 4096),
  'H': Size(1280, 32, 16, 5120),
  'g': Size(1408, 40, 16, 6144),
}

# The published decoders, of VideoMAE (depths of its scripts) and VideoMAE V2.
# Ti in both and g in the first were never published: they continue the rule of
# the first, half the encoder's width.
DECODERS = {
  'videomae': {
    'Ti': Size(96, 4, 3, 384),
    'S': Size(192, 4, 3, 768),
    'B': Size(384, 4, 6, 1536),
    'L': Size(512, 12, 8, 2048),
    'H': Size(640, 12, 8, 2560),
    'g': Size(704, 12, 8, 3072),
  },
  'videomae_v2': {
    'Ti': Size(96, 4, 3, 384),
    'S': Size(192, 4, 3, 768),
    'B': Size(384, 4, 6, 1536),
    'L': Size(512, 4, 8, 2048),
    'H': Size(512, 4, 8, 2048),
    'g': Size(512, 4, 8, 2234),
  },
}

_VARIANT = re.compile(r'(?P<size>[A-Za-z]+)/(?P<patch>\d+)x(?P<frames>\d+)')


def parse(variant: str) -> tuple[str, tubelets.Tubelet]:
  """Splits the name of a variant.

  Args:
    variant: size, patch size in pixels and frames of a tubelet: 'B/16x2'.

  Returns:
    The name of the size, and frames, height and width of a tubelet.

  Raises:
    ValueError: the name has another form, or the size is unknown.
  """
  match = _VARIANT.fullmatch(variant)
  if match is None:
    raise ValueError(
      f'variant {variant!r} does not read <size>/<patch>x<frames>, such as '
      f"'B/16x2'; the sizes are {tuple(SIZES)}."
    )
  transformer.check_choice(
    f'size of the variant {variant!r},', match['size'], SIZES
  )
  patch = int(match['patch'])
  return match['size'], (int(match['frames']), patch, patch)


def build(
  variant: str, *, decoder: str = 'videomae', **overrides: Any
) -> video_mae.VideoMAE:
  """Builds a masked autoencoder of a named size.

  Args:
    variant: size, patch size and tubelet length, see `parse`.
    decoder: whose decoder, one of `DECODERS`.
    **overrides: fields of `VideoMAE` that differ from the variant's, or from
      16 RGB frames of 224 x 224 pixels. None leaves a field as it is.

  Returns:
    The model.

  Raises:
    ValueError: an unknown name, or fields that do not fit together.
  """
  size_name, tubelet = parse(variant)
  transformer.check_choice('decoder', decoder, DECODERS)
  size, decoder_size = SIZES[size_name], DECODERS[decoder][size_name]
  fields = {
    'image_size': (224, 224),
    'num_frames': 16,
    'tubelet': tubelet,
    'channels': 3,
    **dataclasses.asdict(size),
    **{
      f'decoder_{name}': value
      for name, value in dataclasses.asdict(decoder_size).items()
    },
  }
  known = [
    field.name
    for field in dataclasses.fields(video_mae.VideoMAE)
    if field.name not in ('parent', 'name')
  ]
  for name, value in overrides.items():
    if name not in known:
      nearest = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
      raise ValueError(
        f'VideoMAE has no field {name!r}; did you mean {nearest!r}?'
      )
    if value is not None:
      fields[name] = tuple(value) if isinstance(value, list) else value
  model = video_mae.VideoMAE(**fields)
  video_mae.check(model)
  return model
