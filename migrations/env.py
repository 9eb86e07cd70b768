"""Alembic's way in; what it does is in the library, so that applications run the same."""

from cqrs_ddd_persistence_sqlalchemy.schema.environment import run

run()
