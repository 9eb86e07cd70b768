"""Database URLs as people write them, and what the drivers make of them."""

from __future__ import annotations

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from cqrs_ddd_persistence_sqlalchemy import async_url
from tests.support.command_line import copy_repository, run, succeed, tables

AWKWARD_PASSWORD = "p@ss:w/ord?100%#&="
ENCODED_PASSWORD = "p%40ss%3Aw%2Ford%3F100%25%23%26%3D"


def connect_arguments(text: str) -> dict:
    """Return what the driver is called with for a URL."""
    engine = create_async_engine(async_url(text, "DATABASE_URL"))
    positional, named = engine.dialect.create_connect_args(engine.url)
    return named | {"positional": positional}


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("postgres://user@host/name", "postgresql+asyncpg://user@host/name"),
        ("postgresql://user@host:5433/name", "postgresql+asyncpg://user@host:5433/name"),
        ("postgresql+asyncpg://user@host/name", "postgresql+asyncpg://user@host/name"),
        ("postgresql:///name?host=/run/postgresql", "postgresql+asyncpg:///name?host=%2Frun%2Fpostgresql"),
        ("postgresql://[::1]:5432/name", "postgresql+asyncpg://[::1]:5432/name"),
        ("sqlite:///app.db", "sqlite+aiosqlite:///app.db"),
        ("sqlite:////srv/app.db", "sqlite+aiosqlite:////srv/app.db"),
        ("sqlite+aiosqlite:///app.db", "sqlite+aiosqlite:///app.db"),
        ("sqlite://", "sqlite+aiosqlite://"),
        ("  sqlite:///app.db\n", "sqlite+aiosqlite:///app.db"),
        ("postgres://user@host/name?sslmode=require", "postgresql+asyncpg://user@host/name?ssl=require"),
    ],
)
def test_common_spellings_get_an_async_driver(given, made):
    """Driverless URLs of both databases are understood, and so is libpq's sslmode."""
    assert async_url(given, "DATABASE_URL").render_as_string(hide_password=False) == made


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"])
def test_sslmode_reaches_the_driver_by_its_name_there(mode):
    """Each of libpq's modes arrives as asyncpg's ssl, beside the other options of the URL."""
    arguments = connect_arguments(f"postgresql://user@host/name?sslmode={mode}&prepared_statement_cache_size=0")
    assert arguments["ssl"] == mode
    assert "sslmode" not in arguments
    assert arguments["prepared_statement_cache_size"] == 0


def test_passwords_with_special_characters_arrive():
    """A password with percent-encoded characters reaches the driver as it is, with or without sslmode."""
    for options in ("", "?sslmode=require"):
        arguments = connect_arguments(f"postgres://user:{ENCODED_PASSWORD}@host/name{options}")
        assert arguments["password"] == AWKWARD_PASSWORD
        assert arguments["host"] == "host"


@pytest.mark.parametrize(
    "text",
    [
        "s3cret",
        "postgresql",
        "://user:s3cret@host/name",
        "postgresql:user:s3cret@host",
        "postgresql://user:s3cret@host:port/name",
        "",
    ],
)
def test_what_is_no_url_is_refused_without_repeating_it(text):
    """A text that is no URL is refused by the place where it was found, and with examples."""
    with pytest.raises(ValueError) as refused:
        async_url(text, "DATABASE_URL")
    assert str(refused.value) == (
        "cannot read the database URL of DATABASE_URL: "
        "write it like postgresql://user:password@host:5432/name or sqlite:///app.db"
    )


@pytest.mark.parametrize(
    "driver", ["mysql", "mysql+aiomysql", "postgresql+psycopg2", "postgresql+psycopg", "sqlite+pysqlite", "oracle"]
)
def test_other_drivers_are_refused_by_name(driver):
    """A database or a driver that is not supported is named, beside those that are."""
    with pytest.raises(ValueError) as refused:
        async_url(f"{driver}://user:s3cret@host/name", "-x url=")
    assert str(refused.value) == (
        f"the database URL of -x url= names the driver {driver!r}: use postgresql or sqlite "
        "(postgresql+asyncpg, sqlite+aiosqlite)"
    )


def test_every_spelling_works_on_the_command_line(tmp_path, empty_database):
    """Driverless and short schemes reach the same database as the full name."""
    repository = copy_repository(tmp_path)
    full = empty_database.direct_url
    spellings = [full, full.replace("+asyncpg", "").replace("+aiosqlite", "")]
    if empty_database.kind == "postgresql":
        spellings += [full.replace("postgresql+asyncpg", "postgres"), f"{spellings[1]}?sslmode=disable"]
    succeed("upgrade", "head", cwd=repository, url=spellings[-1])
    assert "events" in tables(empty_database)
    answers = {succeed("current", cwd=repository, url=spelling) for spelling in spellings}
    assert len(answers) == 1


def test_a_password_with_special_characters_is_not_shown(tmp_path):
    """The line about a server that cannot be reached has three stars where the password was."""
    url = f"postgresql://user:{ENCODED_PASSWORD}@127.0.0.1:1/name"
    done = run("upgrade", "head", cwd=copy_repository(tmp_path), url=url)
    assert "user:***@127.0.0.1:1/name" in done.stdout
    assert AWKWARD_PASSWORD not in done.stdout + done.stderr
    assert ENCODED_PASSWORD not in done.stdout + done.stderr


def test_percent_signs_in_the_ini_are_doubled(tmp_path):
    """sqlalchemy.url follows the rules of ini files, in which a percent sign is written twice."""
    repository = copy_repository(tmp_path)
    ini = repository / "alembic.ini"
    url = f"postgresql://user:{ENCODED_PASSWORD}@127.0.0.1:1/name".replace("%", "%%")
    ini.write_text(ini.read_text().replace("[alembic]", f"[alembic]\nsqlalchemy.url = {url}"))
    assert "cannot connect to postgresql+asyncpg://user:***@127.0.0.1:1/name" in run("current", cwd=repository).stdout
