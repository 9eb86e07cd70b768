"""Python values to JSON that both databases store and return alike, or a ValueError that says where it can't be."""

from __future__ import annotations

import json
import math
import re
from collections import deque
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Secret, SecretBytes, SecretStr
from pydantic_core import PydanticSerializationError, to_jsonable_python

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


_WRITTEN_AS_THEY_ARE = frozenset({str, int, float, bool, type(None)})
_NUL = "\\u0000"  # as JSON has it; a text may also spell it
_LARGEST_INT = 10**4300  # Python itself reads and prints no more digits
_PLAIN_INT = 1 << 63
_STRING_OR_LARGE_FLOAT = re.compile(r'"(?:[^"\\]|\\.)*"|-?[0-9.]+e\+[0-9]+')


def _encoder() -> Callable[[Any], str]:
    """Return what JSONEncoder.encode does; it makes an encoder in C for each document, which takes longer than most."""
    encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    make: Any = getattr(json.encoder, "c_make_encoder", None)
    sorts = skips = allows_nan = False
    try:
        write = make(None, encoder.default, json.encoder.encode_basestring, None, ":", ",", sorts, skips, allows_nan)
    except TypeError:  # there is none, or it takes other arguments
        return encoder.encode
    return lambda document: "".join(write(document, 0))


_encode = _encoder()


class DocumentText(str):
    """A document as JSON text, on its way into a column that would otherwise be given the document itself."""

    __slots__ = ()


