"""What replacing one table by another of its shape needs of a database."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.schema import conv

from cqrs_ddd_advanced_core.identifiers import bounded_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.engine import Connection


def beside(name: str) -> str:
    """Return the name of a table, key or index in a shadow, until it takes its original's."""
    return bounded_name(name, "_rebuild")


def names(items: Iterable[sa.Constraint | sa.Index]) -> list[str]:
    """Return the names of those that have one."""
    return sorted(str(each.name) for each in items if each.name is not None)


class ReplacingDialect(ABC):
    """How a table takes another's place. Stateless."""

    #: Whether two tables may have constraints of one name.
    keys_are_named_by_table: bool

    def shadow(self, table: sa.Table) -> sa.Table:
        """Return a table with the columns, keys and indexes of another, to be created beside it.

        Those have other names where the original's are in the way.
        """
        copy = table.to_metadata(sa.MetaData(), name=beside(table.name))
        items: list[sa.Constraint | sa.Index] = [*copy.indexes]
        if not self.keys_are_named_by_table:
            items += copy.constraints
        for each in items:
            if each.name is not None:
                each.name = conv(beside(str(each.name)))
        return copy

    @abstractmethod
    def attached(self, connection: Connection, table: sa.Table) -> list[str]:
        """Return what belongs to a table beyond its definition, and would be lost or left behind without it.

        Such as "view late_orders", "trigger audit of the table".
        """

    @abstractmethod
    def copy_settings(self, connection: Connection, table: sa.Table, shadow: sa.Table) -> None:
        """Give the shadow what the table has and no definition says: owner, rights, parameters, comments."""

    @abstractmethod
    def analyze(self, connection: Connection, table: sa.Table) -> None:
        """Let the planner know what is in a table, where it goes by such knowledge."""

    @abstractmethod
    def replace(self, connection: Connection, table: sa.Table, shadow: sa.Table) -> None:
        """Drop the table and let the shadow take its name, and the names of its keys and indexes."""
