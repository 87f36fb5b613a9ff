"""What is known of one published file of weights."""

import dataclasses
import posixpath


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
  """One file of weights.

  Attributes:
    name: By which `zoo.lookup` finds it.
    source: The project that trained it, a key of `zoo_files.PAPERS`.
    holds: 'encoder', 'encoder and decoder' or 'classifier'.
    hub_id: Its repository on the Hugging Face hub, '' if it is not there.
    filename: Its path in that repository.
    url: Its address, where it is not on the hub.
    size_bytes: Its exact size, None if unknown.
    sha256: Of the file, None if unknown.
    md5_prefix: How the file's MD5 begins, None if unknown.
    licence: Of the weights or, where nothing is said of them, of the project.
    non_commercial: Whether the licence forbids commercial use.
    data: What it was trained on.
    dataset: Whose classes the head tells apart, by the names of `class_names`,
      which has none for 'kinetics_710' and the two lists of
      'epic_kitchens_100', nouns first. None without such a head.
    num_frames: Frames of a clip, 1 for an image model.
    stride: Frames of the video from one to the next of the clip. None: spread
      evenly over the whole video, or an image model.
    accuracy: As published, top-1 in per cent, with frames x clips x crops where
      they are known; '' where nothing is.
    accuracy_source: Who published it.
    confirmed: Where address, licence and digest were read.
    notes: What else to know.
  """

  name: str
  source: str
  holds: str
  hub_id: str = ''
  filename: str = ''
  url: str = ''
  size_bytes: int | None = None
  sha256: str | None = None
  md5_prefix: str | None = None
  licence: str
  non_commercial: bool
  data: str
  dataset: str | None = None
  num_frames: int
  stride: int | None
  accuracy: str = ''
  accuracy_source: str = ''
  confirmed: str
  notes: str = ''

  @property
  def address(self) -> str:
    """Where a browser finds the file."""
    if self.url:
      return self.url
    return f'https://huggingface.co/{self.hub_id}/resolve/main/{self.filename}'

  @property
  def basename(self) -> str:
    """The file's own name."""
    return posixpath.basename(self.filename or self.url)
