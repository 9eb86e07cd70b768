"""What the domain refuses, under one base class."""

from collections.abc import Iterable
from typing import ClassVar

#: Each public class of errors has a section there, headed by its name. The path is that of the repository, as a site
#: built from it may stand anywhere.
ERRORS_PAGE = "docs/errors.md"


class DomainError(Exception):
    """The root of every error that the domain raises by itself.

    Attributes:
        docs: where the class is explained; a note of each error (PEP 678), so that tracebacks end with it.
    """

    docs: ClassVar[str] = f"{ERRORS_PAGE}#domainerror"

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self.add_note(f"see {self.docs}")


class InvalidTransitionError(DomainError):
    """A status change that the table of transitions does not list; the entity is as it was.

    Attributes:
        current: the status the entity is in, None when the raiser did not say.
        target: the status that was asked for, None when the raiser did not say.
    """

    docs = f"{ERRORS_PAGE}#invalidtransitionerror"

    def __init__(self, message: str, *, current: str | None = None, target: str | None = None) -> None:
        super().__init__(message)
        self.current = current
        self.target = target


class CompensationError(DomainError):
    """Steps that could not be undone, or not even tried for want of an argument.

    Attributes:
        causes: the exceptions of the failed compensations in the order they were run; empty when none ran.
    """

    docs = f"{ERRORS_PAGE}#compensationerror"

    def __init__(self, message: str, *, causes: Iterable[BaseException] = ()) -> None:
        super().__init__(message)
        self.causes = tuple(causes)


class SchemaError(DomainError, ValueError):
    """A projection schema, or a part of one, that no table can be made from; the message names the part."""

    docs = f"{ERRORS_PAGE}#schemaerror"
