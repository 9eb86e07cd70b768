"""News from the database, where it can tell: events have been appended, jobs enqueued."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Self

from cqrs_ddd_persistence_sqlalchemy.core.dialect import dialect_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from cqrs_ddd_persistence_sqlalchemy.core.scope import SessionScope

logger = logging.getLogger(__name__)

_TRY_AGAIN_SECONDS = 5.0


class Listener:
    """Wakes somebody at each notification of a channel, while it is entered.

    It makes polling faster and replaces nothing of it: while the connection is lost, nothing comes. A lost one is
    opened again. On an engine that is configured for a proxy which pools by transaction there is none.

    Args:
        scope: whose connections are used; each leaves its pool.
        channel: the name that is notified.
        wake: called without arguments.
    """

    def __init__(self, scope: SessionScope, channel: str, wake: Callable[[], Any]) -> None:
        self._scope = scope
        self._channel = channel
        self._wake = wake
        self._lost = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Begin to listen, in the background."""
        self._task = asyncio.create_task(self._listen())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connection."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _listen(self) -> None:
        while True:
            self._lost.clear()
            try:
                # The connection has left its pool, and is closed with the scope. No statement has begun a transaction.
                async with self._scope.read(None) as connection:
                    if not await dialect_of(connection).listen(connection, self._channel, self._wake, self._lost.set):
                        return
                    await self._lost.wait()
            except Exception as error:  # noqa: BLE001  (whatever it is, polling goes on; a lasting one shows there)
                logger.info("cannot listen for notifications, polling goes on: %s", error)
            await asyncio.sleep(_TRY_AGAIN_SECONDS)
