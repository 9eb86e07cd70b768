"""A bank and a hotel that keep books of their own, in a file beside the application's database.

They do what real ones do: a request whose key they have seen before gets the earlier answer, and nothing happens twice.
"""

from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

REFUSED = "Bob"


class Books:
    """What the outside world has done, one line for each key.

    Args:
        path: of the file.
        crash_at: the entry after which this process dies, as if the power had failed.
    """

    def __init__(self, path: Path, crash_at: str | None = None) -> None:
        self._path = path
        self._crash_at = crash_at

    def enter(self, key: str, what: str) -> str:
        """Do something, unless it was done under this key before; return what was done."""
        with sqlite3.connect(self._path) as books:
            books.execute("CREATE TABLE IF NOT EXISTS books (number INTEGER PRIMARY KEY, key UNIQUE, what, asked)")
            again = "ON CONFLICT (key) DO UPDATE SET asked = asked + 1"
            books.execute(f"INSERT INTO books (key, what, asked) VALUES (?, ?, 1) {again}", (key, what))  # noqa: S608
        books.close()
        if self._crash_at is not None and what.startswith(self._crash_at):
            print(f"   {what} ... and the power fails", flush=True)
            os._exit(1)
        print(f"   {what}", flush=True)
        return what

    def read(self) -> list[tuple[str, int]]:
        """Return what was done, in order, and how often it was asked for."""
        with sqlite3.connect(self._path) as books:
            lines = books.execute("SELECT what, asked FROM books ORDER BY number").fetchall()
        books.close()
        return lines


class Bank:
    """Moves money."""

    def __init__(self, books: Books) -> None:
        self._books = books

    async def charge(self, traveller: str, price: int, *, key: str) -> str:
        """Take money."""
        return self._books.enter(key, f"charge {traveller} {price}")

    async def refund(self, payment: str | None, *, key: str) -> None:
        """Give it back."""
        self._books.enter(key, f"refund of: {payment}")


class Hotel:
    """Has rooms for everybody, and one guest whom it does not want."""

    def __init__(self, books: Books) -> None:
        self._books = books

    async def book(self, traveller: str, *, key: str) -> str:
        """Keep a room."""
        return self._books.enter(key, f"room for {traveller}")

    async def confirm(self, room: str | None, *, key: str) -> None:
        """Expect somebody."""
        if room is not None and REFUSED in room:
            raise PermissionError(f"{REFUSED} is not welcome here")
        self._books.enter(key, f"confirmation of: {room}")

    async def cancel(self, room: str | None, *, key: str) -> None:
        """Free a room."""
        self._books.enter(key, f"cancellation of: {room}")
