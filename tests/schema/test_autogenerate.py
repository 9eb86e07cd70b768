"""`alembic revision --autogenerate`: what it proposes, what it leaves alone, and what it refuses."""

from __future__ import annotations

import asyncio
import re
import sys
from typing import TYPE_CHECKING

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from cqrs_ddd_advanced_core.projections import ProjectionIndex, ProjectionSchema
from cqrs_ddd_persistence_sqlalchemy.schema import verify
from tests.support.command_line import (
    column,
    copy_repository,
    declare,
    execute,
    fail,
    generate,
    make_application,
    schema,
    succeed,
    tables,
)

if TYPE_CHECKING:
    from tests.support.databases import Database

KEY = ("id", "TEXT PRIMARY KEY")


def orders(*fields: tuple[str, str], indexes: tuple = ()) -> ProjectionSchema:
    """Return a schema of the collection 'orders' with these columns beside its key."""
    return ProjectionSchema("orders", [KEY, *fields], indexes)


@pytest.fixture
def app(tmp_path):
    """An application that registers its schemas, and has none yet."""
    return make_application(tmp_path / "app")


def migrate(app, database: Database, message: str, *schemas: ProjectionSchema) -> str:
    """Write the revisions for the schemas, apply them, and return their text."""
    text = "".join(path.read_text() for path in generate(app, database, message, *schemas))
    succeed("upgrade", "head", cwd=app, url=database.url)
    return text


def refused(app, database: Database, *schemas: ProjectionSchema) -> str:
    """Return why the revision for the schemas is refused; no file is left."""
    declare(app, *schemas)
    before = set((app / "versions").glob("*.py"))
    message = fail("revision", "--autogenerate", "-m", "refused", cwd=app, url=database.url)
    assert set((app / "versions").glob("*.py")) == before
    return message


def matches(database: Database, *schemas: ProjectionSchema) -> None:
    """Make sure that an application with these schemas would start."""

    async def check() -> None:
        engine = create_async_engine(database.url)
        await verify(engine, schemas=schemas)
        await engine.dispose()

    asyncio.run(check())


def test_all_new_collections_share_a_revision(app, database):
    """One command writes one revision that creates every registered collection, wherever the module keeps it."""
    text = """
from cqrs_ddd_advanced_core.projections import ProjectionSchema
one = ProjectionSchema("one", [("id", "TEXT PRIMARY KEY")])
MORE = [ProjectionSchema("two", [("id", "TEXT PRIMARY KEY")])]
BY_NAME = {"three": ProjectionSchema("three", [("id", "TEXT PRIMARY KEY")]), "other": one}
"""
    (app / "read_models.py").write_text(text)
    succeed("revision", "--autogenerate", "-m", "create", cwd=app, url=database.url)
    succeed("upgrade", "head", cwd=app, url=database.url)
    [path] = (app / "versions").glob("*.py")
    assert "projections: tuple[str, ...] = ('one', 'three', 'two')" in path.read_text()
    assert {"one", "two", "three"} <= tables(database)
    assert "No new upgrade operations" in succeed("check", cwd=app, url=database.url)


def test_a_check_names_what_is_missing(app, database):
    """`alembic check` fails while a change has no revision, and names table and column."""
    migrate(app, database, "create", orders())
    declare(app, orders(("total", "DECIMAL(10, 2)")))
    message = fail("check", cwd=app, url=database.url)
    assert "add_column" in message
    assert "'orders'" in message
    assert "'total'" in message


def test_a_dropped_collection_is_announced(app, database):
    """A collection whose schema is gone is dropped: said in the file and on the terminal, and undone by a downgrade."""
    lines = ProjectionSchema("lines", [KEY, ("n", "INTEGER UNIQUE DEFAULT 7")], ["n"])
    migrate(app, database, "create", orders(), lines)
    before = schema(database)
    declare(app, orders())
    said = succeed("revision", "--autogenerate", "-m", "drop lines", cwd=app, url=database.url)
    assert "DESTRUCTIVE: drops table 'lines' with all its rows" in said
    [path] = (app / "versions").glob("*drop_lines.py")
    assert re.search(r"# DESTRUCTIVE: drops table 'lines' .*\n    op.drop_table\('lines'\)", path.read_text())
    succeed("upgrade", "head", cwd=app, url=database.url)
    assert "lines" not in tables(database)
    assert generate(app, database, "nothing", orders()) == []
    succeed("downgrade", "-1", cwd=app, url=database.url)
    assert schema(database) == before
    succeed("upgrade", "head", cwd=app, url=database.url)
    migrate(app, database, "again", orders(), lines)
    assert schema(database) == before


