"""What the domain refuses, under one base class."""

from collections.abc import Iterable


class DomainError(Exception):
    """The root of every error that the domain raises by itself."""


class InvalidTransitionError(DomainError):
    """A status change that the table of transitions does not list; the entity is as it was.

    Attributes:
        current: the status the entity is in, None when the raiser did not say.
        target: the status that was asked for, None when the raiser did not say.
    """

    def __init__(self, message: str, *, current: str | None = None, target: str | None = None) -> None:
        super().__init__(message)
        self.current = current
        self.target = target


class CompensationError(DomainError):
    """Steps that could not be undone, or not even tried for want of an argument.

    Attributes:
        causes: the exceptions of the failed compensations in the order they were run; empty when none ran.
    """

    def __init__(self, message: str, *, causes: Iterable[BaseException] = ()) -> None:
        super().__init__(message)
        self.causes = tuple(causes)


class SchemaError(DomainError, ValueError):
    """A projection schema, or a part of one, that no table can be made from; the message names the part."""
