"""Errors as texts that every database can store."""

LONGEST = 4000


def described(error: BaseException) -> str:
    """Return an error as text: its class, and what it says."""
    return shortened(f"{type(error).__name__}: {error}")


def shortened(text: str) -> str:
    """Return a text as a column takes it: at most some thousand characters, without NUL and lone surrogates."""
    storable = text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()
    return storable if len(storable) <= LONGEST else f"{storable[:LONGEST]}..."
