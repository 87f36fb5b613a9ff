"""Small folders in the layouts of public datasets; the videos are no videos."""

import json
import pathlib

from vivit_mae.data import listing


def touch(root: pathlib.Path, *names: str) -> pathlib.Path:
  for name in names:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b'x')
  return root


def write(root: pathlib.Path, name: str, *lines: str) -> None:
  path = root / name
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text('\n'.join(lines) + '\n')


def dump(root: pathlib.Path, name: str, content: object) -> None:
  write(root, name, json.dumps(content))


def names(listed: listing.Listing, split: str) -> dict[str, object]:
  """The names of the classes of each example."""
  classes = listed.class_names
  assert isinstance(classes, tuple)

  def name(label):
    if isinstance(label, int):
      return classes[label] if label >= 0 else None
    return tuple(classes[i] for i in label)

  return {e.id: name(e.label) for e in listed.splits[split]}


def paths(
  listed: listing.Listing, split: str, root: pathlib.Path
) -> dict[str, str]:
  """Where the video of each example is, relative to the root."""
  return {
    e.id: str(pathlib.Path(str(e.video)).relative_to(root))
    for e in listed.splits[split]
  }
