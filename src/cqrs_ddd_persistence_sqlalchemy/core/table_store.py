"""What stores of one table have in common: where it is, and whose transaction they work in."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from cqrs_ddd_persistence_sqlalchemy.core.models import in_schema
from cqrs_ddd_persistence_sqlalchemy.core.scope import SessionScope
from cqrs_ddd_persistence_sqlalchemy.core.validation import check_schema

if TYPE_CHECKING:
    from collections.abc import Callable

    import sqlalchemy as sa

    from cqrs_ddd_persistence_sqlalchemy.core.joining import SessionFactory
    from cqrs_ddd_persistence_sqlalchemy.core.uow import SQLAlchemyUnitOfWork


class TableStore:
    """A store of one table of the library.

    Args:
        session_factory: for operations without a unit of work.
        uow_factory: returns the unit of work to use where none is given.
        schema: the database schema of the table; the connection's default when omitted.
    """

    #: The table, as it stands in the connection's default schema.
    _of: ClassVar[sa.Table]

    def __init__(
        self,
        session_factory: SessionFactory | None = None,
        *,
        uow_factory: Callable[[], SQLAlchemyUnitOfWork] | None = None,
        schema: str | None = None,
    ) -> None:
        self._table = in_schema(self._of, check_schema(schema))
        self._scope = SessionScope(type(self).__name__, session_factory=session_factory, uow_factory=uow_factory)
