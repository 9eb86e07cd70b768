"""A column definition cut into words, numbers, quoted strings and marks."""

import re
from typing import NamedTuple

# ASCII only: else the long s (U+017F) would pass for an S, and the digits of other scripts for digits.
_TOKEN = re.compile(
    r"""
    (?P<space>  [ \t\r\n]++ )
  | (?P<word>   [A-Za-z_][A-Za-z0-9_]*+ )
  | (?P<number> [+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![A-Za-z0-9_.]) )
  | (?P<string> '(?:[^']|'')*+' )
  | (?P<mark>   [(),\[\]] )
  | (?P<junk>   .+ )
    """,
    re.VERBOSE | re.ASCII | re.DOTALL,
)


class Token(NamedTuple):
    """One piece of the text: what it is, how it is written, where it begins."""

    kind: str
    text: str
    start: int


class Reader:
    """Walks over the tokens of one definition, taking only what it is asked for."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._tokens = [
            Token(str(found.lastgroup), found.group(), found.start())
            for found in _TOKEN.finditer(text)
            if found.lastgroup != "space"
        ]
        self._next = 0

    @property
    def rest(self) -> str:
        """The text that nothing has taken yet; '' when nothing but white space is left."""
        if self._next == len(self._tokens):
            return ""
        return self.text[self._tokens[self._next].start :].rstrip(" \t\r\n")

    def take_words(self, *words: str) -> bool:
        """Take these upper-case words, in whatever case they are written, if they come next; all or none."""
        found = self._tokens[self._next : self._next + len(words)]
        if [token.text.upper() for token in found if token.kind == "word"] != list(words):
            return False
        self._next += len(words)
        return True

    def take_marks(self, *marks: str) -> bool:
        """Take these marks if they come next; all or none."""
        found = self._tokens[self._next : self._next + len(marks)]
        if [token.text for token in found if token.kind == "mark"] != list(marks):
            return False
        self._next += len(marks)
        return True

    def take(self, kind: str) -> str | None:
        """Take the next token if it is of that kind, and return how it is written."""
        if self._next == len(self._tokens) or self._tokens[self._next].kind != kind:
            return None
        self._next += 1
        return self._tokens[self._next - 1].text
