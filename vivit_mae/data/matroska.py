"""What the header of a Matroska file says and FFmpeg does not pass on."""

import re

# The head of a file, in which its tracks are described.
HEAD_BYTES = 2**16

# Its table of contents names the element before it comes.
_TRACKS = re.compile(rb'(?<!\x53\xab\x84)\x16\x54\xae\x6b(?=[^\0])')
_PROJECTION = b'\x76\x70'


def is_upright(head: bytes) -> bool:
  """Whether no rotation is asked for, as far as the header is sure of it.

  Args:
    head: The first `HEAD_BYTES` of the file.

  Returns:
    True: the description of its tracks is there, without the element that
    turns. False: frames may have to be turned.
  """
  found = _TRACKS.search(head)
  if not found:
    return False
  at = found.end()
  # A size is one to eight bytes; as many zero bits lead it as bytes follow.
  follow = 8 - head[at].bit_length()
  begin = at + 1 + follow
  size = int.from_bytes(head[at:begin], 'big') & ((1 << 7 * (follow + 1)) - 1)
  described = head[begin : begin + size]
  return len(described) == size and _PROJECTION not in described
