"""The one rule for names that reach SQL."""

import hashlib
import re

# PostgreSQL cuts a longer name at 63 bytes in silence (NAMEDATALEN - 1). Only ASCII passes.
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")

MAX_BYTES = 63
_HASH_LENGTH = 8

RULE = "use ASCII letters, digits and underscores, no digit first, at most 63 of them"


def check_identifier(name: object, *, kind: str) -> str:
    """Return the name if it may be used in SQL.

    Reserved words and mixed case pass: names are always quoted when they are rendered.

    Args:
        name: what the caller was given; anything but a string is refused like a bad string.
        kind: what the name stands for ("table", "column", "schema", ...), for the message.

    Raises:
        ValueError: the name is not letters, digits and underscores from beginning to end.
    """
    if isinstance(name, str) and _IDENTIFIER.fullmatch(name):
        return str.__str__(name)  # the plain text of a (str, Enum) member, which is formatted as something else
    raise ValueError(f"Invalid SQL {kind} name: {name!r}")


def bounded_name(*parts: str) -> str:
    """Join the parts of a constraint's or index's name; one that is too long ends in a hash of the whole."""
    name = "_".join(parts)
    if len(name) <= MAX_BYTES:
        return name
    digest = hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()[:_HASH_LENGTH]
    return f"{name[: MAX_BYTES - _HASH_LENGTH - 1]}_{digest}"
