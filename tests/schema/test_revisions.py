"""A projection's revision: frozen DDL, written without a database, that makes the same table on both."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from importlib import invalidate_caches
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from alembic.util import CommandError
from sqlalchemy.ext.asyncio import create_async_engine

from cqrs_ddd_advanced_core.projections import ProjectionSchema
from cqrs_ddd_persistence_sqlalchemy.advanced.projections.tables import build_table
from cqrs_ddd_persistence_sqlalchemy.schema.registry import check_collection, load_schema
from tests.schema.every_type import DEFAULTS, EVERYTHING, LONG, LONG_NAMED, TICKET, TYPES
from tests.schema.revision_files import assignments, imports, unfixed_names
from tests.support.command_line import (
    DEAD,
    HEAD,
    column,
    copy_repository,
    execute,
    fail,
    run_script,
    schema,
    succeed,
    tables,
)

if TYPE_CHECKING:
    from pathlib import Path

SMALL = ProjectionSchema("order_summaries", [("id", "UUID PRIMARY KEY"), ("total", "DECIMAL(10, 2) DEFAULT 0")])

# Words that a database reserves, those first that SQLAlchemy does not know of and so would not quote by itself.
WORDS = ["nothing", "returning", "lateral", "tablesample", "collation", "concurrently", "from", "Group", "table", "end"]

RESERVED = ProjectionSchema(
    "returning",
    [("lateral", "TEXT PRIMARY KEY"), *((word, "TEXT UNIQUE") for word in WORDS if word != "lateral")],
    WORDS,
)

READ_MODELS = f"""
from cqrs_ddd_advanced_core.projections import ProjectionSchema

everything = ProjectionSchema.from_dict({EVERYTHING.to_dict()!r})
small = ProjectionSchema.from_dict({SMALL.to_dict()!r})
reserved = ProjectionSchema.from_dict({RESERVED.to_dict()!r})
long_named = ProjectionSchema.from_dict({LONG_NAMED.to_dict()!r})
of_the_library = ProjectionSchema("Events", [("id", "UUID PRIMARY KEY")])
"""


@pytest.fixture
def repository(tmp_path):
    """A copy of the repository with read models in a package."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").write_text("")
    (tmp_path / "shop" / "read_models.py").write_text(READ_MODELS)
    return copy_repository(tmp_path)


@pytest.fixture(scope="module")
def revised(tmp_path_factory):
    """A copy of the repository with a revision for everything, and one for long names on top."""
    folder = tmp_path_factory.mktemp("revised")
    (folder / "shop.py").write_text(READ_MODELS)
    copy_repository(folder)
    generate(folder, "shop:everything")
    generate(folder, "shop:long_named")
    return folder


def _unbracketed(text: str) -> str:
    return " ".join(re.sub("[()]", "", text).split())


def generate(folder: Path, target: str) -> Path:
    """Write a revision while the database is down, and return its file."""
    before = revisions(folder)
    succeed("-x", f"projection={target}", "revision", "-m", "create it", cwd=folder, url=DEAD)
    (made,) = revisions(folder) - before
    return made


def revisions(folder: Path) -> set[Path]:
    """Return the files of the revisions that are not the library's."""
    found = set((folder / "migrations" / "versions").glob("*.py"))
    return {path for path in found if not path.name.startswith("cqrs_")}


def test_a_revision_here_stacks_on_the_head(repository):
    """The file is next to the library's, follows its head, and names the collection."""
    path = generate(repository, "shop.read_models:small")
    written = assignments(path)
    assert written["down_revision"] == HEAD
    assert written["projections"] == ("order_summaries",)
    assert succeed("heads", cwd=repository) == f"{written['revision']} (head)\n"
    second = assignments(generate(repository, "shop.read_models:everything"))
    assert second["down_revision"] == written["revision"]
    assert second["projections"] == ("Order",)


def test_a_revision_is_frozen(revised):
    """It imports SQLAlchemy and Alembic alone, and spells out the name of every constraint and index."""
    paths = sorted(revisions(revised))
    assert len(paths) == 2
    for path in paths:
        assert imports(path) <= {"__future__", "alembic", "sqlalchemy", "sqlalchemy.dialects"}
        assert unfixed_names(path) == []


