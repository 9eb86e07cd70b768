"""The pages as data: their blocks of code, their headings, their links."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from tests.support.databases import ROOT

if TYPE_CHECKING:
    from pathlib import Path

DOCS = ROOT / "docs"
GUIDES = sorted(path for path in DOCS.glob("*.md"))
PAGES = sorted(DOCS.rglob("*.md"))

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)(?: [^\n]*)?\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)
_DIRECTIVE = re.compile(r"<!-- test: (?P<what>[^>]*) -->\s*\Z")


@dataclass(frozen=True)
class Block:
    """A block of code; `directive` is what a comment `<!-- test: ... -->` right before it says, otherwise empty."""

    page: Path
    line: int
    language: str
    text: str
    directive: str

    @property
    def place(self) -> str:
        """Where it is, for messages."""
        return f"{self.page.name}:{self.line}"

    @property
    def file_name(self) -> str | None:
        """The file that it is, where its first line is a comment with just a name."""
        named = re.match(r"# ([\w/]+\.(?:py|toml|ini))\n", self.text)
        return None if named is None else named[1]


@cache
def blocks(page: Path) -> list[Block]:
    """Return the page's blocks of code in their order."""
    text = page.read_text()
    found = []
    for fence in _FENCE.finditer(text):
        directive = _DIRECTIVE.search(text[: fence.start()])
        indent = len(fence["indent"])
        lines = [line[indent:] for line in fence["text"].splitlines()]
        found.append(
            Block(
                page,
                text.count("\n", 0, fence.start()) + 1,
                fence["language"],
                "\n".join(lines) + "\n",
                "" if directive is None else directive["what"].strip(),
            )
        )
    return found


def prose(page: Path) -> str:
    """Return the page without its blocks of code and without code in lines."""
    return re.sub(r"`[^`\n]*`", "", _FENCE.sub("", page.read_text()))


@cache
def anchors(page: Path) -> frozenset[str]:
    """Return what links to the page's sections may name, as both GitHub and the site make them of headings."""
    headings = re.findall(r"^#+ +(.*?)\s*$", _FENCE.sub("", page.read_text()), re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "") for heading in headings)
    return frozenset(re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in plain)


def links(page: Path) -> list[tuple[str, str]]:
    """Return path and anchor of each link to another page or section of this project."""
    targets = re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", prose(page))
    return [(path, anchor) for path, _, anchor in (target.partition("#") for target in targets)]
