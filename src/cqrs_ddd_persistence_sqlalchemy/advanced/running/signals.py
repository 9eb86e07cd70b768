"""Signals that stop whatever runs in this process: several runners share one handler."""

from __future__ import annotations

import asyncio
import signal
from typing import Protocol


class Stoppable(Protocol):
    """What can be told to end."""

    def stop(self) -> None:
        """End soon."""
        ...


#: The runners of this process that end with it.
_at_signals: set[Stoppable] = set()
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def stop_at_signals(runner: Stoppable) -> None:
    """Stop a runner at SIGTERM and SIGINT, as all others that have asked for it."""

    def stop_all() -> None:
        for each in _at_signals:
            each.stop()

    _at_signals.add(runner)
    for number in _SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, stop_all)


def forget_signals(runner: Stoppable) -> None:
    """Leave a runner alone; with the last one the signals mean again what they meant before."""
    if runner in _at_signals:
        _at_signals.remove(runner)
        for number in () if _at_signals else _SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(number)