def test_a_revision_makes_what_its_schema_describes(revised, empty_database, databases):
    """The table, with every type, default, key and index, is the one that the schema makes directly."""
    succeed("upgrade", "head", cwd=revised, url=empty_database.dsn)
    with databases.fresh(empty_database.kind) as other:
        wanted = build_table(EVERYTHING, sa.MetaData()), build_table(LONG_NAMED, sa.MetaData())

        async def create() -> None:
            engine = create_async_engine(other.url)
            async with engine.begin() as connection:
                for table in wanted:
                    await connection.run_sync(table.create)
            await engine.dispose()

        asyncio.run(create())
        # SQLAlchemy 2.0 puts brackets around the defaults of SQLite, which mean nothing.
        assert [_unbracketed(text) for text in schema(empty_database)] == [_unbracketed(text) for text in schema(other)]


def test_a_revision_goes_down_again(revised, database):
    """The downgrade leaves no trace, and the upgrade works once more."""
    before = schema(database)
    succeed("upgrade", "head", cwd=revised, url=database.dsn)
    after = schema(database)
    assert {"Order", LONG} <= tables(database)
    succeed("downgrade", HEAD, cwd=revised, url=database.dsn)
    assert schema(database) == before
    succeed("upgrade", "head", cwd=revised, url=database.dsn)
    assert schema(database) == after


def test_a_revision_works_as_a_script(revised, empty_database, reference, server):
    """The script of a run with projections makes what the run itself makes, awkward strings and all."""
    succeed("upgrade", "head", cwd=revised, url=reference.dsn)
    run_script(succeed("upgrade", "head", "--sql", cwd=revised, url=empty_database.dsn), empty_database, server)
    assert schema(empty_database) == schema(reference)
    run_script(
        succeed("downgrade", f"head:{HEAD}", "--sql", cwd=revised, url=empty_database.dsn), empty_database, server
    )
    assert {"Order", LONG} & tables(empty_database) == set()


async def test_defaults_read_back_as_they_were_declared(revised, empty_database):
    """A row that brings its key alone has every default, equal on both databases."""
    await asyncio.to_thread(succeed, "upgrade", "head", cwd=revised, url=empty_database.dsn)
    table = build_table(EVERYTHING, sa.MetaData())
    engine = create_async_engine(empty_database.url)
    async with engine.begin() as connection:
        await connection.execute(sa.insert(table).values({"select": TICKET, "Part": 1}))
        row = (await connection.execute(sa.select(table))).mappings().one()
    await engine.dispose()
    assert {name: row[name] for name, *_ in DEFAULTS} == {name: value for name, _, _, value in DEFAULTS}
    assert abs(datetime.now(UTC) - row["stamped"]).total_seconds() < 60
    assert [row[name] for name in row if name.startswith(("plain_", "array_", "bytes"))] == [None] * (
        2 * len(TYPES) + 1
    )


def test_reserved_words_are_names_as_any_other(repository, empty_database):
    """Tables, columns and indexes may have the name of any word that either database reserves."""
    generate(repository, "shop.read_models:reserved")
    succeed("upgrade", "head", cwd=repository, url=empty_database.dsn)
    execute(empty_database, """INSERT INTO "returning" ("lateral", "nothing") VALUES ('a', 'b')""")
    assert column(empty_database, 'SELECT "nothing" FROM "returning" WHERE "lateral" IS NOT NULL') == ["b"]
    succeed("-x", "allow-data-loss=yes", "downgrade", HEAD, cwd=repository, url=empty_database.dsn)
    assert "returning" not in tables(empty_database)


def test_checks_pass_with_projections_in_the_chain(revised, empty_database):
    """`alembic check` has nothing to say about the tables of projections."""
    succeed("upgrade", "head", cwd=revised, url=empty_database.dsn)
    assert succeed("check", cwd=revised, url=empty_database.dsn) == "No new upgrade operations detected.\n"


