"""Ids whose order as text is that of their making."""

import secrets
import time
from uuid import UUID

_MS = 1_000_000


def ordered_id() -> str:
    """Return a new UUID of version 7: milliseconds since 1970, then 12 bits of what follows them, then chance.

    RFC 9562, section 6.2, method 3. Jobs that are made one after the other are taken in that order, also where the
    database's clock does not tell them apart.
    """
    milliseconds, nanoseconds = divmod(time.time_ns(), _MS)
    fraction = nanoseconds * 4096 // _MS
    return str(UUID(int=milliseconds << 80 | 7 << 76 | fraction << 64 | 2 << 62 | secrets.randbits(62)))
