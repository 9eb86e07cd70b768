"""What the site does to pages: diagrams become part of them, and so take their colours from the theme."""

from __future__ import annotations

import re
from pathlib import Path

DIAGRAM = re.compile(r'<img alt="([^"]*)" src="(?:\.\./)*(assets/[\w-]+\.svg)" ?/?>')


def on_page_content(html: str, **_given: object) -> str:
    """Put the SVG files of docs/assets in the place of the images that show them elsewhere, such as on GitHub."""

    def inline(image: re.Match[str]) -> str:
        return f'<div class="diagram">{(Path(__file__).parent / "docs" / image[2]).read_text()}</div>'

    return DIAGRAM.sub(inline, html)
