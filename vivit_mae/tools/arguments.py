"""Command lines that say what a misspelt option might have been."""

import argparse
import difflib
import re
from typing import NoReturn


class Parser(argparse.ArgumentParser):
  """Takes options by their whole names only, and names the nearest."""

  def __init__(self, **options):
    super().__init__(allow_abbrev=False, **options)

  def parse_known_args(self, args=None, namespace=None):
    """Parses; a command says itself which of its options are unknown."""
    found, rest = super().parse_known_args(args, namespace)
    if rest:
      self.error(f'unrecognized arguments: {" ".join(rest)}')
    return found, rest

  def error(self, message: str) -> NoReturn:
    """Ends the process with a message."""
    found = re.search(r'unrecognized arguments: (\S+)', message)
    if found:
      wrong = found[1].split('=')[0]
      near = difflib.get_close_matches(wrong, self._option_string_actions, 1)
      message = f'no such option: {wrong}.'
      if near:
        message += f' Did you mean {near[0]}?'
    super().error(message)
