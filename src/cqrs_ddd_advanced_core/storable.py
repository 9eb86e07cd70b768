"""What every database can store: how much the columns of the library's tables hold, and which text."""

INTEGER_MAX = 2**31 - 1
BIGINT_MAX = 2**63 - 1

#: Of ids, types, names and keys, in characters.
ID_LENGTH = 255


def unstorable(text: str) -> str | None:
    """Return what a text has that a database would refuse or change, "NUL characters" say; None for nothing."""
    if "\0" in text:
        return "NUL characters"
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        return "lone surrogates"
    return None