def test_drops_need_projections(app, database):
    """Where one schema is named by the option, nothing is said of the others."""
    migrate(app, database, "create", orders(), ProjectionSchema("lines", [KEY]))
    declare(app, orders(("total", "INTEGER")))
    target = "projection=read_models:orders"
    succeed("-x", target, "revision", "--autogenerate", "-m", "total", cwd=app, url=database.url)
    [path] = (app / "versions").glob("*total.py")
    assert "lines" not in path.read_text()
    succeed("upgrade", "head", cwd=app, url=database.url)
    matches(database, orders(("total", "INTEGER")), ProjectionSchema("lines", [KEY]))


def test_other_tables_are_left_alone(app, database):
    """Tables that no projection owns, and the library's, are neither dropped nor changed."""
    execute(database, "CREATE TABLE customers (id TEXT PRIMARY KEY)", "CREATE INDEX of_mine ON customers (id)")
    text = migrate(app, database, "create", orders())
    assert "customers" not in text
    assert generate(app, database, "nothing", orders()) == []
    assert "No new upgrade operations" in succeed("check", cwd=app, url=database.url)


def test_indexes_beyond_the_grammar_are_left_alone(app, database):
    """An index over an expression, which no schema can declare, stays; one over columns goes."""
    migrate(app, database, "create", orders(("name", "TEXT")))
    execute(database, "CREATE INDEX by_lower ON orders (lower(name))", "CREATE INDEX by_name ON orders (name)")
    text = migrate(app, database, "indexes", orders(("name", "TEXT")))
    assert "by_name" in text
    assert "by_lower" not in text
    assert generate(app, database, "nothing", orders(("name", "TEXT"))) == []


def test_without_projections_there_is_nothing_to_compare(app, database):
    """An application that does not say where its schemas are is told how to."""
    ini = app / "alembic.ini"
    ini.write_text(ini.read_text().replace("projections = read_models\n", ""))
    message = fail("revision", "--autogenerate", "-m", "x", cwd=app, url=database.url)
    assert "projections = package.read_models" in message


def test_this_repository_compares_its_projections_too(tmp_path, database):
    """A team that keeps this repository as its schema package sets `projections` in the same way."""
    repository = copy_repository(tmp_path / "repository")
    ini = repository / "alembic.ini"
    ini.write_text(ini.read_text().replace("[alembic]\n", "[alembic]\nprojections = read_models\n"))
    declare(repository, orders())
    succeed("revision", "--autogenerate", "-m", "create", cwd=repository, url=database.url)
    succeed("upgrade", "head", cwd=repository, url=database.url)
    matches(database, orders())
    assert "No new upgrade operations" in succeed("check", cwd=repository, url=database.url)


@pytest.mark.parametrize("module", ["read_models other_models", "read_models,\n    other_models"])
def test_several_modules_may_declare_schemas(tmp_path, database, module):
    """`projections` takes several modules, between spaces, commas or on lines of their own."""
    app = make_application(tmp_path / "app", orders())
    ini = app / "alembic.ini"
    ini.write_text(ini.read_text().replace("projections = read_models", f"projections = {module}"))
    (app / "other_models.py").write_text((app / "read_models.py").read_text().replace("'orders'", "'lines'"))
    succeed("revision", "--autogenerate", "-m", "create", cwd=app, url=database.url)
    succeed("upgrade", "head", cwd=app, url=database.url)
    assert {"orders", "lines"} <= tables(database)


