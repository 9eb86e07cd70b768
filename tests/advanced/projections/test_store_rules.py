"""The rules of the statements that write, one by one, on both databases."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError

from cqrs_ddd_advanced_core.projections.schema import ProjectionSchema
from cqrs_ddd_persistence_sqlalchemy import SQLAlchemyUnitOfWork
from cqrs_ddd_persistence_sqlalchemy.advanced import SQLAlchemyProjectionStore
from cqrs_ddd_persistence_sqlalchemy.advanced.projections import statements
from cqrs_ddd_persistence_sqlalchemy.exceptions import OptimisticConcurrencyError, PersistenceError
from tests.advanced.projections.conftest import ORDERS


@pytest.fixture
def gone_for_a_moment(monkeypatch):
    """The first look for what stood in a statement's way finds no row: somebody has just deleted it."""
    real, looks = statements.read_guards, []

    def read_guards(collection):
        looks.append(collection.name)
        return real(collection).where(sa.false()) if len(looks) == 1 else real(collection)

    monkeypatch.setattr(statements, "read_guards", read_guards)
    return looks


async def test_a_row_that_vanishes_after_the_statement_is_written_after_all(store, gone_for_a_moment):
    """The statement runs again, and decides again: here it finds the row, and the event to be no news."""
    await store.upsert("orders", "o1", {"customer": "Ada"}, event_id="e1")
    assert await store.upsert("orders", "o1", {"customer": "Bob"}, event_id="e1") is False
    assert gone_for_a_moment == ["orders"] * 2
    assert (await store.find_one("orders", "o1"))["customer"] == "Ada"


async def test_another_constraint_than_unique_and_not_null_is_the_databases_own_error(engine, session_factory):
    """A CHECK that somebody added by hand is no ValueError: the error passes through untouched."""
    async with engine.begin() as connection:
        await connection.execute(
            sa.text(
                "CREATE TABLE checked (id INTEGER PRIMARY KEY, age INTEGER CHECK (age > 0), name VARCHAR(9) UNIQUE)"
            )
        )
    store = SQLAlchemyProjectionStore(session_factory)
    with pytest.raises(IntegrityError):
        await store.upsert("checked", 1, {"age": -1})
    with pytest.raises(IntegrityError):
        await store.bulk_upsert("checked", [{"id": 1, "age": -1}])
    assert await store.count("checked") == 0


async def test_a_batch_of_like_documents_is_one_statement(engine, store):
    """A thousand documents with the same columns go to the driver together: as lists, or on SQLite to executemany."""
    sent = []
    event.listen(engine.sync_engine, "before_cursor_execute", lambda *args: sent.append((args[2], args[-1])))
    await store.bulk_upsert("order_lines", ({"order": "o", "Line": n} for n in range(1000)))
    assert [many for statement, many in sent if statement.startswith("INSERT")] == [engine.dialect.name == "sqlite"]


async def test_without_another_unique_column_no_savepoint_is_made(engine, session_factory, store):
    """Where nothing but the key can clash, a write in a unit of work is one statement."""
    sent = []
    event.listen(engine.sync_engine, "savepoint", lambda *args: sent.append(args[1]))
    async with SQLAlchemyUnitOfWork(session_factory) as uow:
        await store.upsert("order_lines", {"order": "o", "Line": 1}, {"quantity": 2}, uow=uow)
        assert sent == []
        await store.upsert("orders", "o1", {"customer": "Ada"}, uow=uow)
        assert len(sent) == 1


async def test_a_version_that_is_null_counts_as_zero(session_factory):
    """For every guard and for counting up; a document without one is no conflict with 0."""
    schema = ProjectionSchema(
        collection="loose",
        fields=[
            ("id", "INTEGER PRIMARY KEY"),
            ("name", "TEXT"),
            ("must", "TEXT NOT NULL"),
            ("_version", "INTEGER"),
            ("_last_event_id", "TEXT"),
            ("_last_event_position", "BIGINT"),
        ],
    )
    store = SQLAlchemyProjectionStore(session_factory, allow_auto_ddl=True)
    await store.ensure_collection("loose", schema=schema)
    for number, doc in enumerate(({"name": "b"}, {"name": "b", "must": "y"})):  # an UPDATE, and an upsert
        await store.upsert("loose", number, {"name": "a", "must": "x"})
        assert (await store.find_one("loose", number))["_version"] is None
        with pytest.raises(OptimisticConcurrencyError, match="expected version 1, found None"):
            await store.upsert("loose", number, doc, expected_version=1)
        with pytest.raises(OptimisticConcurrencyError, match="expected version 1, found None"):
            await store.delete("loose", number, expected_version=1)
        assert await store.upsert("loose", number, doc, expected_version=0, event_id="e0", event_position=0)
        row = await store.find_one("loose", number)
        assert (row["_version"], row["_last_event_id"], row["_last_event_position"]) == (1, "e0", 0)
        assert await store.upsert("loose", number, doc, event_position=0) is False
        assert await store.upsert("loose", number, {"_version": None})
        assert (await store.find_one("loose", number))["_version"] == 2
    await store.upsert("loose", 9, {"name": "a", "must": "x"})
    assert await store.delete("loose", 9, expected_version=0) is True


