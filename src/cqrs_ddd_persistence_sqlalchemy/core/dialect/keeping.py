"""What is made once for an engine, and goes with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from sqlalchemy.engine import Dialect

Made = TypeVar("Made")

_KEPT = "cqrs_ddd_kept"
_AT_MOST = 1024


def kept(dialect: Dialect, key: Hashable, make: Callable[[], Made]) -> Made:
    """Return what `make` has returned the first time that it was asked for by this key.

    With the engine's dialect, as types' processors refer to it: in a cache of its own they would keep it, and all that
    is kept with it, for ever.
    """
    known: dict[Hashable, Any] = vars(dialect).setdefault(_KEPT, {})
    if key not in known:
        if len(known) >= _AT_MOST:
            known.clear()
        known[key] = make()
    made: Made = known[key]
    return made