def test_a_collection_is_created_once(repository):
    """A second revision for a collection is refused, names the first, and writes nothing, upgraded or not."""
    path = generate(repository, "shop.read_models:small")
    succeed("upgrade", "head", cwd=repository)
    message = fail("-x", "projection=shop.read_models:small", "revision", "-m", "again", cwd=repository)
    assert "'order_summaries' has its revision already" in message
    assert assignments(path)["revision"] in message
    assert revisions(repository) == {path}


@pytest.mark.parametrize(
    "target", ["shop.read_models", "shop.nothing:small", "shop.read_models:nothing", "shop.read_models:of_the_library"]
)
def test_a_refused_target_writes_nothing(repository, target):
    """A target that is no new projection ends in one line that names it, and no file is left."""
    message = fail("-x", f"projection={target}", "revision", "-m", "create it", cwd=repository, url=DEAD)
    assert (target in message) or "'Events'" in message
    assert revisions(repository) == set()


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """Writes modules that can be imported during the test."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(**sources: str) -> None:
        for name, source in sources.items():
            (tmp_path / f"{name}.py").write_text(source)
        invalidate_caches()

    return write


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("", r"write it as package.module:schema"),
        (":", r"write it as package.module:schema"),
        ("shop_a", r"write it as package.module:schema"),
        ("shop_a:", r"write it as package.module:schema"),
        (":small", r"write it as package.module:schema"),
        ("shop_a:small:small", r"write it as package.module:schema"),
        ("shop_a:small ", r"write it as package.module:schema"),
        (".shop_a:small", r"write it as package.module:schema"),
        ("no_such_module:small", r"there is no module 'no_such_module'"),
        ("no_such.module:small", r"there is no module 'no_such'"),
        ("shop_a.module:small", r"there is no module 'shop_a.module'"),
        ("shop_a:nothing", r"shop_a has no such name, .*its schemas: small"),
        ("shop_a:number", r"shop_a has a int there, .*its schemas: small"),
        ("shop_a:ProjectionSchema", r"shop_a has a type there, .*its schemas: small"),
        ("shop_missing:small", r"there is no module 'no_such_requirement'"),
        ("shop_import:small", r"importing shop_import failed: .*cannot import name 'nothing'"),
        ("shop_syntax:small", r"importing shop_syntax failed: .*shop_syntax.py, line 1"),
        ("shop_schema:small", r"importing shop_schema failed: .*Invalid SQL table name: 'a b'"),
        ("shop_value:small", r"importing shop_value failed: .*two lines"),
        ("shop_runtime:small", r"importing shop_runtime failed: .*no settings"),
        ("shop_name:small", r"importing shop_name failed: .*'undefined'"),
        ("shop_zero:small", r"importing shop_zero failed: .*division by zero"),
    ],
)
def test_targets_are_refused_in_one_line(modules, target, said):
    """What cannot be imported, or is no schema, is said in one line that begins with the target."""
    modules(
        shop_a=f"""
from cqrs_ddd_advanced_core.projections import ProjectionSchema
small = ProjectionSchema.from_dict({SMALL.to_dict()!r})
number = 7
""",
        shop_missing="import no_such_requirement",
        shop_import="from shop_a import nothing",
        shop_syntax="def small(:",
        shop_schema="from cqrs_ddd_advanced_core.projections import *\nsmall = ProjectionSchema('a b', [])",
        shop_value="raise ValueError('two\\nlines')",
        shop_runtime="raise RuntimeError('no settings')",
        shop_name="small = undefined",
        shop_zero="small = 1 / 0",
    )
    with pytest.raises(CommandError, match=said) as refused:
        load_schema(target)
    assert str(refused.value).startswith(f"-x projection={target}: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "name", ["events", "EVENTS", "projection_positions", "alembic_version", "cqrs_ddd_alembic_version"]
)
def test_the_librarys_names_are_taken(name):
    """A collection cannot have the name of a table of the library, in whatever case."""
    with pytest.raises(CommandError, match=rf"collection '{name}' has the name of a table of the library"):
        check_collection(ProjectionSchema(name, [("id", "UUID PRIMARY KEY")]))
