"""ViViT: classifies clips with any of the encoders.

Arnab et al., "ViViT: A Video Vision Transformer", ICCV 2021. With VideoMAE's
fields (`variants.PRESETS`) it is the classifier that VideoMAE fine-tunes; the
parameters under `encoder` have the names of a `VideoMAE`'s.
"""

import functools
from typing import Any

import flax.struct
from jaxtyping import Array, Float, Key

from vivit_mae.models import encoders, layers, norms, tubelets, video_model
from vivit_mae.models import heads as heads_lib

# Tubelets as a Conv3D sees them, or frames at equal distances, one for each
# tubelet's length of time, as a Conv2D sees them.
EMBEDDINGS = ('tubelet', 'uniform_frames')
NORMS = ('before_pooling', 'after_pooling', 'deferred')
HEADS = ('linear', 'attentive')

_CHOICES = {
  'embedding': EMBEDDINGS,
  'head': HEADS,
  'norm': NORMS,
  'pooling': heads_lib.POOLINGS,
}


@flax.struct.dataclass
class ClassifierOutput:
  """What a classifier returns.

  Attributes:
    logits: float32 `[b, c]` by the name of the head; a single one is 'label'.
    features: float32 `[b, d]`, the pooled vectors that were classified.
  """

  # Any, because jax also fills trees with shapes, axes and shardings.
  logits: Any
  features: Any