async def test_an_empty_event_id_is_an_event_id(store):
    """It guards like any other."""
    assert await store.upsert("orders", "o1", {"customer": "Ada"}, event_id="")
    assert await store.upsert("orders", "o1", {"customer": "Bob"}, event_id="") is False


async def test_a_part_of_a_missing_document_names_only_what_is_missing(store):
    """Not what the document brought."""
    with pytest.raises(ValueError, match="a new one needs customer$"):
        await store.upsert("orders", "o1", {"total": 1})


async def test_nothing_but_guards_may_be_checked(store):
    """A document without columns that expects a version counts the version up, and no other document's."""
    for name in ("o1", "o2"):
        await store.upsert("orders", name, {"customer": "Ada"})
    assert await store.upsert("orders", "o1", {}, expected_version=1)
    assert await store.upsert("orders", "o1", {"_version": 5}, expected_version=2)
    with pytest.raises(OptimisticConcurrencyError, match="expected version 2, found 5"):
        await store.upsert("orders", "o1", {}, expected_version=2)
    assert [row["_version"] for row in await store.find("orders")] == [5, 1]


async def test_a_partial_unique_index_identifies_nothing(session_factory, engine):
    """Neither read from the database nor from a schema can some rows' uniqueness stand for a key."""
    schema = ProjectionSchema(
        collection="partial",
        fields=[("id", "INTEGER PRIMARY KEY"), ("code", "TEXT"), ("open", "BOOLEAN")],
        indexes=[{"columns": ["code"], "unique": True, "where": {"open": True}}],
    )
    await SQLAlchemyProjectionStore(session_factory, allow_auto_ddl=True).ensure_collection("partial", schema=schema)
    with pytest.raises(ValueError, match="column 'code' of 'partial' does not identify documents"):
        SQLAlchemyProjectionStore(session_factory, schemas=[schema], default_id_column="code")
    for schemas in ((), (schema,)):
        store = SQLAlchemyProjectionStore(session_factory, schemas=schemas)
        with pytest.raises(ValueError, match="column 'code' of 'partial' does not identify documents"):
            await store.bulk_upsert("partial", [{"id": 1, "code": "x"}], "code")
        async with SQLAlchemyUnitOfWork(session_factory) as uow:
            await store.upsert("partial", 1, {"code": "x", "open": True}, uow=uow)
            with pytest.raises(ValueError, match="UNIQUE"):
                await store.upsert("partial", 2, {"code": "x", "open": True}, uow=uow)
            await store.upsert("partial", 2, {"code": "x", "open": False}, uow=uow)
        assert await store.count("partial") == 2


async def test_a_schema_of_another_collection_is_refused(store):
    """`ensure_collection` does not create what was not named."""
    schema = ProjectionSchema(collection="one", fields=[("id", "INTEGER PRIMARY KEY")])
    with pytest.raises(ValueError, match="collection 'two' is given the schema of 'one'"):
        await store.ensure_collection("two", schema=schema)


async def test_version_zero_of_a_missing_document_is_no_conflict(store):
    """A part of a document that is not there yet lacks columns; deleting one that is not there deletes nothing."""
    with pytest.raises(ValueError, match="a new one needs customer"):
        await store.upsert("orders", "o1", {"total": 1}, expected_version=0)
    assert await store.delete("orders", "o1", expected_version=0) is False


async def test_a_key_alone_passes_over_no_other_constraint(session_factory):
    """A new document whose default clashes with another's is refused, not passed over in silence."""
    schema = ProjectionSchema(
        collection="slots", fields=[("id", "INTEGER PRIMARY KEY"), ("code", "TEXT UNIQUE DEFAULT 'free'")]
    )
    store = SQLAlchemyProjectionStore(session_factory, allow_auto_ddl=True)
    await store.ensure_collection("slots", schema=schema)
    assert await store.upsert("slots", 1, {})
    assert await store.upsert("slots", 1, {})
    for write in (store.upsert("slots", 2, {}), store.bulk_upsert("slots", [{"id": 2}])):
        with pytest.raises(ValueError, match="column code of 'slots' is UNIQUE"):
            await write
    assert await store.count("slots") == 1