@pytest.mark.parametrize(
    ("schemas", "said"),
    [
        (
            [
                ProjectionSchema("a_b", [KEY, ("c", "TEXT")], ["c"]),
                ProjectionSchema("a", [KEY, ("b_c", "TEXT")], ["b_c"]),
            ],
            "'ix_a_b_c'",
        ),
        ([ProjectionSchema("pk_orders", [KEY]), orders()], "'pk_orders'"),
        ([ProjectionSchema("Orders", [KEY]), orders()], "the table of collection"),
        ([ProjectionSchema("Events", [KEY])], "name of a table of the library"),
    ],
)
def test_names_that_clash_are_refused(app, database, schemas, said):
    """Collections whose tables, keys or indexes would share a name are refused before anything is written."""
    assert said in refused(app, database, *schemas)


def test_two_schemas_of_one_collection_are_refused(app, database):
    """Two schemas for one collection are refused; the same one under two names is fine."""
    (app / "read_models.py").write_text(
        """
from cqrs_ddd_advanced_core.projections import ProjectionSchema
one = also_one = ProjectionSchema("orders", [("id", "TEXT PRIMARY KEY")])
other = ProjectionSchema("orders", [("id", "INTEGER PRIMARY KEY")])
"""
    )
    message = fail("revision", "--autogenerate", "-m", "x", cwd=app, url=database.url)
    assert "collection 'orders' has two different schemas" in message
    assert list((app / "versions").glob("*.py")) == []


def test_not_null_without_a_default_needs_an_empty_table(app, database):
    """A NOT NULL column without a default is refused where the table has rows, with two ways out."""
    migrate(app, database, "create", orders())
    execute(database, "INSERT INTO orders (id) VALUES ('o-1')")
    message = refused(app, database, orders(("total", "INTEGER NOT NULL")))
    assert "column 'total' of 'orders'" in message
    assert "give it a DEFAULT" in message
    assert "leave NOT NULL out" in message
    execute(database, "DELETE FROM orders")
    migrate(app, database, "total", orders(("total", "INTEGER NOT NULL")))
    matches(database, orders(("total", "INTEGER NOT NULL")))


def test_not_null_is_refused_where_there_are_nulls(app, database):
    """A column with NULLs in it cannot become NOT NULL: said when the revision is written, or when it is applied."""
    migrate(app, database, "create", orders(("total", "INTEGER")))
    execute(database, "INSERT INTO orders (id) VALUES ('o-1')")
    assert "column 'total' of 'orders'" in refused(app, database, orders(("total", "INTEGER NOT NULL")))
    execute(database, "UPDATE orders SET total = 1")
    generate(app, database, "require", orders(("total", "INTEGER NOT NULL")))
    execute(database, "INSERT INTO orders (id) VALUES ('o-2')")
    message = fail("upgrade", "head", cwd=app, url=database.url)
    assert "the rows that are there do not allow this change" in message
    execute(database, "DELETE FROM orders WHERE total IS NULL")
    succeed("upgrade", "head", cwd=app, url=database.url)
    matches(database, orders(("total", "INTEGER NOT NULL")))


INEXACT = [
    ("TEXT", "UUID"),
    ("UUID", "TEXT"),
    ("JSONB", "TEXT[]"),
    ("TEXT[]", "VARCHAR(5)[]"),
    ("DATE", "TIMESTAMP"),
    ("DOUBLE PRECISION", "DECIMAL(10, 2)"),
    ("DECIMAL(10, 2)", "TEXT"),
    ("TEXT", "BYTEA"),
]


def test_changes_of_type_without_an_exact_conversion_are_refused(app, database):
    """Where values would be rounded, or mean something else on the other database, the ways out are said."""
    columns = {f"value_{number}": old for number, (old, _) in enumerate(INEXACT)}
    migrate(app, database, "create", orders(*columns.items()))
    for name, (_, new) in zip(columns, INEXACT, strict=True):
        message = refused(app, database, orders(*(columns | {name: new}).items()))
        assert f"no exact conversion exists for column {name!r} of 'orders'" in message
        assert "add a column of another name" in message


