"""What needs a PgBouncer: `make test-proxy` runs it."""

from __future__ import annotations

import pytest

from tests.support import pgbouncer


@pytest.fixture
def pooled(databases):
    """A migrated database behind a PgBouncer that pools by transaction."""
    if not pgbouncer.is_wanted():
        pytest.skip("needs PgBouncer: make test-proxy, or TEST_POSTGRES_PROXY=pgbouncer")
    with databases.fresh("postgresql") as database:
        yield database


@pytest.fixture
def session_pool(server, pooled, databases):
    """The URL of an empty database through a proxy that pools by session, and the direct one."""
    with (
        pgbouncer.running_pgbouncer(server, pool_mode="session") as proxy,
        databases.fresh("postgresql", migrated=False) as empty,
    ):
        yield proxy.url(empty.direct_url), empty.direct_url


@pytest.fixture
def one_session(server, pooled):
    """The URL of the same database through a proxy that has one connection to it, which all clients share."""
    with pgbouncer.running_pgbouncer(server, pool_size=1) as proxy:
        yield proxy.url(pooled.direct_url)
