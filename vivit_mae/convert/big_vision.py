"""Transformers for images by the names of Google's own projects.

github.com/google-research/vision_transformer (the first weights and those of
"How to train your ViT?", npz) and google-research/big_vision, models/vit.py.
They see pixels in [-1, 1], and their GELU is the tanh; timm and Hugging Face
run the same weights with the exact one. Of a head that pools by attention
(MAPHead) the encoder alone is taken.
"""

from vivit_mae.convert import flax_vit, image_vit
from vivit_mae.convert.family import (
  HALF,
  Description,
  Family,
  HubConfig,
  Shapes,
)
from vivit_mae.convert.rules import TABLE, TOKEN, Table, rule

_KERNEL = 'embedding/kernel'
_MAP_HEAD = 'MAPHead_0/probe'
_TABLES = (
  'pos_embedding',
  # Where it was earlier, the class token's row the first.
  'Transformer/pos_embedding',
  'Transformer/posembed_input/pos_embedding',
)
_ENCODER: Table = (
  *flax_vit.dense('encoder/embedding', 'embedding', flax_vit.TUBELET),
  rule('encoder/cls_token', 'cls', TOKEN),
  *(rule(image_vit.ENCODER_TABLE, name, TABLE) for name in _TABLES),
  *flax_vit.stage('encoder', 'Transformer'),
)
_HEAD: Table = (
  *flax_vit.dense('head/pre_logits', 'pre_logits'),
  *flax_vit.dense('head/label', 'head'),
)


def _fields(shapes: Shapes) -> tuple[image_vit.Fields, image_vit.Unknown]:
  fields, (_, _, patch) = flax_vit.encoder_sizes(shapes)
  table = next((name for name in _TABLES if name in shapes), None)
  if table is None:
    raise ValueError(
      'There is no pos_embedding. The fixed positions of big_vision '
      '(sincos2d) are in no model here; one with learned ones would do.'
    )
  told, unknown = image_vit.places(shapes[table][1], 'cls' in shapes, patch)
  return fields | {'num_frames': 1, 'gelu': 'tanh', **told}, unknown


def _classifier(shapes: Shapes, config: HubConfig) -> Description:
  del config
  fields, unknown = _fields(shapes)
  fields |= flax_vit.head_fields(shapes, 'head')
  return image_vit.classifier(fields, unknown, HALF)


def _encoder(shapes: Shapes, config: HubConfig) -> Description:
  del config
  return image_vit.autoencoder(*_fields(shapes), HALF)


_MARKS = (_KERNEL, 'Transformer/encoderblock_0/LayerNorm_0/scale')

FAMILIES = (
  Family(
    name='ViT of big_vision, classifier',
    table=(*_ENCODER, *_HEAD),
    marks=(*_MARKS, 'head/kernel'),
    absent=(_MAP_HEAD,),
    describe=_classifier,
    when=image_vit.of_images(_KERNEL),
  ),
  Family(
    name='ViT of big_vision, encoder',
    table=_ENCODER,
    marks=_MARKS,
    # Those are Scenic's.
    absent=('output_projection/kernel',),
    describe=_encoder,
    when=image_vit.of_images(_KERNEL),
    unused={
      '(MAPHead_0|pre_logits|head)/.*': 'of a head that is not read here'
    },
  ),
)
