"""Pages that lead somewhere: links, anchors, the site's navigation."""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import DOCS, PAGES, anchors, blocks, links
from tests.support.databases import ROOT

LANGUAGES = {"ini", "json", "python", "shell", "sql", "text", "toml"}
LINKED = [*PAGES, *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md"))]


def name(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", LINKED, ids=name)
def test_links_lead_to_pages_and_to_their_sections(page):
    """Each link to another file of the project finds it, and the section that it names."""
    broken = []
    for path, anchor in links(page):
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(f"{path}#{anchor}")
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_site_is_whole_by_itself(page):
    """No link leaves docs/, as the site is built from there."""
    outside = [path for path, _ in links(page) if path and not (page.parent / path).resolve().is_relative_to(DOCS)]
    assert outside == []


def test_each_page_is_in_the_navigation():
    """mkdocs.yml names every page under docs/, and nothing that is not there."""
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    named = re.findall(r"([\w/.-]+\.md)$", navigation, re.MULTILINE)
    assert sorted(named) == sorted(str(page.relative_to(DOCS)) for page in PAGES)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=name)
def test_each_block_of_code_says_its_language(page):
    """Blocks are highlighted, and tried by the test that knows their language."""
    assert [block.place for block in blocks(page) if block.language not in LANGUAGES] == []


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=name)
def test_the_commands_of_make_are_there(page):
    """Each `make` that a page names is a target of the Makefile."""
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([\w-]+)", page.read_text(), re.MULTILINE))
    assert named >= {"test"}
    assert named <= targets


# An sdist has neither of the two.
@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "workflows").glob("ci.yml")), ids=name)
def test_the_workflow_runs_what_has_to_pass(path):
    """GitHub's workflow runs `.ci/run`, and that is lint and tests."""
    assert re.search(r"^      - run: \.ci/run$", path.read_text(), re.MULTILINE)
    run = (ROOT / ".ci" / "run").read_text().splitlines()
    assert [line for line in run if line.startswith("make ")] == ["make lint", "make test"]
