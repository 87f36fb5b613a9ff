"""Flax modules of the video transformers; import them into any project."""

from vivit_mae.masking import TokenMask
from vivit_mae.models.encoders import Encoder, EncoderOutput, FactorisedEncoder
from vivit_mae.models.heads import AttentivePool, LinearHead
from vivit_mae.models.layers import Attention, Mlp
from vivit_mae.models.transformer import Block, Stack
from vivit_mae.models.tubelets import TubeletEmbedding, patchify, unpatchify
from vivit_mae.models.variants import build, build_classifier
from vivit_mae.models.video_mae import VideoMAE, VideoMAEOutput
from vivit_mae.models.vivit import ClassifierOutput, ViViT

__all__ = [
  'Attention',
  'AttentivePool',
  'Block',
  'ClassifierOutput',
  'Encoder',
  'EncoderOutput',
  'FactorisedEncoder',
  'LinearHead',
  'Mlp',
  'Stack',
  'TokenMask',
  'TubeletEmbedding',
  'ViViT',
  'VideoMAE',
  'VideoMAEOutput',
  'build',
  'build_classifier',
  'patchify',
  'unpatchify',
]
