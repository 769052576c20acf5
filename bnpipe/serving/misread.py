"""Why a body could not be decoded: the place, what was received and what is allowed; never a value.

Decoding is quick and does not say which cell of a row it stumbled over, so a body that is refused is read once more.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec

from bnpipe.config.scalars import did_you_mean
from bnpipe.errors import QuestionError

_SEARCHED: Final = 1_000_000
"""Bytes of a body that is read a second time; it takes some 10 ms."""
_STEP: Final = re.compile(r"\[\.\.\.\]|\[\d+\]|[^.\[\]]+")
_CELL: Final = "bool | int | float | str"
_KINDS: Final[dict[str, tuple[type, str]]] = {"array": (list, "a list"), "object": (dict, "an object")}
_NOT_JSON: Final = "the body is not JSON in UTF-8"

Place = tuple[str, Any]


def wrong_body(error: msgspec.ValidationError, body: bytes, struct: type[msgspec.Struct]) -> QuestionError:
    """Say what of a body is not as it should be, and where.

    Parameters
    ----------
    error : ValidationError
        Of decoding it.
    body : bytes
    struct : type
        The object in it that has no other fields than its own.
    """
    what, _, path = str(error).partition(" - at ")
    path = path.strip("`").removeprefix("$").lstrip(".")
    if what.startswith("Object contains unknown field"):
        return _unknown_field(what.partition("`")[2].rstrip("`"), path, struct)
    got = what.rpartition("got `")[2].rstrip("`")
    if what == "Number out of range":
        return _refusal(_cell(body, path, _is_infinite), "the number is beyond what a double can hold")
    if _CELL in what and got in _KINDS:
        kind, told = _KINDS[got]
        lists = ", or a list of such" if "| array" in what else ""
        text = f"got {told}; a text, a number, true, false or null is a cell{lists}"
        return _refusal(_cell(body, path, lambda value: isinstance(value, kind)), text)
    return _refusal(path, what)


def not_json(error: Exception, body: bytes) -> QuestionError:
    """Say where a body stops being JSON; NaN and Infinity, which Python writes, are told by their cell."""
    if (read := _read(body)) is not None and (found := _first(_everywhere(read, ""), _is_strange)):
        return _refusal(found, "NaN and Infinity are no JSON; leave the cell out, or write null")
    what = str(error).removeprefix("JSON is malformed: ") if isinstance(error, msgspec.DecodeError) else ""
    return QuestionError(f"{_NOT_JSON}: {what[:100]}" if what else _NOT_JSON)


def _unknown_field(name: str, path: str, struct: type[msgspec.Struct]) -> QuestionError:
    fields = [field.encode_name for field in msgspec.structs.fields(struct)]
    hint = did_you_mean(name, fields)
    return _refusal(path, f"no field {name[:60]!r} is known{hint or ';'} there are {', '.join(fields)}")


def _refusal(at: str, text: str) -> QuestionError:
    at = at.replace("[...]", "")[:100]
    return QuestionError(f"{at}: {text[:200]}" if at else text[:200], at=at)


def _cell(body: bytes, path: str, wrong: Callable[[Any], bool]) -> str:
    """Name the cell under a path whose value is wrong; the path, if it can't be told."""
    if "[...]" not in path or (read := _read(body)) is None:
        return path
    return _first(_under(read, _STEP.findall(path), ""), wrong) or path


def _read(body: bytes) -> Any:
    try:
        return json.loads(body) if len(body) <= _SEARCHED else None
    except (ValueError, RecursionError):
        return None


def _first(places: Iterator[Place], wrong: Callable[[Any], bool]) -> str:
    return next((at for at, value in places if wrong(value)), "")


def _under(node: Any, steps: Sequence[str], at: str) -> Iterator[Place]:
    """Give all places that a path may mean: ``[...]`` is any key."""
    if not steps:
        yield at, node
    elif steps[0] == "[...]" and isinstance(node, dict):
        for key, value in node.items():
            yield from _under(value, steps[1:], _below(at, key))
    elif isinstance(node, list):
        yield from _under(node[int(steps[0][1:-1])], steps[1:], at + steps[0])
    else:
        yield from _under(node[steps[0]], steps[1:], _below(at, steps[0]))


def _everywhere(node: Any, at: str) -> Iterator[Place]:
    yield at, node
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _everywhere(value, _below(at, key))
    elif isinstance(node, list):
        for place, value in enumerate(node):
            yield from _everywhere(value, f"{at}[{place}]")


def _below(at: str, key: str) -> str:
    return f"{at}.{key[:60]}" if at else key[:60]


def _is_infinite(value: Any) -> bool:
    return isinstance(value, float) and math.isinf(value)


def _is_strange(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
