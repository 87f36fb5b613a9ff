"""One video opened for a dataset that is written: its bytes, checked or anew.

What comes of it can be sent between processes, so that a video that crashes
FFmpeg can be opened where that does no harm.
"""

import contextlib
import dataclasses
import json

from etils import epath

from vivit_mae.data import decode, directory, reencode
from vivit_mae.data.frames import Frames
from vivit_mae.data.listing import Example
from vivit_mae.data.loss import Loss

# Protocol buffers, which hold the examples, end at 2 GiB; the rest needs a bit.
MAX_BYTES = 2**31 - 2**20
CHECKS = ('packets', 'full')


@dataclasses.dataclass(frozen=True)
class Job:
  """A video to be opened.

  Attributes:
    example: Which.
    check: How its bytes are checked, one of `CHECKS`.
    encoding: How to encode it anew; None keeps its bytes.
    draft: Where it waits, once encoded, until it is written.

  Raises:
    ValueError: It needs an encoding, and there is none.
  """

  example: Example
  check: str
  encoding: reencode.Settings | None
  draft: str

  def __post_init__(self):
    if self.encoding is not None:
      return
    for is_so, what in (
      (isinstance(self.example.video, Frames), 'is stored as pictures'),
      (self.example.segment is not None, 'is a part of a longer video'),
    ):
      if is_so:
        raise ValueError(
          f'{self.example.id} {what}: there are no bytes of its own to copy. '
          'Encode it anew, or train from where it lies.'
        )


@dataclasses.dataclass(frozen=True)
class Record:
  """A video as it is written.

  Attributes:
    video: Its bytes.
    num_frames: Its frames.
    duration: Its length in seconds.
    loss: What encoding it anew has changed; None if it was not.
  """

  video: bytes
  num_frames: int
  duration: float
  loss: Loss | None = None


@dataclasses.dataclass(frozen=True)
class Refusal:
  """Why a video is left out.

  Attributes:
    kind: In a word.
    reason: In a sentence that names it.
  """

  kind: str
  reason: str


def open_video(job: Job) -> Record | Refusal:
  """Opens a video, and encodes it anew if that is asked for."""
  name = job.example.id
  try:
    record = _copy(job) if job.encoding is None else _encode(job, job.encoding)
  except decode.VideoError as error:
    return Refusal(error.kind, str(error))
  except reencode.EncodingError as error:
    return Refusal('encoding', str(error))
  if (size := len(record.video)) > MAX_BYTES:
    reason = f'{name}: too_large ({size} bytes; cut it in parts)'
    return Refusal('too_large', reason)
  return record


def _copy(job: Job) -> Record:
  """A video's own bytes, checked."""
  video, name = job.example.video, job.example.id
  assert isinstance(video, bytes | str)
  if isinstance(video, str):
    try:
      video = epath.Path(video).read_bytes()
    except FileNotFoundError:
      raise decode.VideoError('missing', name) from None
  info = decode.probe(video, name, decode=job.check == 'full')
  return Record(video, info.num_frames, info.duration)


def _encode(job: Job, settings: reencode.Settings) -> Record:
  """A video encoded anew, unless that was done before an interruption."""
  draft = epath.Path(job.draft)
  with contextlib.suppress(FileNotFoundError):
    header, _, video = draft.read_bytes().partition(b'\n')
    facts = json.loads(header)
    loss = Loss(**facts.pop('loss'))
    return Record(video, loss=loss, **facts)
  example = job.example
  encoded = reencode.reencode(
    example.video, settings, example.id, example.segment
  )
  facts = dataclasses.asdict(encoded)
  video = facts.pop('video')
  header = json.dumps(facts, ensure_ascii=False).encode()
  draft.parent.mkdir(parents=True, exist_ok=True)
  directory.write_file(draft, header + b'\n' + video)
  return Record(**vars(encoded))