# Old type, new type, values in both, in SQL.
EXACT = [
    ("SMALLINT", "BIGINT", ["-32768", "7"], ["-32768", "7"]),
    ("INTEGER", "DECIMAL(12, 2)", ["-5", "2147483647"], ["-5", "2147483647"]),
    ("INTEGER", "TEXT", ["-5", "2147483647"], ["'-5'", "'2147483647'"]),
    ("BIGINT", "VARCHAR(20)", ["-9223372036854775807", "0"], ["'-9223372036854775807'", "'0'"]),
    ("BOOLEAN", "SMALLINT", ["TRUE", "FALSE"], ["1", "0"]),
    ("SMALLINT", "BOOLEAN", ["0", "1"], ["FALSE", "TRUE"]),
    ("TEXT", "BIGINT", ["'-9223372036854775807'", "'12'"], ["-9223372036854775807", "12"]),
    ("DECIMAL(10, 2)", "INTEGER", ["5.00", "-7"], ["5", "-7"]),
    ("DECIMAL(10, 2)", "DECIMAL(12, 3)", ["99999999.99", "-0.01"], ["99999999.99", "-0.01"]),
    ("DECIMAL(10, 2)", "DECIMAL(6, 1)", ["99999.9", "-0.50"], ["99999.9", "-0.5"]),
    ("VARCHAR(5)", "CHAR(9)", ["'abcde'", "''"], ["'abcde'", "''"]),
    ("TEXT", "VARCHAR(3)", ["'abc'", "''"], ["'abc'", "''"]),
    ("BIGINT", "SMALLINT", ["32767", "-32768"], ["32767", "-32768"]),
]


def test_values_survive_a_change_of_type(app, database):
    """Values, NULLs among them, are the same after a change of type and after its downgrade."""
    names = [f"value_{number}" for number in range(len(EXACT))]
    old = orders(*((name, f"{each[0]} DEFAULT NULL") for name, each in zip(names, EXACT, strict=True)))
    new = orders(*((name, each[1]) for name, each in zip(names, EXACT, strict=True)))
    migrate(app, database, "create", old)
    rows = [", ".join(each[2][number] for each in EXACT) for number in (0, 1)]
    nulls = ", ".join(["NULL"] * len(EXACT))
    execute(database, f"INSERT INTO orders VALUES ('a', {rows[0]}), ('b', {rows[1]}), ('c', {nulls})")

    def as_they_should_be(place: int) -> None:
        for number, row in enumerate("ab"):
            expected = " AND ".join(f"{name} = {each[place][number]}" for name, each in zip(names, EXACT, strict=True))
            assert column(database, f"SELECT count(*) FROM orders WHERE id = '{row}' AND {expected}") == [1]
        empty = " AND ".join(f"{name} IS NULL" for name in names)
        assert column(database, f"SELECT id FROM orders WHERE {empty}") == ["c"]

    as_they_should_be(2)
    migrate(app, database, "change", new)
    as_they_should_be(3)
    matches(database, new)
    assert generate(app, database, "nothing", new) == []
    succeed("downgrade", "-1", cwd=app, url=database.url)
    as_they_should_be(2)
    matches(database, old)


MISFITS = [
    ("TEXT", "VARCHAR(3)", "'abcd'"),
    ("TEXT", "INTEGER", "'1x'"),
    ("TEXT", "INTEGER", "''"),
    ("TEXT", "SMALLINT", "'40000'"),
    ("BIGINT", "INTEGER", "2147483648"),
    ("INTEGER", "BOOLEAN", "2"),
    ("INTEGER", "DECIMAL(4, 2)", "100"),
    ("DECIMAL(10, 2)", "DECIMAL(10, 1)", "0.25"),
    ("DECIMAL(10, 2)", "DECIMAL(8, 2)", "1000000"),
    ("DECIMAL(10, 2)", "SMALLINT", "0.5"),
    ("INTEGER", "VARCHAR(2)", "-10"),
]


def test_a_narrower_type_stops_at_what_does_not_fit(app, database):
    """A narrower type is announced, and applying it stops at a value that it would change: nothing is changed then."""
    columns = {f"value_{number}": old for number, (old, _, _) in enumerate(MISFITS)}
    migrate(app, database, "create", orders(*columns.items()))
    execute(database, f"INSERT INTO orders VALUES ('o-1', {', '.join(misfit for _, _, misfit in MISFITS)})")
    before = schema(database)
    for name, (_, new, _) in zip(columns, MISFITS, strict=True):
        declare(app, orders(*(columns | {name: new}).items()))
        said = succeed("revision", "--autogenerate", "-m", "narrow", cwd=app, url=database.url)
        assert f"DESTRUCTIVE: narrows column {name!r} of 'orders'" in said
        message = fail("upgrade", "head", cwd=app, url=database.url)
        assert re.search(rf"orders\.{name} has values that do not fit", message)
        assert schema(database) == before
        [path] = (app / "versions").glob("*narrow.py")
        path.unlink()


