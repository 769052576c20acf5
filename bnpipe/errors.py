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
    ├── JournalError              an answer could not be logged
    ├── StoreError                BNPIPE_STORE can't be read or written
    │   └── StoreUnavailable      it may be back in a minute                    (retryable)
    ├── ServiceError              a request that `bnpipe serve` does not answer
    │   ├── QuestionError         what was asked is not well formed, or does not fit the network
    │   ├── WrongMediaType        a body of another type than is read
    │   ├── SlowBody              a body that did not come in time                    (retryable)
    │   ├── AccessDenied          no key, an unknown one, or one that may not do this
    │   ├── NotServed             no such model or version here
    │   ├── ServiceBusy           too much is waiting, or the model fails             (retryable)
    │   └── DeadlineExceeded      the answer would have come too late                 (retryable)
    └── RegistryError             MLflow answered no
        ├── RegistryUnavailable   MLflow did not answer                         (retryable)
        └── VersionNotFound       no such model, version or alias

Messages name the thing, say what to do, stay short however large the data (:func:`shorten`) and hold no passwords
(:func:`hide_secrets`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, ClassVar, Final
from urllib.parse import unquote

if TYPE_CHECKING:
    from bnpipe.verdict import Verdict

# Up to the last @ of the word: a password may hold @ and / unescaped. `host:5000/` is no user and password.
_USER_INFO: Final = re.compile(r"://(?:[^/\s:@\[]*:(?!\d+(?:[/?#]|$))\S*|[^/\s]*)@")
_SECRET_FIELD: Final = re.compile(
    r"([?&][^=&\s]*(?:passw|pwd|secret|token|key|sig|credential)[^=&\s]*=)([^&\s]*)", re.IGNORECASE
)


def shorten(items: Iterable[object], *, limit: int = 5) -> str:
    """List the first `limit` items, each cut at 60 characters, and count the rest."""
    listed = [str(item) for item in items]
    shown = ", ".join(text if len(text) <= 60 else text[:57] + "..." for text in listed[:limit])
    rest = len(listed) - limit
    return f"{shown} and {rest} more" if rest > 0 else shown


def hide_secrets(text: str, *, of: str = "", mark: str = "***@") -> str:
    """Blank out ``user:password@`` in every URL of a text, and values of its query that sound secret.

    Parameters
    ----------
    text : str
        A URL, or a message that may hold some.
    of : str
        A URL whose password must not show even where no URL stands around it: drivers quote what they misread.
    mark : str
        What takes the place of ``user:password@``.
    """
    for secret in _secrets_of(of):
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", text)
    return _SECRET_FIELD.sub(r"\1***", _USER_INFO.sub(f"://{mark}", text))


def _secrets_of(url: str) -> Iterator[str]:
    """List the URL, its secrets and, as drivers may cut a password at ``@ / ? # :``, their pieces; longest first."""
    found = _USER_INFO.search(url)
    password = found[0].removeprefix("://")[:-1].partition(":")[2] if found else ""
    secrets = [password, *(value for _, value in _SECRET_FIELD.findall(url))]
    secrets += [unquote(secret) for secret in secrets]
    pieces = {piece for secret in secrets for piece in re.split(r"[@/?#:]", secret)}
    yield from sorted({url, *secrets, *pieces} - {""}, key=len, reverse=True)


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


class JournalError(BnpipeError):
    """An answer could not be logged, or the log can't be read."""


class StoreError(BnpipeError):
    """BNPIPE_STORE can't be read or written."""


class StoreUnavailable(StoreError):
    """The store did not answer; it may be back in a minute."""

    retryable = True


class RegistryError(BnpipeError):
    """MLflow answered no."""


class RegistryUnavailable(RegistryError):
    """MLflow did not answer."""

    retryable = True


class VersionNotFound(RegistryError):
    """No such model, version or alias."""


class ServiceError(BnpipeError):
    """A request that the service does not answer."""


class QuestionError(ServiceError):
    """What was asked is not well formed, or does not fit the network.

    Parameters
    ----------
    at : str
        Path of the part of the body that is meant, as ``rows[3].hour``; '' for the whole.
    too_large : bool
        Whether less of the same would be answered.
    """

    def __init__(self, message: str, *, at: str = "", too_large: bool = False) -> None:
        self.at, self.too_large = at, too_large
        super().__init__(message)


class WrongMediaType(ServiceError):
    """A body of another type than is read."""


class SlowBody(ServiceError):
    """A body that did not come in time."""

    retryable = True


class AccessDenied(ServiceError):
    """No key, an unknown one, or one that may not do this.

    Parameters
    ----------
    known : bool
        Whether we know who asks.
    """

    def __init__(self, message: str, *, known: bool) -> None:
        self.known = known
        super().__init__(message)


class NotServed(ServiceError):
    """No such model or version here."""


class ServiceBusy(ServiceError):
    """Too much is waiting, or the model fails.

    Parameters
    ----------
    retry_after : float
        Seconds after which to ask again.
    """

    retryable = True

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class DeadlineExceeded(ServiceError):
    """The answer would have come too late."""

    retryable = True
