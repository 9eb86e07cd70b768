"""The SQL that the store sends, compared with the golden files."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path
from typing import ClassVar

import pytest
import sqlalchemy as sa

from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.exceptions import OptimisticConcurrencyError
from tests.support.events import an_event

GOLDEN = Path(__file__).parents[1] / "golden"


def wrapped(statement):
    """Break long lines at spaces, so that a diff shows what changed."""
    lines = statement.strip().splitlines()
    return "\n".join(
        part
        for line in lines
        for part in textwrap.wrap(line, 110, break_long_words=False, break_on_hyphens=False, subsequent_indent="    ")
    )


async def append_in_a_savepoint(store, uow):
    async with uow.session.begin_nested():
        await store.append([an_event("new")], uow=uow)
    await store.append([an_event("new")], uow=uow)


async def refused(store, uow):
    with pytest.raises(OptimisticConcurrencyError):
        await store.append([an_event("new"), an_event("a", version=2)], uow=uow)


async def change_nothing(store, uow):
    async with store.allow_changes(uow=uow):
        pass


class TestEmittedSql:
    """The SQL that the store sends, reviewed: one file a database and operation in tests/core/golden.

    UPDATE_GOLDEN=1 pytest tests/core/event_store/test_emitted_sql.py   writes the files anew; then read the diff.
    """

    OPERATIONS: ClassVar = {
        "append_one": lambda store, uow: store.append([an_event("new")], uow=uow),
        "append_several": lambda store, uow: store.append([an_event("new"), an_event("new")], uow=uow),
        "append_again": append_in_a_savepoint,
        "append_refused": refused,
        "get_events": lambda store, uow: store.get_events("a", uow=uow),
        "get_events_limited": lambda store, uow: store.get_events("a", after_version=1, limit=2, uow=uow),
        "get_events_after": lambda store, uow: store.get_events_after(0, uow=uow),
        "get_events_after_filtered": lambda store, uow: store.get_events_after(
            0, limit=2, event_types=["Placed", "Paid"], aggregate_types=["Order"], uow=uow
        ),
        "last_position": lambda store, uow: store.last_position(uow=uow),
        "allow_changes": change_nothing,
    }

    @pytest.mark.parametrize("operation", OPERATIONS)
    async def test_is_the_reviewed_one(self, store, engine, session_factory, database, operation):
        """An operation sends the statements of its golden file, in that order."""
        sent = []
        await store.append([an_event("a"), an_event("a")])
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await uow.session.connection()

            @sa.event.listens_for(engine.sync_engine, "before_cursor_execute")
            def note_statement(_connection, _cursor, statement, *_):
                sent.append(wrapped(statement))

            await self.OPERATIONS[operation](store, uow)
            await uow.rollback()
        text = ";\n\n".join(sent) + ";\n"
        file = GOLDEN / database.kind / f"{operation}.sql"
        if os.environ.get("UPDATE_GOLDEN"):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        assert text == file.read_text()

    def test_has_no_file_left_over(self):
        """Every golden file belongs to an operation."""
        expected = {f"{kind}/{operation}.sql" for kind in ("postgresql", "sqlite") for operation in self.OPERATIONS}
        assert {str(file.relative_to(GOLDEN)) for file in GOLDEN.rglob("*.sql")} == expected
