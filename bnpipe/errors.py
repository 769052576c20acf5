"""Every error bnpipe raises on purpose.

::

    BnpipeError
    ├── SpecError                 the YAML of a network is wrong: file, key, line
    ├── SettingsError             the environment is wrong: a connection or BNPIPE_* variable
    ├── DataError                 the rows do not fit
    │   ├── SourceError           the source can't be read: SQL, path, column
    │   │   └── SourceUnavailable it may be back in a minute                    (retryable)
    │   ├── EmptyWindowError      no rows where rows were expected
    │   ├── SchemaError           states, bins, types
    │   └── EvidenceError         rows to predict from do not fit the network
    ├── KnowledgeError            arcs, tiers and limits that contradict each other
    ├── NetworkError              not a valid network: cycle, CPD, counts
    │   ├── FormatError           a file written by a newer bnpipe, or not by bnpipe
    │   ├── NoCountsError         asked of an imported network what only counts can tell
    │   └── TooDenseError         exact inference would cost too much; names the clique
    ├── GateFailed                an absolute gate said no; carries the verdicts
    ├── PromotionRefused          the alias was not moved, and why
    ├── PlatformError             a server of the demo did not start, died or did not answer in time
    ├── StoreError                BNPIPE_STORE can't be read or written
    └── RegistryError             MLflow answered no
        ├── RegistryUnavailable   MLflow did not answer                         (retryable)
        └── VersionNotFound       no such model, version or alias

Messages name the thing, say what to do and stay short however large the data; use :func:`shorten`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from bnpipe.verdict import Verdict


def shorten(items: Iterable[object], *, limit: int = 5) -> str:
    """List the first `limit` items, each cut at 60 characters, and count the rest."""
    listed = [str(item) for item in items]
    shown = ", ".join(text if len(text) <= 60 else text[:57] + "..." for text in listed[:limit])
    rest = len(listed) - limit
    return f"{shown} and {rest} more" if rest > 0 else shown


class BnpipeError(Exception):
    """Root of the tree.

    Attributes
    ----------
    retryable : bool
        Whether the same call may succeed a minute later.
    exit_code : int
        What the command line ends with: 1 refused, 2 misuse.
    """

    retryable: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1


class SpecError(BnpipeError):
    """The YAML of a network is wrong. One message a mistake, each with key and line."""

    exit_code = 2

    def __init__(self, message: str, *, problems: tuple[str, ...] = ()) -> None:
        self.problems = problems or (message,)
        super().__init__(message)


class SettingsError(BnpipeError):
    """A connection or an environment variable is missing or wrong."""

    exit_code = 2


class DataError(BnpipeError):
    """The rows do not fit."""


class SourceError(DataError):
    """The source can't be read: SQL, path or column."""


class SourceUnavailable(SourceError):
    """The source did not answer; it may be back in a minute."""

    retryable = True


class EmptyWindowError(DataError):
    """No rows where rows were expected."""


class SchemaError(DataError):
    """States, bins or types do not fit."""


class EvidenceError(DataError):
    """Rows to predict from do not fit the network."""


class KnowledgeError(BnpipeError):
    """Arcs, tiers and limits that contradict each other."""

    exit_code = 2


class NetworkError(BnpipeError):
    """Not a valid network."""


class FormatError(NetworkError):
    """A file written by a newer bnpipe, or not by bnpipe."""


class NoCountsError(NetworkError):
    """Asked of an imported network what only counts can tell."""


class TooDenseError(NetworkError):
    """Exact inference would cost too much."""


class GateFailed(BnpipeError):
    """An absolute gate said no."""

    def __init__(self, message: str, *, verdicts: tuple[Verdict, ...] = ()) -> None:
        self.verdicts = verdicts
        super().__init__(message)


class PromotionRefused(BnpipeError):
    """The alias was not moved."""


class PlatformError(BnpipeError):
    """A server of the demo did not start, died or did not answer in time."""


class StoreError(BnpipeError):
    """BNPIPE_STORE can't be read or written."""


class RegistryError(BnpipeError):
    """MLflow answered no."""


class RegistryUnavailable(RegistryError):
    """MLflow did not answer."""

    retryable = True


class VersionNotFound(RegistryError):
    """No such model, version or alias."""
