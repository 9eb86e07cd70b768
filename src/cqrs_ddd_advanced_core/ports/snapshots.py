"""The port of snapshot stores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel


class ISnapshotStore(Protocol):
    """What aggregates were like at some of their versions: a shorter way to them than all of their events.

    A snapshot can always be made again, so nothing is lost with it. Those of another `schema_version` than asked for
    (None is one, too) do not exist for the reader.
    """

    async def save_snapshot(
        self,
        aggregate_type: str,
        aggregate_id: str,
        snapshot_data: Mapping[str, Any] | BaseModel,
        version: int,
        *,
        schema_version: int | None = None,
        uow: Any = None,
    ) -> None:
        """Save what an aggregate is like at a version, in place of what was saved for that version before.

        Concurrent savers never fail, and in whichever order they come, the highest version is the latest.
        """
        ...

    async def get_latest_snapshot(
        self,
        aggregate_type: str,
        aggregate_id: str,
        *,
        max_version: int | None = None,
        schema_version: int | None = None,
        uow: Any = None,
    ) -> dict[str, Any] | None:
        """Return the snapshot with the highest version, at most `max_version`, or None.

        A dict of `snapshot_data`, `version`, `created_at`, `aggregate_type`, `aggregate_id` and `schema_version`.
        """
        ...

    async def delete_snapshot(self, aggregate_type: str, aggregate_id: str, *, uow: Any = None) -> int:
        """Delete all snapshots of an aggregate; return how many."""
        ...

    async def prune(
        self, aggregate_type: str | None = None, *, keep: int = 1, batch_size: int = 1000, uow: Any = None
    ) -> int:
        """Delete all but the newest snapshots of each aggregate, a batch at a time; return how many.

        It comes to an end however many are saved meanwhile, and keeps no saver waiting for longer than a batch.
        """
        ...
