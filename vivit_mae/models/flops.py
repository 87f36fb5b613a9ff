"""Floating-point operations of the models, by formula.

Counted as in the papers' cost tables: two per multiply-add of every matrix
product; norms, softmax, biases and activations are left out. XLA's own count
(`compiled.cost_analysis()`) sees the body of a scan once, so it is no
substitute when layers are scanned.
"""

import math

from vivit_mae.models import video_mae, video_model, vivit


def transformer_flops(
  tokens: int, width: int, mlp_dim: int, depth: int, last: int | None = None
) -> float:
  """Forward operations of `depth` pre-norm blocks on one sequence.

  Args:
    tokens: length of the sequence.
    width: embedding dimension.
    mlp_dim: hidden dimension of the MLP.
    depth: number of blocks.
    last: how many tokens are asked for behind the last block; None for all.

  Returns:
    The number of floating-point operations.
  """

  def block(asked: int) -> float:
    inputs = 2 * tokens * 3 * width**2
    attention = 2 * (2 * asked * tokens * width)
    outputs = 2 * asked * (width**2 + 2 * width * mlp_dim)
    return float(inputs + attention + outputs)

  if last is None:
    last = tokens
  return (depth - 1) * block(tokens) + block(last)


def encoder_flops(model: video_model.VideoModel, num_tokens: int) -> float:
  """Forward operations of an encoder's blocks on one clip.

  Args:
    model: the model; only its sizes and its factorisation are read.
    num_tokens: tokens that the encoder sees, equally many of each frame where
      it tells time from space.

  Returns:
    The number of floating-point operations.
  """
  width, mlp_dim, depth = model.width, model.mlp_dim, model.depth
  frames = model.grid[0]
  places = num_tokens // frames
  extra = int(model.class_token != 'none')
  if model.factorisation == 'none':
    return transformer_flops(num_tokens + extra, width, mlp_dim, depth)
  if model.factorisation == 'encoder':
    temporal = model.num_layers - depth
    return frames * transformer_flops(
      places + extra, width, mlp_dim, depth
    ) + transformer_flops(frames + extra, width, mlp_dim, temporal)
  # Each token meets those of its frame and those of its place.
  attention = 2 * (2 * num_tokens * (frames + places) * width)
  projections = 4
  if model.factorisation == 'self_attention':
    projections = 8
  else:
    attention //= 2  # half of the heads each
  linear = 2 * num_tokens * (projections * width**2 + 2 * width * mlp_dim)
  return float(depth * (linear + attention))


def vivit_flops(model: vivit.ViViT) -> float:
  """Forward operations of one clip's classification.

  Args:
    model: the model; only its sizes are read.

  Returns:
    Operations of embedding, encoder and head; those of an attentive pool's
    one query, which are few, are left out.
  """
  tokens = math.prod(model.grid)
  pixels = math.prod(model.seen_tubelet) * model.channels
  embedding = 2 * tokens * pixels * model.width
  hidden = model.representation_size or model.width
  head = 2 * hidden * model.total_classes
  if model.representation_size:
    head += 2 * model.width * hidden
  if model.head == 'attentive':
    # The pool's keys and values.
    head += 2 * tokens * 2 * model.width**2
  return float(embedding + encoder_flops(model, tokens) + head)


def video_mae_flops(
  model: video_mae.VideoMAE, num_visible: int, num_decoded: int
) -> float:
  """Forward operations of one clip in masked pretraining.

  Args:
    model: the model; only its sizes are read.
    num_visible: tokens that the encoder sees.
    num_decoded: mask tokens that the decoder adds and predicts.

  Returns:
    Operations of embedding, encoder, bridge, decoder and head. A training
    step costs three times as much.
  """
  embedding = 2 * num_visible * model.patch_dim * model.width
  encoder = encoder_flops(model, num_visible)
  extra = int(model.class_token != 'none')
  bridge = 2 * (num_visible + extra) * model.width * model.decoder_width
  decoder = transformer_flops(
    num_visible + extra + num_decoded,
    model.decoder_width,
    model.decoder_mlp_dim,
    model.decoder_depth,
    last=num_decoded,
  )
  head = (
    2
    * num_decoded
    * model.decoder_width
    * (model.target_dim or model.patch_dim)
  )
  return embedding + encoder + bridge + decoder + head
