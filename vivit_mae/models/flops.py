"""Floating-point operations of the models, by formula.

Counted as in the papers' cost tables: two per multiply-add of every matrix
product; norms, softmax, biases and activations are left out. XLA's own count
(`compiled.cost_analysis()`) sees the body of a scan once, so it is no
substitute when layers are scanned.
"""

from vivit_mae.models import video_mae


def transformer_flops(
  tokens: int, width: int, mlp_dim: int, depth: int
) -> float:
  """Forward operations of `depth` pre-norm blocks on one sequence.

  Args:
    tokens: length of the sequence.
    width: embedding dimension.
    mlp_dim: hidden dimension of the MLP.
    depth: number of blocks.

  Returns:
    The number of floating-point operations.
  """
  projections = 2 * tokens * (4 * width**2 + 2 * width * mlp_dim)
  attention = 2 * (2 * tokens**2 * width)
  return float(depth * (projections + attention))


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
  encoder = transformer_flops(
    num_visible, model.width, model.mlp_dim, model.depth
  )
  bridge = 2 * num_visible * model.width * model.decoder_width
  decoder = transformer_flops(
    num_visible + num_decoded,
    model.decoder_width,
    model.decoder_mlp_dim,
    model.decoder_depth,
  )
  head = (
    2
    * num_decoded
    * model.decoder_width
    * (model.target_dim or model.patch_dim)
  )
  return embedding + encoder + bridge + decoder + head