async def test_what_a_trigger_keeps_from_being_written_ends_in_an_error(database, engine, store):
    """An UPDATE or DELETE that the database drops without a word is not tried for ever."""
    await store.upsert("orders", "o1", {"customer": "Ada"})
    if database.kind == "sqlite":
        triggers = [
            f"CREATE TRIGGER no_{what} BEFORE {what} ON orders BEGIN SELECT RAISE(IGNORE); END"
            for what in ("UPDATE", "DELETE")
        ]
    else:
        triggers = [
            "CREATE FUNCTION nothing_doing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
            "CREATE TRIGGER no BEFORE UPDATE OR DELETE ON orders FOR EACH ROW EXECUTE FUNCTION nothing_doing()",
        ]
    async with engine.begin() as connection:
        for trigger in triggers:
            await connection.exec_driver_sql(trigger)
    message = "does not let document {'id': 'o1'} of 'orders' be written.*a trigger or a row-level policy"
    with pytest.raises(PersistenceError, match=message):
        await store.upsert("orders", "o1", {"total": 5})
    with pytest.raises(PersistenceError, match=message):
        await store.delete("orders", "o1")


async def test_a_column_of_a_wider_unique_index_identifies_nothing(session_factory):
    """Only a column that is unique by itself does, read from the database or from a schema."""
    schema = ProjectionSchema(
        collection="wide",
        fields=[("id", "INTEGER PRIMARY KEY"), ("code", "TEXT"), ("place", "TEXT")],
        indexes=[{"columns": ["code", "place"], "unique": True}],
    )
    store = SQLAlchemyProjectionStore(session_factory, allow_auto_ddl=True)
    await store.ensure_collection("wide", schema=schema)
    with pytest.raises(ValueError, match="column 'code' of 'wide' does not identify documents"):
        await store.bulk_upsert("wide", [{"id": 1, "code": "x"}], "code")
    with pytest.raises(ValueError, match="column 'place' of 'wide' does not identify documents"):
        SQLAlchemyProjectionStore(session_factory, schemas=[schema], default_id_column="place")


async def test_the_key_alone_finds_a_document_that_has_more(session_factory):
    """It changes nothing where the table keeps no versions, and is too little for a new document."""
    schema = ProjectionSchema(
        collection="plain", fields=[("id", "INTEGER PRIMARY KEY"), ("name", "TEXT NOT NULL"), ("age", "INTEGER")]
    )
    store = SQLAlchemyProjectionStore(session_factory, allow_auto_ddl=True)
    await store.ensure_collection("plain", schema=schema)
    await store.upsert("plain", 1, {"name": "Ada", "age": 5})
    assert await store.upsert("plain", 1, {}) is True
    assert await store.find("plain") == [{"id": 1, "name": "Ada", "age": 5}]
    with pytest.raises(ValueError, match="a new one needs name"):
        await store.upsert("plain", 2, {})


async def test_the_key_may_be_named_as_what_identifies_documents(session_factory, store):
    """An id column that is the primary key makes no difference."""
    for schemas in ((), (ORDERS,)):
        named = SQLAlchemyProjectionStore(session_factory, schemas=schemas, default_id_column="id")
        await named.upsert("orders", "o1", {"customer": "Ada"})
        assert (await named.find_one("orders", "o1"))["customer"] == "Ada"
    await store.bulk_upsert("orders", [{"id": "o1", "status": "x"}], "id")
    assert (await store.find_one("orders", "o1"))["status"] == "x"


async def test_a_batch_may_name_another_unique_column_than_the_key(store):
    """Documents that are there are found by it and need not bring their key, whatever the store's schemas say."""
    await store.upsert("orders", "o1", {"customer": "Ada", "email": "a@b.c"})
    assert await store.bulk_upsert("orders", [{"email": "a@b.c", "status": "paid"}], "email") == 1
    assert (await store.find_one("orders", "o1"))["status"] == "paid"
    assert await store.count("orders") == 1


async def test_a_refused_document_is_looked_at_once(store):
    """Where another look finds the table unchanged, nothing is done again."""
    looks = []

    class Document(dict):
        def items(self):
            looks.append(self)
            return super().items()

    await store.upsert("orders", "o1", Document(customer="Ada"))
    for _ in range(2):
        looks.clear()
        with pytest.raises(ValueError, match="does not fit"):
            await store.upsert("orders", "o1", Document(customer=5))
    assert len(looks) == 1


async def test_a_deletion_that_expects_a_version_needs_its_column(store):
    """As an upsert does; and a version is a whole number."""
    with pytest.raises(ValueError, match="collection 'order_lines' has no column '_version', which this guard needs"):
        await store.delete("order_lines", {"order": "o", "Line": 1}, expected_version=1)
    with pytest.raises(ValueError, match="expected_version"):
        await store.delete("orders", "o1", expected_version="1")