class ViViT(video_model.VideoModel, kw_only=True):
  """An encoder of all tokens, pooling and linear classifiers.

  Attributes:
    num_classes: number of classes, or pairs of a head's name and its number.
    embedding: 'tubelet', or 'uniform_frames': as many frames at equal
      distances as there would be tubelets along time, each by itself.
    pooling: a name in `heads.POOLINGS`. Model 2 pools each frame's tokens so,
      and then its frames.
    norm: where the last norm stands: 'before_pooling' (ViViT, the norm of the
      encoder), 'after_pooling' (VideoMAE, a fresh norm of the head) or
      'deferred' (MAE-ST, the norm of the encoder, with what it learned in
      pretraining, behind the pooling).
    head: 'linear', or 'attentive', which pools all tokens by attention.
    representation_size: width of a tanh layer before the classifiers; None
      for none.
    head_dropout: rate of the dropout before the classifiers.
    head_init_scale: scale of the classifiers' initial kernels.
    head_init_bias: initial value of the classifiers' biases.
    probe: trains the head only: no gradient reaches the encoder.
    probe_batch_norm: a batch norm without scale and bias before the
      classifiers (MAE's linear probe).
  """

  num_classes: heads_lib.Classes
  embedding: str = 'tubelet'
  pooling: str = 'mean'
  norm: str = 'before_pooling'
  head: str = 'linear'
  representation_size: int | None = None
  head_dropout: float = 0.0
  head_init_scale: float = 1.0
  head_init_bias: float = 0.0
  probe: bool = False
  probe_batch_norm: bool = False

  def setup(self) -> None:
    """Checks the fields and builds the submodules."""
    self.check()
    pool = None
    pooling = self.pooling
    if self.head == 'attentive':
      pool = functools.partial(
        heads_lib.AttentivePool,
        heads=self.heads,
        mlp_dim=self.mlp_dim,
        dtype=self.dtype,
        attention=self.attention,
      )
      pooling = 'mean' if self.class_token == 'none' else 'token'
    self.encoder = self.make_encoder(
      pooling=pooling,
      tubelet=self.seen_tubelet,
      final_norm=self.norm != 'after_pooling',
      deferred_norm=self.norm == 'deferred',
    )
    self.classifier = heads_lib.Head(
      linear=functools.partial(
        heads_lib.LinearHead,
        num_classes=self.num_classes,
        representation_size=self.representation_size,
        dropout=self.head_dropout,
        init_scale=self.head_init_scale,
        init_bias=self.head_init_bias,
      ),
      pooling=pooling,
      pool=pool,
      norm=self.norm == 'after_pooling',
      norm_epsilon=norms.EPSILONS[self.epsilons].last,
      batch_norm=self.probe_batch_norm,
      probe=self.probe,
      name='head',
    )

  @property
  def seen_tubelet(self) -> tubelets.Tubelet:
    """Frames, height and width of what the embedding sees of a tubelet."""
    frames = self.tubelet[0] if self.embedding == 'tubelet' else 1
    return (frames, *self.tubelet[1:])

  @property
  def total_classes(self) -> int:
    """Classes of all heads together."""
    return sum(heads_lib.named_classes(self.num_classes).values())

  def check(self) -> None:
    """Refuses a combination of fields that cannot be built.

    Raises:
      ValueError: naming the field, what it held and what would do.
    """
    super().check()
    for field, choices in _CHOICES.items():
      layers.check_choice(field, getattr(self, field), choices)
    heads_lib.named_classes(self.num_classes)
    if not 0.0 <= self.head_dropout < 1.0:
      raise ValueError(f'head_dropout {self.head_dropout} must lie in [0, 1).')
    if self.representation_size is not None:
      self.check_positive('representation_size')
    if self.norm == 'deferred' and self.factorisation == 'encoder':
      raise ValueError(
        "norm 'deferred' needs an encoder of one stage, not factorisation "
        "'encoder': take 'before_pooling' or 'after_pooling'."
      )
    if self.norm == 'deferred' and self.head == 'attentive':
      raise ValueError(
        "norm 'deferred' stands behind a pooling, and head 'attentive' pools "
        "normed tokens: take norm 'before_pooling'."
      )
    if (
      self.pooling == 'token'
      and self.head == 'linear'
      and self.class_token == 'none'
    ):
      raise ValueError(
        "pooling 'token' needs a class token: take class_token "
        "'before_positions' or 'after_positions', or another pooling, such as "
        "'mean'."
      )

  def __call__(
    self,
    video: Float[Array, 'b t h w c'],
    *,
    deterministic: bool,
    row_keys: Key[Array, 'b'] | None = None,
  ) -> ClassifierOutput:
    """Classifies clips.

    Args:
      video: normalised clips.
      deterministic: switches drop path and dropout off, and lets the probe's
        batch norm use its running statistics. Where it is False these are
        updated, and the collection 'batch_stats' has to be mutable.
      row_keys: one key for each row; needed where something is drawn.

    Returns:
      Logits and features.

    Raises:
      ValueError: the clips have other sizes than the model.
    """
    tokens, cls = self._encode(video, deterministic, row_keys)
    logits, features = self.classifier(
      tokens,
      cls,
      self._deferred_norm,
      deterministic=deterministic,
      row_keys=row_keys,
    )
    return ClassifierOutput(logits=logits, features=features)

  def features(
    self,
    video: Float[Array, 'b t h w c'],
    *,
    deterministic: bool,
    row_keys: Key[Array, 'b'] | None = None,
  ) -> Float[Array, 'b n d']:
    """All encoded tokens, no class token; arguments as of `__call__`."""
    return self._output(video, deterministic, row_keys).tokens

  def pooled(
    self,
    video: Float[Array, 'b t h w c'],
    *,
    deterministic: bool,
    row_keys: Key[Array, 'b'] | None = None,
  ) -> Float[Array, 'b d']:
    """The vectors that are classified; arguments as of `__call__`."""
    encoded = self._encode(video, deterministic, row_keys)
    return self.classifier.pooled(*encoded, self._deferred_norm)

  @property
  def _deferred_norm(self) -> Any:
    return self.encoder.norm if self.norm == 'deferred' else None

  def _encode(
    self,
    video: Float[Array, 'b t h w c'],
    deterministic: bool,
    row_keys: Key[Array, 'b'] | None,
  ) -> tuple[Float[Array, 'b s d'], Float[Array, 'b d'] | None]:
    """What the head pools, and the class token or None."""
    output = self._output(video, deterministic, row_keys)
    attentive = self.head == 'attentive'
    return output.tokens if attentive else output.pooled, output.cls

  def _output(
    self,
    video: Float[Array, 'b t h w c'],
    deterministic: bool,
    row_keys: Key[Array, 'b'] | None,
  ) -> encoders.EncoderOutput:
    self.check_video(video)
    if self.embedding == 'uniform_frames':
      video = tubelets.uniform_frames(video, self.grid[0])
    return self.encoder(
      video, None, deterministic=deterministic, row_keys=row_keys
    )
