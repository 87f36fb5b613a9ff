"""Flax modules of the video transformers; import them into any project."""

from vivit_mae.masking import TokenMask
from vivit_mae.models.transformer import Attention, Block, Mlp, Stack
from vivit_mae.models.tubelets import TubeletEmbedding, patchify, unpatchify
from vivit_mae.models.variants import build
from vivit_mae.models.video_mae import VideoMAE, VideoMAEOutput

__all__ = [
  'Attention',
  'Block',
  'Mlp',
  'Stack',
  'TokenMask',
  'TubeletEmbedding',
  'VideoMAE',
  'VideoMAEOutput',
  'build',
  'patchify',
  'unpatchify',
]
