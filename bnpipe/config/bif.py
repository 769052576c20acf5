"""The graph of a BIF file, without its distributions: a spec needs only the arcs."""

from __future__ import annotations

import re
from pathlib import Path

from bnpipe.errors import SpecError

_WORD = r'"[^"]*"|[^\s"(){}|,;]+'
_VARIABLE = re.compile(rf"\bvariable\s+({_WORD})\s*\{{")
_PROBABILITY = re.compile(rf"\bprobability\s*\(\s*({_WORD})\s*(?:\|([^)]*))?\)")


def read_parents(path: Path) -> dict[str, tuple[str, ...]]:
    """Read variable -> parents from a BIF file.

    Raises
    ------
    SpecError
        There is no such file, it is no BIF, or it names parents it does not declare.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise SpecError(f"can't read the BIF file {path}: {reason}") from error
    text = re.sub(r"//[^\n]*|/\*.*?\*/", " ", text, flags=re.DOTALL)
    parents: dict[str, tuple[str, ...]] = {_bare(match[1]): () for match in _VARIABLE.finditer(text)}
    if not parents:
        raise SpecError(f"{path} is no BIF file: it declares no variable")
    for match in _PROBABILITY.finditer(text):
        child, given = _bare(match[1]), tuple(_bare(word) for word in re.findall(_WORD, match[2] or ""))
        unknown = [name for name in (child, *given) if name not in parents]
        if unknown:
            raise SpecError(f"{path}: probability of {child} names {unknown[0]!r}, which is not declared")
        parents[child] = given
    return parents


def _bare(word: str) -> str:
    return word.strip('"')
