"""What is called back once a transaction is committed."""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

CommitCallback: TypeAlias = "Callable[[], Any]"

logger = logging.getLogger(__name__)


async def run_callbacks(callbacks: list[CommitCallback]) -> None:
    """Call each; log what one raises."""
    for callback in callbacks:
        try:
            result = callback()
            if inspect.isawaitable(result):
                await result
        except Exception:  # whatever it raises: the commit stands, and the other callbacks have a right to run
            logger.exception("callback %r failed after the commit", callback)