def to_document(value: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the JSON form of a document: what comes back when it is read.

    Decimal, UUID, times and Enum become their strings and values as pydantic writes them, sets and tuples lists.

    Args:
        value: the document.
        name: what to call it in errors, such as "payload".

    Raises:
        ValueError: naming the place of a value that JSON or a database cannot hold: NaN, infinity, NUL characters
            (PostgreSQL), lone surrogates, keys that are not strings, secrets, objects without a JSON form.
    """
    try:
        return _object(value, name)
    except RecursionError:
        raise ValueError(f"{name} is nested too deeply, or contains itself") from None


def to_document_and_text(value: Mapping[str, Any], name: str, *, of: str | None = None) -> tuple[dict[str, Any], str]:
    """Return what `to_document` returns and its JSON text; raise what it raises, naming also whose it is (`of`).

    What the types of values, and then the text as a whole, leave no question about is done in half the time.
    """
    quick = _quickly(value) if type(value) is dict else None
    if quick is not None:
        return quick
    document = to_document(value, name if of is None else f"{name} of {of}")
    return document, dumps(document)


def object_text(values: dict[str, Any], **documents: str) -> str:
    """Return the JSON text of an object of plain values and of documents that are text already."""
    return "".join((dumps(values)[:-1], *(f',"{name}":{text}' for name, text in documents.items()), "}"))


def _quickly(value: dict[Any, Any]) -> tuple[dict[str, Any], str] | None:
    try:
        document = _quick_object(value)
        text = _encode(document)
        if not text.isascii():
            text.encode()  # a lone surrogate cannot be
    except (ValueError, RecursionError):
        return None
    return None if document is None or _NUL in text else (document, _spelled_out(text))


def _quick_object(value: dict[Any, Any]) -> dict[str, Any] | None:
    """Return a copy that JSON has as it is, unless a text or a number in it is to be refused; None where unsure."""
    document = value.copy()
    for key, item in value.items():
        if type(key) is not str:
            return None
        if type(item) not in _WRITTEN_AS_THEY_ARE:
            document[key] = quick = _quick_item(item)
            if quick is None:
                return None
    return document


def _quick_array(value: Iterable[Any]) -> list[Any] | None:
    document = list(value)
    for n, item in enumerate(document):
        if type(item) not in _WRITTEN_AS_THEY_ARE:
            document[n] = quick = _quick_item(item)
            if quick is None:
                return None
    return document


def _quick_item(item: Any) -> Any:
    kind = type(item)
    if kind is dict:
        return _quick_object(item)
    if kind is list or kind is tuple:
        return _quick_array(item)
    return str(item) if kind is Decimal and item.is_finite() else None


def _is_plain_text(value: Any) -> bool:
    return type(value) is str and value.isascii() and "\x00" not in value


def _is_plain(value: Any) -> bool:
    """Tell, of nearly all values and of none that would change or be refused, that JSON has it as it is."""
    kind = type(value)
    if kind is str:
        return value.isascii() and "\x00" not in value
    return value is None or kind is bool or (kind is int and -_PLAIN_INT < value < _PLAIN_INT)


def dumps(value: Any) -> str:
    """Return JSON text of what `to_document` returned."""
    return _spelled_out(_encode(value))


def _spelled_out(text: str) -> str:
    # JSONB keeps numbers in decimal: 1e+23 would come back as the whole number 10**23, which is another one.
    return _STRING_OR_LARGE_FLOAT.sub(_expanded, text) if "e+" in text else text


def _expanded(found: re.Match[str]) -> str:
    text = found[0]
    return text if text.startswith('"') else f"{Decimal(text):f}.0"


def are_plain_texts(values: Iterable[str]) -> bool:
    """Tell of nearly all texts, and of none that `check_text` refuses, that both databases can hold them."""
    everything = "".join(values)
    return everything.isascii() and "\0" not in everything


def check_text(value: str, name: str) -> str:
    """Return the text if both databases can hold it.

    Raises:
        ValueError: naming it, for NUL characters and lone surrogates.
    """
    if "\x00" in value:
        raise ValueError(f"{name} contains a NUL character, which PostgreSQL cannot store")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{name} contains a lone surrogate, which is not valid text") from None
    return value


def _key(key: object, name: str) -> str:
    if not isinstance(key, str):
        raise ValueError(f"{name} has the key {key!r}: keys of JSON objects are strings")
    return check_text(key, f"a key of {name}")


def jsonable(value: Any, path: str) -> Any:  # noqa: C901, PLR0911, PLR0912  (one answer a type)
    """Return the JSON form of any value; `to_document` says what becomes of it and what is refused.

    Args:
        value: anything.
        path: what to call it in errors.
    """
    quick = _QUICK.get(type(value))
    if quick is not None:
        return quick(value, path)
    match value:
        case None | bool() if not isinstance(value, Enum):
            return value
        case int() if not isinstance(value, Enum):
            if abs(value) >= _LARGEST_INT:
                raise ValueError(f"{path} is a whole number of more than 4300 digits")
            return value
        case Enum():
            return jsonable(value.value, path)
        case str():
            return check_text(str(value), path)
        case float():
            if not math.isfinite(value):
                raise ValueError(f"{path} is {value}, which JSON cannot hold")
            return value
        case dict():
            return _object(value, path)
        case list() | tuple() | set() | frozenset() | deque():
            return _array(value, path)
        case Decimal() if not value.is_finite():
            return _decimal(value, path)
        case BaseModel():
            return jsonable(value.model_dump(by_alias=True), path)
        case Secret() | SecretStr() | SecretBytes():
            raise ValueError(f"{path} is a {type(value).__name__}, of which JSON would hold asterisks")
    try:
        form = to_jsonable_python(value)
    except RecursionError:
        raise
    except (PydanticSerializationError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is a {type(value).__name__}, which has no JSON form") from error
    return jsonable(form, path) if isinstance(form, str | float | dict | list) else form


def _object(value: Mapping[Any, Any], path: str) -> dict[str, Any]:
    return {
        key if _is_plain_text(key) else _key(key, path): item if _is_plain(item) else jsonable(item, f"{path}.{key}")
        for key, item in value.items()
    }


def _array(value: Iterable[Any], path: str) -> list[Any]:
    return [item if _is_plain(item) else jsonable(item, f"{path}[{n}]") for n, item in enumerate(value)]


def _decimal(value: Decimal, path: str) -> str:
    if not value.is_finite():
        raise ValueError(f"{path} is {value}, which JSON cannot hold")
    return str(value)  # as pydantic writes it


# By exact type, as `match` would find out in a dozen steps.
_QUICK: dict[type, Callable[[Any, str], Any]] = {dict: _object, list: _array, tuple: _array, Decimal: _decimal}
