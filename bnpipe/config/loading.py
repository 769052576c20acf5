"""From a YAML file to a spec, with every mistake told by line and key."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ValidationError

from bnpipe.config import yaml_lines
from bnpipe.config.bif import read_parents
from bnpipe.config.spec import ModelSpec
from bnpipe.config.yaml_lines import Document, YamlError
from bnpipe.errors import SettingsError, SpecError

_MAX_BYTES: Final = 2_000_000
_SUFFIXES: Final = (".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a spec.

    Parameters
    ----------
    file : str
        The spec.
    line : int
        1-based; 0 is the whole file.
    key : str
        Path of the YAML key, as ``structure.required[0]``.
    message : str
        What is wrong and what to do.
    severity : {"error", "warning"}
        A warning lets the spec be used.
    """

    file: str
    line: int
    key: str
    message: str
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        kind = "warning: " if self.severity == "warning" else ""
        key = f"{self.key}: " if self.key else ""
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {kind}{key}{self.message}"


@dataclass(frozen=True)
class Draft:
    """A file as far as it could be read.

    Parameters
    ----------
    path : Path
        The file.
    document : Document
        Its values and lines.
    spec : ModelSpec or None
        None if some key or value is wrong.
    problems : tuple of Problem
        Found so far.
    """

    path: Path
    document: Document
    spec: ModelSpec | None
    problems: tuple[Problem, ...]

    def problem(self, path: yaml_lines.Path, message: str, severity: Literal["error", "warning"] = "error") -> Problem:
        """Point at `path` in this file."""
        return Problem(str(self.path), self.document.line(path), yaml_lines.show(path), message, severity)


def load_spec(path: Path | str) -> ModelSpec:
    """Read the spec of one network.

    Raises
    ------
    SpecError
        With every mistake in `problems`, each as ``file:line: key: message``.
    """
    from bnpipe.config.checks import static_problems

    draft = read_draft(Path(path))
    problems = [problem for problem in (*draft.problems, *static_problems(draft)) if problem.severity == "error"]
    if problems or draft.spec is None:
        raise spec_error(problems)
    return _with_arcs(draft.spec, Path(path).parent)


def load_all(folder: Path | str) -> tuple[tuple[Path, ModelSpec | SpecError], ...]:
    """Read every ``*.yaml`` of a folder; a broken one is its error, so that the others stand.

    Raises
    ------
    SettingsError
        There is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise SettingsError(f"there is no folder {folder}: set BNPIPE_MODELS to where the specs are")
    found: list[tuple[Path, ModelSpec | SpecError]] = []
    first: dict[str, Path] = {}
    for path in sorted(file for file in folder.iterdir() if file.suffix in _SUFFIXES and not file.name.startswith(".")):
        try:
            spec = load_spec(path)
        except SpecError as error:
            found.append((path, error))
            continue
        if spec.name in first:
            message = f"{path}:1: name: {spec.name} is also the name in {first[spec.name]}; rename one"
            found.append((path, SpecError(message)))
            continue
        first[spec.name] = path
        found.append((path, spec))
    return tuple(found)


def spec_error(problems: list[Problem]) -> SpecError:
    """Join problems into one error, in the order of lines."""
    texts = tuple(str(problem) for problem in sorted(problems, key=lambda problem: (problem.line, problem.key)))
    return SpecError("\n".join(texts), problems=texts)


def read_draft(path: Path) -> Draft:
    """Read a file as far as it goes."""
    try:
        document = read_document(path, verbatim=_verbatim, typed=_typed)
    except YamlError as error:
        return Draft(path, Document(None, {}), None, (Problem(str(path), error.line, "", str(error)),))
    problems = [Problem(str(path), line, yaml_lines.show(key), message) for key, line, message in document.problems]
    try:
        return Draft(path, document, ModelSpec.model_validate(document.value), tuple(problems))
    except ValidationError as error:
        problems += explain(path, document, error, ModelSpec)
        return Draft(path, document, None, tuple(problems))


def read_document(
    path: Path,
    *,
    verbatim: Callable[[yaml_lines.Path], bool] = lambda _: False,
    typed: Callable[[yaml_lines.Path], bool] = lambda _: False,
    may_be_empty: bool = False,
) -> Document:
    """Read a YAML file that holds a mapping, or nothing where it may be empty.

    Raises
    ------
    YamlError
        It does not, or is not text.
    """
    document = yaml_lines.read(_text(path), verbatim=verbatim, typed=typed)
    if document.value is not None or not may_be_empty:
        _check_top(document)
    return document


def _check_top(document: Document) -> None:
    if document.value is None:
        raise YamlError("the file is empty; start with `name:`, or copy the example of docs/spec.md", line=0)
    if not isinstance(document.value, dict):
        raise YamlError(f"the file must hold `key: value` lines, it holds a {_kind(document.value)}")


def _verbatim(path: yaml_lines.Path) -> bool:
    return len(path) == 4 and path[0] == "variables" and path[2] in ("states", "labels")


def _typed(path: yaml_lines.Path) -> bool:
    return len(path) > 4 and path[:2] == ("validation", "expectations") and path[3] == "kwargs"


def _text(path: Path) -> str:
    try:
        if path.is_dir():
            raise YamlError("this is a folder; give one of its files", line=0)
        if path.stat().st_size > _MAX_BYTES:
            raise YamlError(f"{path.stat().st_size / 1e6:.0f} MB is no spec; give the YAML file of a network", line=0)
        content = path.read_bytes()
    except FileNotFoundError:
        close = get_close_matches(path.name, _siblings(path), n=1)
        hint = f"did you mean {path.with_name(close[0])}?" if close else "check the path"
        raise YamlError(f"there is no such file; {hint}", line=0) from None
    except OSError as error:
        raise YamlError(f"can't be read: {error.strerror}", line=0) from error
    if b"\0" in content:
        raise YamlError("binary, not text; give the YAML file of a network", line=0)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise YamlError("not UTF-8 text; save the file as UTF-8", line=line) from error


def _siblings(path: Path) -> list[str]:
    return [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []


def _with_arcs(spec: ModelSpec, folder: Path) -> ModelSpec:
    """Write the arcs of a BIF file into the spec, so that the spec alone says which graph it is."""
    graph = spec.structure.graph
    if graph is None or graph.arcs is not None:
        return spec
    parents = read_parents(folder / str(graph.bif))
    arcs = tuple((parent, child) for child in parents for parent in parents[child])
    drawn = spec.structure.model_copy(update={"graph": graph.model_copy(update={"arcs": arcs})})
    return spec.model_copy(update={"structure": drawn})


# -- pydantic's errors, in the words of the file


def explain(path: Path, document: Document, error: ValidationError, model: type[BaseModel]) -> Iterator[Problem]:
    """Say of each thing pydantic found in a file on which line it stands, and what is allowed there."""
    found = error.errors(include_url=False)
    misspelt = {(*item["loc"][:-1], _meant(item, model)) for item in found if item["type"] == "extra_forbidden"}
    for item in found:
        if item["type"] == "missing" and item["loc"] in misspelt:
            continue
        key = _key(item["loc"])
        yield Problem(str(path), document.line(key), yaml_lines.show(key), wording(key, item, model))


def _meant(item: Mapping[str, Any], model: type[BaseModel]) -> str | None:
    """Guess which key an unknown one stands for."""
    known = _known_keys(item["loc"], model)
    return next(iter(get_close_matches(str(item["loc"][-1]), known, n=1, cutoff=0.6)), None)


def _key(location: tuple[str | int, ...]) -> yaml_lines.Path:
    """Strip from pydantic's location what is no key of the file: tags of unions, ``[key]`` of mappings."""
    return tuple(part for part in location if not str(part).startswith("<") and part != "[key]")


