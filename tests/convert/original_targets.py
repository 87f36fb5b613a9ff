"""Targets and losses of the published models, in plain numpy, float64.

Reference: videomae.md 2.0 to 2.4. Clips are `[b, 3, t, h, w]` as the network
sees them, that is normalised; a token's pixels are flattened in the order
(t, h, w, c). Nothing is shared with the library.
"""

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406])
IMAGENET_STD = np.array([0.229, 0.224, 0.225])


def patches(
  video: Float[np.ndarray, 'b c t h w'], tubelet: int, patch: int
) -> Float64[np.ndarray, 'b n k c']:
  """The pixels of each token, `k = tubelet * patch * patch`, tokens t-major."""
  batch, channels, *size = video.shape
  nt, nh, nw = size[0] // tubelet, size[1] // patch, size[2] // patch
  cut = video.astype(np.float64).reshape(
    batch, channels, nt, tubelet, nh, patch, nw, patch
  )
  cut = cut.transpose(0, 2, 4, 6, 3, 5, 7, 1)
  return cut.reshape(batch, nt * nh * nw, tubelet * patch * patch, channels)


def videomae_targets(
  video: Float[np.ndarray, 'b 3 t h w'], patch: int, normalise: bool = True
) -> Float64[np.ndarray, 'b n p']:
  """VideoMAE's (V1 and V2) targets of all tokens, two frames each.

  Un-normalised to [0, 1] with ImageNet's constants; then, if `normalise`, per
  token and channel, with the unbiased variance and 1e-6 beside its root.
  """
  scale = IMAGENET_STD[:, None, None, None]
  shift = IMAGENET_MEAN[:, None, None, None]
  pixels = patches(video * scale + shift, 2, patch)
  if normalise:
    mean = pixels.mean(axis=2, keepdims=True)
    deviation = np.sqrt(pixels.var(axis=2, ddof=1, keepdims=True))
    pixels = (pixels - mean) / (deviation + 1e-6)
  return pixels.reshape(*pixels.shape[:2], -1)


def target_frames(
  frames: int, wanted: int, how: str
) -> Int[np.ndarray, 'wanted']:
  """The frames that MAE-ST predicts.

  Args:
    frames: of the clip.
    wanted: of them to predict.
    how: 'linspace' (mae_st: `torch.linspace` in float32, cut to integers) or
      'stride' (PySlowFast: every `frames // wanted`-th, from the first).

  Raises:
    ValueError: Another `how`.
  """
  if how == 'stride':
    return np.arange(0, frames, frames // wanted)
  if how != 'linspace':
    raise ValueError(f"target frames are 'linspace' or 'stride', not {how!r}")
  if wanted == 1:
    return np.zeros(1, int)
  # torch counts the first half from the start, the second from the end, and
  # rounds only the results: float64 holds the products exactly.
  step = np.float64(np.float32(frames - 1) / np.float32(wanted - 1))
  from_start = step * np.arange(wanted)
  from_end = frames - 1 - from_start[::-1]
  early = np.arange(wanted) < wanted // 2
  return np.where(early, from_start, from_end).astype(np.float32).astype(int)


def mae_st_targets(
  video: Float[np.ndarray, 'b 3 t h w'],
  patch: int,
  tubelet: int = 2,
  how: str = 'linspace',
  predicted: int | None = None,
  normalise: bool = True,
) -> Float64[np.ndarray, 'b n p']:
  """MAE-ST's and PySlowFast's targets of all tokens.

  Args:
    video: As the network sees it; not un-normalised.
    patch: pixels along a side of a token.
    tubelet: frames of a token.
    how: see `target_frames`.
    predicted: frames to predict; None for one a tubelet.
    normalise: per token over all its pixels and channels together, with the
      unbiased variance and 1e-6 under its root.
  """
  frames = video.shape[2]
  wanted = frames // tubelet if predicted is None else predicted
  chosen = video[:, :, target_frames(frames, wanted, how)]
  pixels = patches(chosen, tubelet * wanted // frames, patch)
  return _jointly(pixels, normalise)


def image_mae_targets(
  images: Float[np.ndarray, 'b 3 h w'], patch: int, normalise: bool = True
) -> Float64[np.ndarray, 'b n p']:
  """The image MAE's targets of all patches; normalised as MAE-ST's are."""
  return _jointly(patches(images[:, :, None], 1, patch), normalise)


def chosen_rows(
  values: Float[np.ndarray, 'b n *p'], mask: Bool[np.ndarray, 'b n']
) -> Float[np.ndarray, 'b k *p']:
  """Where the mask is true, in raster order; the same number in every row."""
  pairs = zip(values, mask, strict=True)
  return np.stack([row[chosen] for row, chosen in pairs])


def videomae_loss(
  predictions: Float[np.ndarray, 'b k p'],
  targets: Float[np.ndarray, 'b n p'],
  mask: Bool[np.ndarray, 'b n'],
) -> float:
  """V1: the mean square over the masked tokens, which are all predicted."""
  return float(np.mean((predictions - chosen_rows(targets, mask)) ** 2))


def videomae_v2_loss(
  predictions: Float[np.ndarray, 'b k p'],
  targets: Float[np.ndarray, 'b n p'],
  mask: Bool[np.ndarray, 'b n'],
  decode_mask: Bool[np.ndarray, 'b n'],
) -> float:
  """V2: only decoded tokens that the encoder did not see count."""
  labels = chosen_rows(targets, ~decode_mask)
  counted = chosen_rows(mask, ~decode_mask)
  errors = np.mean((predictions - labels) ** 2, axis=-1)
  return float(np.sum(errors * counted) / np.sum(counted))


def masked_loss(
  predictions: Float[np.ndarray, 'b n p'],
  targets: Float[np.ndarray, 'b n p'],
  mask: Bool[np.ndarray, 'b n'],
) -> float:
  """MAE-ST and the image MAE: all are predicted, the masked ones count."""
  errors = np.mean((predictions - targets) ** 2, axis=-1)
  return float(np.sum(errors * mask) / np.sum(mask))


def _jointly(pixels, normalise):
  flat = pixels.reshape(*pixels.shape[:2], -1)
  if not normalise:
    return flat
  mean = flat.mean(axis=-1, keepdims=True)
  variance = flat.var(axis=-1, ddof=1, keepdims=True)
  return (flat - mean) / np.sqrt(variance + 1e-6)
