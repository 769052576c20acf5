"""Networks as BIF files, which other programs read.

BIF has no agreed rules for names. What is written here keeps to letters, digits, ``_``, ``.`` and ``-``, which pgmpy,
pyAgrum and bnlearn all read; other names are made safe, and the true ones travel in ``property`` lines, together with
bin edges and the `other` and `missing` states. Numbers are written so that they read back bit for bit (pyAgrum 3.3
itself reads BIF in single precision). pyAgrum also refuses variables of one state: they are written with a second
state of probability 0, which our reader takes away again.
"""

from __future__ import annotations

import gzip
import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote

import numpy as np
from numpy.typing import NDArray

from bnpipe.counts import table_cells
from bnpipe.errors import FormatError, SchemaError, shorten
from bnpipe.schema import Schema, Variable

if TYPE_CHECKING:
    pass

Parents = Mapping[str, Sequence[str]]
Tables = Mapping[str, NDArray[np.float64]]
"""CPDs by node, float64 (*parent cardinalities, states)."""

_SAFE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*", re.ASCII)
_WHOLE_NUMBER: Final = re.compile(r"-?[0-9]+", re.ASCII)
_KEYWORDS: Final = frozenset({"network", "variable", "probability", "property", "type", "discrete", "table", "default"})
_PADDING: Final = "no_such_state"
_SPOKEN: Final = (("<=", "le_"), (">=", "ge_"), ("<", "lt_"), (">", "gt_"), ("..", "_to_"), ("+", "_plus"))


# Writing ------------------------------------------------------------------------------------------------------------


def write_bif(schema: Schema, parents: Parents, tables: Tables) -> str:
    """Give the text of a BIF file.

    Parameters
    ----------
    schema : Schema
    parents : mapping of str to sequence of str
    tables : mapping of str to float64 (*parent cardinalities, states)
    """
    names = dict(zip(schema.names, _safe_names(schema.names, _is_safe_node, fold=True), strict=True))
    states = {variable.name: _file_states(variable) for variable in schema}
    lines = ["network bnpipe {", "}"]
    for variable in schema:
        lines += _variable_lines(variable, names[variable.name], states[variable.name])
    for node in schema.names:
        lines += _probability_lines(node, parents[node], tables[node], names, states)
    return "\n".join(lines) + "\n"


def _variable_lines(variable: Variable, name: str, states: Sequence[str]) -> Iterator[str]:
    yield f"variable {name} {{"
    yield f"  type discrete [ {len(states)} ] {{ {', '.join(states)} }};"
    if name != variable.name:
        yield f"  property bnpipe_name = {_quoted(variable.name)} ;"
    if len(states) > variable.cardinality:
        yield f"  property bnpipe_padding = {states[-1]} ;"
    if tuple(states[: variable.cardinality]) != variable.states:
        yield f"  property bnpipe_states = {','.join(map(_quoted, variable.states))} ;"
    if variable.edges is not None:
        yield f"  property bnpipe_edges = {','.join(map(repr, variable.edges))} ;"
    for role in ("other", "missing"):
        if (state := getattr(variable, role)) is not None:
            yield f"  property bnpipe_{role} = {_quoted(state)} ;"
    yield "}"


def _probability_lines(
    node: str,
    parents: Sequence[str],
    table: NDArray[np.float64],
    names: Mapping[str, str],
    states: Mapping[str, Sequence[str]],
) -> Iterator[str]:
    padded = _padded(table)
    rows = padded.reshape(-1, padded.shape[-1]).tolist()
    if not parents:
        yield f"probability ( {names[node]} ) {{"
        yield f"  table {', '.join(map(repr, rows[0]))};"
    else:
        yield f"probability ( {names[node]} | {', '.join(names[parent] for parent in parents)} ) {{"
        for configuration, row in zip(itertools.product(*(states[parent] for parent in parents)), rows, strict=True):
            yield f"  ({', '.join(configuration)}) {', '.join(map(repr, row))};"
    yield "}"


def _file_states(variable: Variable) -> list[str]:
    states = _safe_names(variable.states, _is_safe_state, fold=False)
    return states if len(states) > 1 else [*states, _PADDING if states[0] != _PADDING else f"{_PADDING}_2"]


