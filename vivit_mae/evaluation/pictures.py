"""Labelled film strips and panels: how clips are shown to people."""

import io
from collections.abc import Mapping

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

_LABEL_HEIGHT = 18
_MARGIN = 4
_MIN_FRAME_HEIGHT = 96


def film_strip(
  rows: Mapping[str, UInt8[np.ndarray, 't h w 3']], columns: int = 8
) -> UInt8[np.ndarray, 'height width 3']:
  """Draws clips below each other, time running to the right.

  Args:
    rows: label -> clip; all of one frame size and length.
    columns: how many frames of each clip are shown, evenly spaced.

  Returns:
    One picture. Small frames are enlarged by a whole factor, pixels kept.
  """
  num_frames = len(next(iter(rows.values())))
  shown = np.linspace(0, num_frames - 1, min(columns, num_frames))
  shown = shown.round().astype(int)
  strips = []
  for label, clip in rows.items():
    frames = [_frame(clip[i]) for i in shown]
    strips.append(_label(np.concatenate(frames, axis=1), label))
  return np.concatenate(strips, axis=0)


def panels(
  rows: Mapping[str, UInt8[np.ndarray, 't h w 3']],
) -> UInt8[np.ndarray, 't height width 3']:
  """Puts clips beside each other, for a picture that moves.

  Args:
    rows: label -> clip; all of one frame size and length.

  Returns:
    One clip of even height and width, as H.264 needs it.
  """
  num_frames = len(next(iter(rows.values())))
  frames = []
  for t in range(num_frames):
    panes = [_label(_frame(clip[t]), label) for label, clip in rows.items()]
    frame = np.concatenate(panes, axis=1)
    pad = [(0, side % 2) for side in frame.shape[:2]]
    frames.append(np.pad(frame, [*pad, (0, 0)], constant_values=255))
  return np.stack(frames)


def stack(
  pictures: list[UInt8[np.ndarray, '_ width 3']],
) -> UInt8[np.ndarray, '_ width 3']:
  """Puts pictures of one width below each other."""
  gap = np.full((2 * _MARGIN, pictures[0].shape[1], 3), 255, np.uint8)
  parts = [part for picture in pictures for part in (picture, gap)]
  return np.concatenate(parts[:-1], axis=0)


def png(picture: UInt8[np.ndarray, 'height width 3']) -> bytes:
  """Encodes a picture as PNG."""
  buffer = io.BytesIO()
  Image.fromarray(picture).save(buffer, 'PNG')
  return buffer.getvalue()


def _frame(
  frame: UInt8[np.ndarray, 'h w 3'],
) -> UInt8[np.ndarray, 'height width 3']:
  factor = -(-_MIN_FRAME_HEIGHT // frame.shape[0])
  frame = frame.repeat(factor, axis=0).repeat(factor, axis=1)
  margin = ((0, _MARGIN), (0, _MARGIN), (0, 0))
  return np.pad(frame, margin, constant_values=255)


def _label(
  picture: UInt8[np.ndarray, 'h w 3'], text: str
) -> UInt8[np.ndarray, 'height w 3']:
  """Writes `text` above the picture, smaller where it would not fit."""
  head = Image.new('RGB', (picture.shape[1], _LABEL_HEIGHT), 'white')
  draw = ImageDraw.Draw(head)
  size = 13
  font = ImageFont.load_default(size)
  while size > 7 and draw.textlength(text, font) > head.width - 2:
    size -= 1
    font = ImageFont.load_default(size)
  draw.text((1, 1), text, fill='black', font=font)
  return np.concatenate([np.asarray(head), picture], axis=0)
