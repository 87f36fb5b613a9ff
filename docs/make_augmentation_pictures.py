"""Draws what the augmentations of fine-tuning do to a clip.

    python docs/make_augmentation_pictures.py

writes docs/images/augmentations.png from a built-in clip, by the functions that
training uses, with VideoMAE's settings; erasing and the two ways of mixing are
shown at chosen draws, because by chance a clip may stay as it is.
"""

import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from vivit_mae import preprocess
from vivit_mae.data import augment, synthetic, transforms

_OUT = pathlib.Path(__file__).parent / 'images' / 'augmentations.png'
_POLICY = 'rand-m7-n4-mstd0.5-inc1'
_SIZE = 128  # pixels of a frame
_FRAMES = 8
_LABELS = 190  # pixels for the names of the rows
_GAP = 4
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Clip = UInt8[np.ndarray, 't h w 3']


def clip(label: int, seed: int) -> Clip:
  """Some frames of a built-in video."""
  frames = synthetic.video_frames(label, np.random.default_rng(seed), size=192)
  return frames[:: len(frames) // _FRAMES][:_FRAMES]


def resized(frames: Clip, box: transforms.Box | None = None) -> Clip:
  """Frames in the size of the picture, cut out of `box`."""
  return np.stack(
    [transforms.crop_and_resize(frame, box, (_SIZE, _SIZE)) for frame in frames]
  )


def on_device(frames: Clip, other: Clip) -> Float[Array, 'b t h w c']:
  """Two clips as the network is fed them."""
  video = preprocess.to_unit(jnp.asarray(np.stack([frames, other])))
  return preprocess.normalise(video, _MEAN, _STD)


def shown(video: Float[Array, 't h w c']) -> Clip:
  """The pixels of what the network is fed."""
  unit = video * jnp.asarray(_STD) + jnp.asarray(_MEAN)
  return np.asarray(jnp.clip(255 * unit + 0.5, 0, 255).astype(jnp.uint8))


def rows() -> list[tuple[str, Clip]]:
  """Each row's name, and its frames."""
  one, other = clip(0, 3), clip(8, 5)
  policy = augment.RandAugment.parse(_POLICY)
  box = transforms.random_resized_crop(
    192, 192, np.random.default_rng(19), scale=(0.08, 1.0)
  )
  small, small_other = resized(one), resized(other)
  video = on_device(small, small_other)
  keys = jax.random.split(jax.random.key(2), 2)
  targets = {'label': jnp.eye(2)}
  found = [('original', small), ('another clip', small_other)]
  for seed in (2, 12, 22):
    rng = np.random.default_rng(seed)
    steps = [name for name, _ in policy.draw(np.random.default_rng(seed))]
    name = '\n'.join(['RandAugment:', *steps])
    found.append((name, augment.rand_augment(small, policy, rng)))
  found.append(('random resized crop', resized(one, box)))
  erased = preprocess.erase(video, keys, probability=1.0)
  found.append(('random erasing', shown(erased[0])))
  for name, switch in (('mixup', 0.0), ('cutmix', 1.0)):
    mixed, soft = preprocess.mix(video, targets, keys, switch=switch)
    weight = float(soft['label'][0, 0])
    found.append((f'{name}\n{weight:.2f} original', shown(mixed[0])))
  return found


def picture(found: list[tuple[str, Clip]]) -> Image.Image:
  """The rows below one another."""
  step = _SIZE + _GAP
  sheet = Image.new(
    'RGB', (_LABELS + _FRAMES * step, len(found) * step + _GAP), 'white'
  )
  draw = ImageDraw.Draw(sheet)
  font = ImageFont.load_default(15)
  for row, (name, frames) in enumerate(found):
    top = _GAP + row * step
    draw.multiline_text((8, top + 8), name, fill='black', font=font)
    for column, frame in enumerate(frames):
      sheet.paste(Image.fromarray(frame), (_LABELS + column * step, top))
  return sheet


def main(out: pathlib.Path = _OUT) -> None:
  """Writes the picture."""
  out.parent.mkdir(parents=True, exist_ok=True)
  picture(rows()).save(out, optimize=True)
  print(f'Wrote {out}.')


if __name__ == '__main__':
  main(*map(pathlib.Path, sys.argv[1:2]))