def wording(key: yaml_lines.Path, found: Mapping[str, Any], model: type[BaseModel] = ModelSpec) -> str:
    """Say in our words what pydantic found at a key: what was given, and what is allowed."""
    kind, got, context = str(found["type"]), found["input"], found.get("ctx", {})
    if key[-1:] == ("key_sha256",) and isinstance(got, str):
        got = f"{len(got)} characters"  # perhaps the key itself
    if kind == "extra_forbidden":
        meant = _meant(found, model)
        return f"unknown key; did you mean `{meant}`?" if meant else f"unknown key; allowed are {_list(found, model)}"
    if kind == "missing":
        if isinstance(key[-1], int):
            return "an arc is [parent, child]"
        return "this key is required; add it"
    if kind == "literal_error":
        allowed = str(context["expected"]).replace("'", "").replace(" or ", ", ").split(", ")
        close = get_close_matches(str(got), allowed, n=1, cutoff=0.6)
        hint = f", did you mean {close[0]}?" if close else ""
        return f"got {_shown(got)}; allowed are {', '.join(allowed)}{hint}"
    if kind == "value_error":
        return str(context["error"])
    if kind == "string_pattern_mismatch":
        return f"got {_shown(got)}; {_NAMES.get(str(context['pattern']), 'it has letters that are not allowed')}"
    if kind in _WANTED:
        return f"got {_shown(got)}; {_WANTED[kind]}"
    if kind == "too_long" and context.get("max_length") == 2:
        return f"got {_shown(got)}; an arc is [parent, child]"
    return f"got {_shown(got)}; {found['msg'][:1].lower()}{found['msg'][1:]}"


_NAMES: Final = {
    r"^[a-z0-9][a-z0-9_-]{0,99}$": "a name has small letters, digits, _ and -, at most 100",
    "^[0-9a-f]{64}$": "a SHA-256 has 64 digits and letters a to f",
    r"^[A-Za-z][A-Za-z0-9_-]{0,99}$": "a variable's name starts with a letter and has letters, digits, _ and - "
    "(use `column:` for a column of another name)",
}
_WANTED: Final = {
    "int_parsing": "write a whole number",
    "int_type": "write a whole number",
    "int_from_float": "write a whole number",
    "float_parsing": "write a number",
    "float_type": "write a number",
    "finite_number": "write a finite number",
    "bool_parsing": "write true or false",
    "bool_type": "write true or false",
    "string_type": "write one word or text",
    "tuple_type": "write a list: [a, b]",
    "dict_type": "write a mapping: `key: value` lines",
    "model_type": "write a mapping: `key: value` lines",
    "model_attributes_type": "write a mapping: `key: value` lines",
    "string_too_short": "it must not be empty",
    "too_short": "there must be more",
}


def _list(found: Mapping[str, Any], model: type[BaseModel]) -> str:
    return ", ".join(_known_keys(found["loc"], model))


def _known_keys(location: tuple[str | int, ...], model: type[BaseModel]) -> list[str]:
    from bnpipe.config.json_schema import keys_at

    return keys_at(location[:-1], model)


def _shown(value: Any) -> str:
    if isinstance(value, dict | list | tuple):
        text = "a " + _kind(value) if value else "an empty " + _kind(value)
        inner = ", ".join(map(str, value))
        return f"{text} ({inner})" if 0 < len(inner) <= 60 else text
    text = str(value)
    return repr(text if len(text) <= 60 else text[:57] + "...") if value is not None else "nothing"


def _kind(value: Any) -> str:
    return "mapping" if isinstance(value, dict) else "list" if isinstance(value, list | tuple) else "single value"