def _padded(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Double every axis of length 1; the child's new state is impossible, a parent's changes nothing."""
    for axis, states in enumerate(table.shape):
        if states == 1:
            child = axis == table.ndim - 1
            table = np.concatenate([table, np.zeros_like(table) if child else table], axis=axis)
    return table


def _is_safe_node(name: str) -> bool:
    # pgmpy takes "table" and "default" for keywords also inside a node's name.
    lower = name.lower()
    return bool(_SAFE.fullmatch(name)) and lower not in _KEYWORDS and "table" not in lower and "default" not in lower


def _is_safe_state(name: str) -> bool:
    if _WHOLE_NUMBER.fullmatch(name):
        return True
    return bool(_SAFE.fullmatch(name)) and name.lower() not in _KEYWORDS


def _safe_names(names: Sequence[str], is_safe: Any, *, fold: bool) -> list[str]:
    """Give every name a safe one, all different; names that are safe already stay.

    `fold`: names that differ in case only count as the same (so does pgmpy for nodes).
    """

    def key(name: str) -> str:
        return name.lower() if fold else name

    given: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        if is_safe(name) and key(name) not in taken:
            given[name] = name
            taken.add(key(name))
    for name in names:
        if name not in given:
            stem = _spell(name)
            trials = itertools.chain([stem], (f"{stem}_{number}" for number in itertools.count(2)))
            given[name] = next(trial for trial in trials if is_safe(trial) and key(trial) not in taken)
            taken.add(key(given[name]))
    return [given[name] for name in names]


def _spell(name: str) -> str:
    """Write a name with safe characters so that a person can still guess it."""
    for sign, words in _SPOKEN:
        name = name.replace(sign, words)
    ascii_only = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode("ascii")
    stem = re.sub(r"[^A-Za-z0-9_-]+", "_", ascii_only).strip("_-") or "x"
    stem = re.sub("table|default", lambda word: word.group()[:3], stem, flags=re.IGNORECASE)
    return stem if stem[0].isalpha() else f"_{stem}"


def _quoted(name: str) -> str:
    return quote(name, safe="")


# Reading ------------------------------------------------------------------------------------------------------------


def load_bif(path: Path) -> tuple[Schema, dict[str, tuple[str, ...]], dict[str, NDArray[np.float64]]]:
    """Read a BIF file, gzipped if its name ends in ``.gz``.

    Returns
    -------
    schema, parents, tables

    Raises
    ------
    FormatError
        It is not BIF; file and line are named.
    """
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return read_bif(raw.decode("utf-8-sig"))
    except (FormatError, UnicodeDecodeError, EOFError, gzip.BadGzipFile) as error:
        raise FormatError(f"{path}: {error}") from error


def read_bif(text: str) -> tuple[Schema, dict[str, tuple[str, ...]], dict[str, NDArray[np.float64]]]:
    """Read the text of a BIF file.

    Understood: comments, quoted names, names with blanks, optional commas, ``table``, rows and ``default``, and the
    old header ``probability ( child parent parent )``.

    Returns
    -------
    schema, parents, tables

    Raises
    ------
    FormatError
        It is not BIF; the line is named.
    """
    reader = _Reader(text)
    reader.read()
    if not reader.variables:
        raise FormatError("not a BIF file: it declares no variable")
    if missing := [name for name in reader.variables if name not in reader.tables]:
        raise FormatError(f"no probabilities for {shorten(missing)}")
    true_names = {name: declared.variable.name for name, declared in reader.variables.items()}
    try:
        schema = Schema(tuple(declared.variable for declared in reader.variables.values()))
    except SchemaError as error:
        raise FormatError(str(error)) from error
    parents = {true_names[node]: tuple(true_names[parent] for parent in reader.parents[node]) for node in true_names}
    return schema, parents, {true_names[node]: reader.tables[node] for node in true_names}


_TOKEN: Final = re.compile(
    r"""(?P<skip>\s+|//[^\n]*|/\*.*?\*/)|"(?P<text>[^"]*)"|(?P<mark>[{}()\[\],;|])|(?P<word>[^\s{}()\[\],;|"]+)""",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    start: int
    quoted: bool = False


@dataclass(frozen=True)
class _Declared:
    """A variable with its true names, and the code of each state as the file calls it, padding included."""

    variable: Variable
    code_of: Mapping[str, int]


@dataclass
class _Reader:
    """Recursive descent over tokens; one pass, variables before the probabilities that use them."""

    text: str
    variables: dict[str, _Declared] = field(default_factory=dict)
    parents: dict[str, tuple[str, ...]] = field(default_factory=dict)
    tables: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    place: int = 0

    def __post_init__(self) -> None:
        self.tokens = list(_tokens(self.text))

    def read(self) -> None:
        deferred: list[int] = []  # some writers put probabilities first
        while (word := self._peek()) is not None:
            self.place += 1
            if word == "network":
                self._skip_block()
            elif word == "variable":
                self._read_variable()
            elif word == "probability":
                deferred.append(self.place)
                self._skip_block()
            else:
                self.place -= 1
                raise self._error(f"expected network, variable or probability, got {shorten([word])!r}")
        for self.place in deferred:
            self._read_probability()

    def _peek(self) -> str | None:
        return self.tokens[self.place].text if self.place < len(self.tokens) else None

    def _next(self) -> _Token:
        if self.place >= len(self.tokens):
            raise self._error("the file ends too early")
        self.place += 1
        return self.tokens[self.place - 1]

    def _expect(self, *wanted: str) -> str:
        token = self._next()
        if token.text not in wanted or token.quoted:
            self.place -= 1
            raise self._error(f"expected {' or '.join(wanted)}, got {shorten([token.text])!r}")
        return token.text

    def _error(self, message: str) -> FormatError:
        start = self.tokens[self.place].start if self.place < len(self.tokens) else len(self.text)
        return FormatError(f"line {self.text.count(chr(10), 0, start) + 1}: {message}")

    def _until(self, *marks: str) -> tuple[list[_Token], str]:
        """Give the tokens before the first of the marks, and that mark."""
        found: list[_Token] = []
        while (token := self._next()).text not in marks or token.quoted:
            found.append(token)
        return found, token.text

    def _skip_block(self) -> None:
        self._until("{")
        self._until("}")

    def _read_variable(self) -> None:
        start = self.place
        name = _joined(self._until("{")[0])
        states: list[str] = []
        properties: dict[str, str] = {}
        while (word := self._expect("type", "property", "}")) != "}":
            if word == "type":
                states = self._read_states()
            else:
                begin = self.tokens[self.place - 1].start + len("property")
                self._until(";")
                key, _, value = self.text[begin : self.tokens[self.place - 1].start].partition("=")
                properties[key.strip()] = value.strip()
        if name in self.variables:
            self.place = start
            raise self._error(f"variable {shorten([name])} is declared twice")
        try:
            variable = _restore(name, states, properties)
        except (SchemaError, ValueError) as error:
            self.place = start
            raise self._error(str(error)) from error
        self.variables[name] = _Declared(variable, {state: code for code, state in enumerate(states)})

    def _read_states(self) -> list[str]:
        self._expect("discrete")
        self._expect("[")
        count = _joined(self._until("]")[0])
        self._expect("{")
        inside, _ = self._until("}")
        self._expect(";")
        groups, words = _groups(inside), [token.text for token in inside if token.text != "," or token.quoted]
        for states in (groups, words):
            if str(len(states)) == count:
                return states
        raise self._error(f"{count} states are announced but {len(groups)} are listed")

    def _read_probability(self) -> None:
        self._expect("(")
        inside, mark = self._until(")", "|")
        words = [token.text for token in inside if token.text != "," or token.quoted]
        if mark == "|":
            node, parents = _joined(inside), _groups(self._until(")")[0])
        elif _joined(inside) in self.variables:
            node, parents = _joined(inside), []
        else:
            node, parents = (words or [""])[0], words[1:]
        for name in (node, *parents):
            if name not in self.variables:
                raise self._error(
                    f"probabilities of {shorten([node])}: {shorten([repr(name)])} is no declared variable"
                )
        if node in self.tables:
            raise self._error(f"probabilities of {shorten([node])} are given twice")
        if node in parents or len(set(parents)) < len(parents):
            raise self._error(f"probabilities of {shorten([node])}: a parent is the node itself or named twice")
        self.parents[node] = tuple(parents)
        self.tables[node] = self._read_table(node, parents)

    def _read_table(self, node: str, parents: Sequence[str]) -> NDArray[np.float64]:
        family = [self.variables[name] for name in (*parents, node)]
        shape = tuple(len(declared.code_of) for declared in family)
        table_cells(shape)
        table = np.full(shape, np.nan)
        default: list[float] | None = None
        self._expect("{")
        while (word := self._expect("table", "default", "(", "property", "}")) != "}":
            if word == "(":
                place = self._configuration(node, parents)
                table[place] = self._numbers(node, shape[-1])
            elif word == "table":  # the child's states are the slowest axis
                values = np.array(self._numbers(node, table.size)).reshape(shape[-1], *shape[:-1])
                table = np.ascontiguousarray(np.moveaxis(values, 0, -1))
            elif word == "default":
                default = self._numbers(node, shape[-1])
            else:
                self._until(";")
        if default is not None:
            table = np.where(np.isnan(table), np.array(default), table)
        if np.isnan(table).any():
            self.place -= 1
            raise self._error(
                f"{shorten([node])}: {int(np.isnan(table).any(axis=-1).sum())} configurations have no row"
            )
        return table[tuple(slice(declared.variable.cardinality) for declared in family)]

    def _configuration(self, node: str, parents: Sequence[str]) -> tuple[int, ...]:
        inside, _ = self._until(")")
        states = _groups(inside)
        if len(states) != len(parents):
            states = [token.text for token in inside if token.text != ","]
        if len(states) != len(parents):
            raise self._error(f"{shorten([node])}: {len(parents)} parents but {len(states)} states in a row")
        codes = []
        for parent, state in zip(parents, states, strict=True):
            if (code := self.variables[parent].code_of.get(state)) is None:
                raise self._error(f"{shorten([node])}: {shorten([repr(state)])} is no state of {shorten([parent])}")
            codes.append(code)
        return tuple(codes)

    def _numbers(self, node: str, count: int) -> list[float]:
        words = [token.text for token in self._until(";")[0] if token.text != ","]
        try:
            numbers = [float(word) for word in words]
        except ValueError as error:
            self.place -= 1
            raise self._error(f"{shorten([node])}: {error}") from error
        if len(numbers) != count or not np.isfinite(numbers).all():
            self.place -= 1
            raise self._error(f"{shorten([node])}: expected {count} finite probabilities, got {len(numbers)}")
        return numbers


def _tokens(text: str) -> Iterator[_Token]:
    place = 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise FormatError(f"line {text.count(chr(10), 0, place) + 1}: a quote is not closed")
        place = match.end()
        if match["skip"] is None:
            quoted = match["text"] is not None
            yield _Token(match["text"] if quoted else match.group(), match.start(), quoted)


def _joined(tokens: Iterable[_Token]) -> str:
    return " ".join(token.text for token in tokens)


def _groups(tokens: Sequence[_Token]) -> list[str]:
    """Split at commas; words between two commas are one name with blanks."""
    parts: list[list[_Token]] = [[]]
    for token in tokens:
        if token.text == "," and not token.quoted:
            parts.append([])
        else:
            parts[-1].append(token)
    return [_joined(part) for part in parts if part]


def _restore(name: str, states: Sequence[str], properties: Mapping[str, str]) -> Variable:
    """Give the variable its true names back, if this file was written by bnpipe."""
    file_states = states[:-1] if "bnpipe_padding" in properties else states
    true_states = tuple(file_states)
    if "bnpipe_states" in properties:
        true_states = tuple(unquote(state) for state in properties["bnpipe_states"].split(","))
    if len(true_states) != len(file_states):
        raise SchemaError(
            f"{name}: property bnpipe_states names {len(true_states)} states, the file {len(file_states)}"
        )
    edges = properties.get("bnpipe_edges")
    return Variable(
        unquote(properties["bnpipe_name"]) if "bnpipe_name" in properties else name,
        true_states,
        edges=None if edges is None else tuple(float(edge) for edge in edges.split(",") if edge),
        other=unquote(properties["bnpipe_other"]) if "bnpipe_other" in properties else None,
        missing=unquote(properties["bnpipe_missing"]) if "bnpipe_missing" in properties else None,
    )