def test_elements_of_arrays_change_on_sqlite_too(app, database):
    """SQLite declares lists by their elements' type, and a table rebuilt for another reason keeps that."""
    migrate(app, database, "create", orders(("counts", "INTEGER[]")))
    text = migrate(app, database, "widen", orders(("counts", "BIGINT[]")))
    assert "postgresql.ARRAY(sa.BigInteger()).with_variant(DeclaredType('BIGINT_ARRAY'), \"sqlite\")" in text
    assert generate(app, database, "nothing", orders(("counts", "BIGINT[]"))) == []
    migrate(app, database, "rebuild", orders(("counts", "BIGINT[]"), ("name", "TEXT UNIQUE")))
    matches(database, orders(("counts", "BIGINT[]"), ("name", "TEXT UNIQUE")))
    if database.kind == "sqlite":
        assert "counts BIGINT_ARRAY" in " ".join(schema(database))


def test_another_key_is_refused(app, database):
    """A primary key cannot be changed in place, and the message says what to do instead."""
    migrate(app, database, "create", orders(("total", "INTEGER")))
    other = ProjectionSchema("orders", [("id", "TEXT"), ("total", "INTEGER")], primary_key=["id", "total"])
    assert "a key cannot be changed in place" in refused(app, database, other)


def test_a_key_may_become_longer(app, database):
    """The type of a key's column changes like any other."""
    short = ProjectionSchema("orders", [("id", "VARCHAR(5) PRIMARY KEY"), ("part", "SMALLINT PRIMARY KEY")], ["part"])
    long = ProjectionSchema("orders", [("id", "VARCHAR(9) PRIMARY KEY"), ("part", "INTEGER PRIMARY KEY")], ["part"])
    migrate(app, database, "create", short)
    execute(database, "INSERT INTO orders VALUES ('o-1', 1)")
    migrate(app, database, "longer", long)
    matches(database, long)
    assert column(database, "SELECT part FROM orders") == [1]
    assert generate(app, database, "nothing", long) == []


def test_a_table_that_is_missing_is_no_new_one(app, database):
    """A table that a revision made and somebody dropped is not silently created again."""
    migrate(app, database, "create", orders())
    execute(database, "DROP TABLE orders")
    assert "collection 'orders' is not in this database, though revision" in refused(app, database, orders())


def test_a_change_by_hand_is_recorded(app, database):
    """After a revision written by hand the next one only records what it left, so that checks agree again."""
    migrate(app, database, "create", orders())
    succeed("revision", "-m", "by hand", cwd=app, url=database.url)
    [path] = (app / "versions").glob("*by_hand.py")
    step = "op.add_column('orders', sa.Column('total', sa.Integer(), nullable=True))"
    path.write_text(path.read_text().replace("pass", step, 1))
    succeed("upgrade", "head", cwd=app, url=database.url)
    [written] = generate(app, database, "record it", orders(("total", "INTEGER")))
    assert "def upgrade() -> None:\n    # ### commands auto generated" in written.read_text()
    assert "add_column" not in written.read_text()
    succeed("upgrade", "head", cwd=app, url=database.url)
    assert generate(app, database, "nothing", orders(("total", "INTEGER"))) == []


def test_drift_is_mended(app, database):
    """What was changed by hand in the database, and by no revision, is changed back."""
    wanted = orders(("total", "INTEGER DEFAULT 5"), ("name", "TEXT"), indexes=("name",))
    migrate(app, database, "create", wanted)
    execute(database, "DROP INDEX ix_orders_name", "ALTER TABLE orders ADD COLUMN extra VARCHAR(7) DEFAULT 'a:b'")
    execute(database, "INSERT INTO orders (id) VALUES ('o-1')")
    text = migrate(app, database, "mend", wanted)
    assert "drops column 'extra' of 'orders'" in text
    assert generate(app, database, "nothing", wanted) == []
    succeed("downgrade", "-2", cwd=app, url=database.url)
    assert column(database, "SELECT extra FROM orders") == ["a:b"]


