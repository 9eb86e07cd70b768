"""Every block of code in the guides, run in its order on both databases."""

from __future__ import annotations

import pytest
from sqlalchemy.ext.asyncio import async_sessionmaker

from tests.docs.pages import GUIDES, blocks
from tests.docs.running import Reader
from tests.docs.scenery import SCENERY

ELSEWHERE = {"start.md", "adopting.md"}  # which have tests of their own
TRIED = [page for page in GUIDES if blocks(page) and page.name not in ELSEWHERE]


@pytest.mark.parametrize("page", TRIED, ids=lambda page: page.name)
async def test_what_a_page_shows_works(page, database, engine, tmp_path):
    """All blocks do what the page says, one after the other, as one reader would try them."""
    names = {"engine": engine, "sessions": async_sessionmaker(engine, expire_on_commit=False)}
    reader = Reader(tmp_path, database, names)
    await SCENERY[page.name](reader)
    with reader.at_work():
        for block in blocks(page):
            await reader.do(block)


def test_each_page_with_code_has_its_scenery():
    """What a page takes for given is said for each page, and for no other one."""
    assert sorted(SCENERY) == sorted(page.name for page in TRIED)
