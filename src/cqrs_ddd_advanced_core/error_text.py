"""Errors as texts that every database can store."""

LONGEST = 4000


def described(error: BaseException) -> str:
    """Return an error as text: its class, and what it says."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  (an error in telling an error must not hide the first one)
        text = "(it cannot be told)"
    return shortened(f"{type(error).__name__}: {text}")


def shortened(text: str) -> str:
    """Return a text as a column takes it: at most some thousand characters, without NUL and lone surrogates."""
    storable = text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()
    return storable if len(storable) <= LONGEST else f"{storable[:LONGEST]}..."