AWKWARD = 'it\'s: 50% \\ :name "x"'


def test_awkward_names_and_defaults_change(app, database):
    """Reserved words, mixed case and colons in defaults and conditions survive every kind of change."""
    quoted = AWKWARD.replace("'", "''")
    old = ProjectionSchema(
        "returning",
        [
            ("lateral", "TEXT PRIMARY KEY"),
            ("Group", f"TEXT DEFAULT '{quoted}'"),
            ("table", "INTEGER"),
            ("nothing", "TEXT"),
        ],
        [ProjectionIndex("Group", where={"Group": {"$ne": AWKWARD}}), "table"],
    )
    new = ProjectionSchema(
        "returning",
        [
            ("lateral", "VARCHAR(90) PRIMARY KEY"),
            ("Group", f"VARCHAR(90) DEFAULT '{quoted}!'"),
            ("table", "BIGINT NOT NULL UNIQUE"),
            ("collation", f"TEXT NOT NULL DEFAULT '{quoted}'"),
            ("concurrently", "TIMESTAMP DEFAULT CURRENT_TIMESTAMP"),
        ],
        [
            ProjectionIndex("Group", where={"Group": {"$ne": AWKWARD}}),
            ProjectionIndex("collation", descending=["collation"]),
        ],
    )
    migrate(app, database, "create", old)
    execute(
        database,
        "INSERT INTO returning (\"lateral\", \"table\") VALUES ('a', 1), ('b', 2)".replace("returning", '"returning"'),
    )
    migrate(app, database, "change", new)
    matches(database, new)
    assert generate(app, database, "nothing", new) == []
    assert column(database, 'SELECT "Group" FROM "returning"') == [AWKWARD, AWKWARD]
    assert column(database, 'SELECT "collation" FROM "returning"') == [AWKWARD, AWKWARD]
    succeed("downgrade", "-5", cwd=app, url=database.url)
    assert column(database, 'SELECT "Group" FROM "returning"') == [AWKWARD, AWKWARD]
    succeed("upgrade", "head", cwd=app, url=database.url)
    assert generate(app, database, "nothing", new) == []


def test_columns_take_what_needs_them_along(app, database):
    """A column that is UNIQUE, in an index or in its condition can be dropped, and comes back with all of it."""
    old = orders(
        ("a", "INTEGER UNIQUE"),
        ("b", "TEXT"),
        ("c", "TEXT"),
        ("d", "TEXT"),
        indexes=(
            ProjectionIndex(["b", "c"], name="both"),
            ProjectionIndex("c", where={"d": "x"}, name="some"),
            ProjectionIndex("d", descending=["d"]),
        ),
    )
    new = orders(
        ("c", "TEXT"), indexes=(ProjectionIndex("c", name="both"), ProjectionIndex("c", unique=True, name="some"))
    )
    migrate(app, database, "create", old)
    execute(database, "INSERT INTO orders VALUES ('o-1', 1, 'b', 'c', 'x')")
    migrate(app, database, "drop", new)
    assert generate(app, database, "nothing", new) == []
    assert column(database, "SELECT c FROM orders") == ["c"]
    succeed("downgrade", "-3", cwd=app, url=database.url)
    matches(database, old)
    succeed("upgrade", "head", cwd=app, url=database.url)


def test_an_empty_module_drops_everything_but_says_so(app, database):
    """When the last schema is gone, its table is proposed for dropping, which the command says."""
    migrate(app, database, "create", orders())
    declare(app)
    assert "DESTRUCTIVE: drops table 'orders'" in succeed(
        "revision", "--autogenerate", "-m", "x", cwd=app, url=database.url
    )


def test_a_module_that_cannot_be_imported_is_named(app, database):
    """A mistake in the module of the schemas ends in one line, and proposes nothing."""
    (app / "read_models.py").write_text("import no_such_requirement")
    message = fail("revision", "--autogenerate", "-m", "x", cwd=app, url=database.url)
    assert "projections = read_models: there is no module 'no_such_requirement'" in message
    assert sys.executable not in message
