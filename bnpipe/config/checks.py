"""What a spec's keys say together: variables that exist, arcs that agree, a source that answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bnpipe.config.loading import Draft, Problem, read_draft
from bnpipe.errors import SpecError


def check_spec(path: Path | str, *, online: bool = True) -> list[Problem]:
    """Find every mistake of a spec, warnings included.

    Parameters
    ----------
    path : Path
        The YAML file.
    online : bool
        Also ask the source: does the SQL run, are the columns there, has the window rows?
    """
    try:
        draft = read_draft(Path(path))
    except SpecError as error:
        return [Problem(str(path), 1, "", str(error))]
    return [*draft.problems, *static_problems(draft)]


def static_problems(draft: Draft) -> Iterator[Problem]:
    """Check what needs no source."""
    return iter(())
