"""From luma and colour differences to red, green and blue.

A video's frames are Y'CbCr in one of a few matrices, in limited (16 to 235) or
full range. What a file does not say is BT.601 and limited, as FFmpeg has it.
"""

import functools

import numpy as np
from jaxtyping import Float

# FFmpeg's AVColorSpace -> weights of red and blue in luma (ITU-T H.273).
_WEIGHTS = {
  1: (0.2126, 0.0722),  # BT.709
  4: (0.30, 0.11),  # FCC
  7: (0.212, 0.087),  # SMPTE 240M
  9: (0.2627, 0.0593),  # BT.2020, non-constant luminance
  10: (0.2627, 0.0593),  # BT.2020, constant luminance, as FFmpeg treats it
}
_BT601 = (0.299, 0.114)
# AVColorRange
_FULL = 2


@functools.cache
def yuv_to_rgb(
  matrix: int = 2, colour_range: int = 0
) -> Float[np.ndarray, '3 4']:
  """The affine map from stored Y, Cb, Cr to R, G, B, all from 0 to 255.

  Args:
    matrix: FFmpeg's number of the colour space (H.273 matrix coefficients);
      those that are not known are BT.601.
    colour_range: FFmpeg's number; 2 is full, all others limited.

  Returns:
    float32; the last column is added after multiplying. Results may leave the
    range and are to be clipped.
  """
  red, blue = _WEIGHTS.get(matrix, _BT601)
  green = 1 - red - blue
  full = colour_range == _FULL
  luma, chroma = (1.0, 1.0) if full else (255 / 219, 255 / 224)
  # Of Cb and Cr, centred, in the same units as luma.
  cb, cr = 2 * (1 - blue) * chroma, 2 * (1 - red) * chroma
  linear = np.array(
    [
      [luma, 0, cr],
      [luma, -cb * blue / green, -cr * red / green],
      [luma, cb, 0],
    ]
  )
  black = np.array([0 if full else 16, 128, 128])
  found = np.c_[linear, -linear @ black].astype(np.float32)
  found.flags.writeable = False  # all callers share it
  return found
