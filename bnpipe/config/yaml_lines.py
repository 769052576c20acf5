"""YAML with line numbers, where the text of a scalar is never guessed at.

YAML 1.1 reads ``no`` as false, ``01`` as 1 and ``2013-12-31`` as a date before anybody asked. Here every scalar
stays the text that was written, and the field it belongs to (a pydantic model above) says what it means.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

Path = tuple[str | int, ...]

_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_TAG: Final = "tag:yaml.org,2002:"
_PLAIN_TAGS: Final = frozenset(
    _TAG + kind for kind in ("str", "int", "float", "bool", "null", "timestamp", "value", "merge", "seq", "map")
)
_MAX_NODES: Final = 200_000
_MAX_DEPTH: Final = 40
_MANY: Final = 2_000
_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Document:
    """A YAML file as plain values.

    Parameters
    ----------
    value : Any
        Mappings, lists, text and None; numbers and booleans only where `typed` asked for them.
    lines : Mapping
        Path of a value -> its 1-based line: the key's line for an entry of a mapping.
    problems : tuple of (path, line, message)
        Duplicate keys and other things that are valid YAML but no specification.
    """

    value: Any
    lines: Mapping[Path, int]
    problems: tuple[tuple[Path, int, str], ...] = ()

    def line(self, path: Path) -> int:
        """Line of `path`, or of the closest thing around it that was written."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


class YamlError(ValueError):
    """The text is no YAML; knows its line (1-based; 0 is the whole file)."""

    def __init__(self, message: str, *, line: int = 1) -> None:
        self.line = line
        super().__init__(message)


def read(text: str, *, verbatim: Callable[[Path], bool], typed: Callable[[Path], bool]) -> Document:
    """Read one YAML document.

    Parameters
    ----------
    text : str
        The file's content.
    verbatim : callable
        Says for a path whether even ``null`` and ``~`` are text there.
    typed : callable
        Says for a path whether plain scalars there are booleans and numbers (YAML 1.2: only ``true``/``false``).

    Raises
    ------
    YamlError
        Not YAML; its text has the column.
    """
    try:
        _check_depth(text)
        node = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        raise _located(error, text) from error
    except yaml.reader.ReaderError as error:
        raise YamlError(f"the character {error.character!r} is not allowed in YAML") from error
    if node is None:
        return Document(None, {})
    builder = _Builder(verbatim, typed)
    return Document(builder.build(node, ()), builder.lines, tuple(builder.problems))


def show(path: Path) -> str:
    """Write a path as people do: ``structure.required[0]``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def _check_depth(text: str) -> None:
    """Refuse what would overflow libyaml's stack; only texts with that many brackets or columns can."""
    if text.count("[") + text.count("{") < _MANY and max(map(len, text.splitlines()), default=0) < _MANY:
        return
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MANY:
            raise YamlError("nested too deeply for a spec", line=0)


def _located(error: yaml.MarkedYAMLError, text: str) -> YamlError:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    message = error.problem or error.context or "not YAML"
    lines = text.splitlines()
    if 0 < line <= len(lines) and "\t" in lines[line - 1]:
        message += "; indent with spaces, YAML allows no tabs"
    elif error.context and error.context_mark and error.context_mark.line + 1 != line:
        message += f" ({error.context} that starts on line {error.context_mark.line + 1})"
    return YamlError(f"column {column}: not YAML: {message}", line=line)


@dataclass
class _Builder:
    """Turns nodes into values, remembering lines."""

    verbatim: Callable[[Path], bool]
    typed: Callable[[Path], bool]
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[tuple[Path, int, str]] = field(default_factory=list)
    built: int = 0
    above: list[int] = field(default_factory=list)

    def build(self, node: yaml.Node, path: Path) -> Any:
        self.lines.setdefault(path, node.start_mark.line + 1)
        self.built += 1
        if self.built > _MAX_NODES or id(node) in self.above:
            raise YamlError("aliases (*name) repeat without end", line=self.lines[path])
        if len(path) > _MAX_DEPTH:
            raise YamlError("nested too deeply for a spec", line=self.lines[path])
        if node.tag not in _PLAIN_TAGS:
            self._complain(path, f"the tag {node.tag.replace(_TAG, '!!')} has no meaning here; remove it")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        self.above.append(id(node))
        try:
            return self._mapping(node, path) if isinstance(node, yaml.MappingNode) else self._list(node, path)
        finally:
            self.above.pop()

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        text = str(node.value)
        if node.style or self.verbatim(path):
            return text
        if text in _NULLS:
            return None
        return _typed(text) if self.typed(path) else text

    def _list(self, node: yaml.Node, path: Path) -> list[Any]:
        return [self.build(item, (*path, position)) for position, item in enumerate(node.value)]

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        values: dict[str, Any] = {}
        merged: list[yaml.Node] = []
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                self.problems.append((path, line, "a key must be a single word; quote it"))
                continue
            if key.tag == _TAG + "merge":
                merged += value.value if isinstance(value, yaml.SequenceNode) else [value]
                continue
            name = str(key.value)
            if name in values:
                first = self.lines[*path, name]
                self.problems.append(((*path, name), line, f"key written twice, first on line {first}; keep one"))
                continue
            self.lines[*path, name] = line
            values[name] = self.build(value, (*path, name))
        for other in merged:
            extra = self.build(other, path)
            if isinstance(extra, dict):
                values = {**extra, **values}
        return values

    def _complain(self, path: Path, message: str) -> None:
        self.problems.append((path, self.lines[path], message))


def _typed(text: str) -> Any:
    if text in {"true", "True", "TRUE"}:
        return True
    if text in {"false", "False", "FALSE"}:
        return False
    if re.fullmatch(r"[-+]?[0-9]+", text):
        return int(text)
    if re.fullmatch(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", text):
        return float(text)
    return text
