"""Alerts: a short text for people, into the log and, where the environment says so, to a webhook and by mail.

An alert that can't be sent is logged and stops nothing. The addresses hold secrets (that of a webhook is one), so
neither they nor what a library says of them is ever shown.
"""

from __future__ import annotations

import json
import logging
import os
import smtplib
import ssl
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from email.message import EmailMessage
from email.utils import localtime, make_msgid
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.error import HTTPError
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from bnpipe.errors import SettingsError, hide_secrets

if TYPE_CHECKING:
    from bnpipe.drift import DriftReport, NodeDrift
    from bnpipe.release import DriftDecision

log = logging.getLogger("bnpipe.alerts")

WEBHOOK: Final = "BNPIPE_ALERT_WEBHOOK"
SMTP: Final = "BNPIPE_ALERT_SMTP"
TO: Final = "BNPIPE_ALERT_TO"

TIMEOUT: Final = 10.0  # seconds, for each answer of a server
MOST_CHANGES: Final = 10

Kind = Literal["drift", "failure", "registry", "message"]


@dataclass(frozen=True, slots=True)
class Change:
    """One CPD that changed, as an alert tells it.

    Parameters
    ----------
    node : str
    effect : float
        Total variation, as :class:`bnpipe.drift.NodeDrift` has it.
    p : float
    where : str
        The most changed configuration of the parents; '' where the whole CPD changed or the node has no parents.
    since : str or None
        The change-point.
    """

    node: str
    effect: float
    p: float
    where: str = ""
    since: str | None = None

    def __str__(self) -> str:
        where = f", most at {self.where}" if self.where else ""
        since = f", since {self.since}" if self.since else ""
        return f"{self.node}: total variation {self.effect:.2f}, p {self.p:.2g}{where}{since}"


@dataclass(frozen=True, slots=True)
class Alert:
    """What a person should know.

    Parameters
    ----------
    model : str
    kind : {'drift', 'failure', 'registry', 'message'}
    headline : str
        One line that begins with the model's name.
    reason : str
        Why, in a few sentences.
    action : str
        Of a drift run: what was decided.
    changes : tuple of Change
        The surest and largest first.
    link : str
        Where to read more.
    """

    model: str
    kind: Kind
    headline: str
    reason: str = ""
    action: str = ""
    changes: tuple[Change, ...] = ()
    link: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "headline", hide_secrets(" ".join(self.headline.split())[:200]))
        object.__setattr__(self, "reason", hide_secrets(self.reason[:2000]))

    @property
    def text(self) -> str:
        """The whole alert as plain text."""
        changes = [str(change) for change in self.changes[:MOST_CHANGES]]
        if len(self.changes) > MOST_CHANGES:
            changes.append(f"and {len(self.changes) - MOST_CHANGES} more")
        return "\n".join(line for line in (self.headline, *changes, self.reason, self.link) if line)

    def to_dict(self) -> dict[str, Any]:
        """Give JSON-ready fields, ``text`` among them: the field that chat services show."""
        return {"text": self.text, **asdict(self)}


def drift_alert(
    model: str,
    decision: DriftDecision,
    report: DriftReport | None,
    *,
    done: bool = True,
    note: str = "",
    link: str = "",
) -> Alert:
    """Tell what a drift run decided.

    Parameters
    ----------
    decision : DriftDecision
    report : DriftReport or None
        None where the data were too bad to compare.
    done : bool
        False: it came to nothing, as when somebody else moved the champion meanwhile.
    note : str
        What came of it, as a sentence; the decision's reason is not told twice.
    """
    changes = tuple(_change(report.nodes[name]) for name in report.flagged) if report is not None else ()
    count = f"{len(changes)} of {len(report.nodes)} CPDs changed, " if report is not None and changes else ""
    return Alert(
        model,
        "drift",
        f"{model}: {count}{_what(decision, done=done)}",
        reason=note if decision.reason in note else f"{decision.reason} {note}".strip(),
        action=decision.action,
        changes=changes,
        link=link,
    )


def _what(decision: DriftDecision, *, done: bool) -> str:
    named = {
        "nothing": "nothing is done",
        "hold": "the live data are held as bad and not learned",
        "roll back": f"roll back to version {decision.to}",
        "refit": f"refit of {', '.join(decision.families)}",
        "relearn": "learn the graph anew",
    }[decision.action]
    if decision.advised_only:
        return f"advised: {named}"
    return named if done or decision.action in ("nothing", "hold") else f"not done: {named}"


def _change(node: NodeDrift) -> Change:
    where = next((row.name for row in node.changed_rows if row.changed and row.configuration), "")
    return Change(node.name, node.effect, node.p, where, node.change_point)


def send(alert: Alert, environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Write an alert into the log and send it wherever the environment says; never raises.

    Parameters
    ----------
    environ : mapping
        `BNPIPE_ALERT_WEBHOOK`, an http or https URL that takes JSON; `BNPIPE_ALERT_SMTP`, a mail server as
        ``smtp://`` or ``smtps://USER:PASSWORD@HOST:PORT?from=ADDRESS``, and `BNPIPE_ALERT_TO`, addresses with commas.

    Returns
    -------
    tuple of str
        The ways it went: ``log``, ``webhook``, ``mail``.
    """
    log.warning("alert: %s", alert.text)
    given = _given(environ)
    deliver: dict[str, Callable[[Alert, Mapping[str, str]], None]] = {"webhook": _by_webhook, "mail": _by_mail}
    gone = ["log"]
    for way in ways(environ)[1:]:
        try:
            deliver[way](alert, given)
            gone.append(way)
        except Exception as error:  # noqa: BLE001  an alert must neither fail a run nor hide how it ended
            log.warning("the alert could not be sent by %s: %s", way, _why(error))
    return tuple(gone)


def ways(environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Name the ways that the environment wants an alert to go: ``log`` always, ``webhook``, ``mail``."""
    given = _given(environ)
    return ("log", *(["webhook"] if given[WEBHOOK] else []), *(["mail"] if given[SMTP] or given[TO] else []))


def _given(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: environ.get(name, "").strip() for name in (WEBHOOK, SMTP, TO)}


def _by_webhook(alert: Alert, given: Mapping[str, str]) -> None:
    server = _parse(WEBHOOK, given[WEBHOOK], ("http", "https"), "https://HOST/PATH")
    headers = {"Content-Type": "application/json; charset=utf-8", "User-Agent": "bnpipe"}
    if server.username:
        login = f"{unquote(server.username)}:{unquote(server.password or '')}"
        headers["Authorization"] = f"Basic {b64encode(login.encode()).decode()}"
    address = server._replace(netloc=server.netloc.rpartition("@")[2], fragment="").geturl()
    body = json.dumps(alert.to_dict(), ensure_ascii=False).encode()
    request = urllib.request.Request(address, data=body, headers=headers, method="POST")
    urllib.request.build_opener(_Stay).open(request, timeout=TIMEOUT).close()


class _Stay(urllib.request.HTTPRedirectHandler):
    """A redirected POST would become a GET without its body, and its login would go elsewhere."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _by_mail(alert: Alert, given: Mapping[str, str]) -> None:
    to = [address.strip() for address in given[TO].split(",") if address.strip()]
    if not given[SMTP] or not to:
        raise SettingsError(f"{SMTP} and {TO} go together; set both or neither")
    server = _parse(SMTP, given[SMTP], ("smtp", "smtps"), "smtps://USER:PASSWORD@HOST:PORT?from=ADDRESS")
    user = unquote(server.username or "")
    sender = parse_qs(server.query).get("from", [user if "@" in user else f"bnpipe@{server.hostname}"])[0]
    message = EmailMessage()
    message["Subject"] = alert.headline
    message["From"] = sender
    message["To"] = ", ".join(to)
    message["Date"] = localtime()
    message["Message-ID"] = make_msgid(domain="bnpipe")
    message.set_content(alert.text)
    with _connect(server) as smtp:
        if user:
            smtp.login(user, unquote(server.password or ""))
        smtp.send_message(message)


def _connect(server: SplitResult) -> smtplib.SMTP:
    """Connect, encrypted from the start or as soon as the server offers it; a password goes no other way."""
    tls, host = ssl.create_default_context(), str(server.hostname)
    if server.scheme == "smtps":
        return smtplib.SMTP_SSL(host, server.port or 465, timeout=TIMEOUT, context=tls)
    smtp = smtplib.SMTP(host, server.port or 587, timeout=TIMEOUT)
    try:
        smtp.ehlo()
        if smtp.has_extn("starttls"):
            smtp.starttls(context=tls)
        elif server.username:
            raise SettingsError(f"{SMTP} has a password, and that server takes none encrypted; use smtps:// or another")
    except BaseException:
        smtp.close()
        raise
    return smtp


def _parse(variable: str, value: str, schemes: tuple[str, ...], example: str) -> SplitResult:
    wrong = SettingsError(f"{variable} is no such address as {example}")
    try:
        parsed = urlsplit(value)
        usable = parsed.scheme in schemes and bool(parsed.hostname) and parsed.port != 0
    except ValueError:
        raise wrong from None
    if not usable:
        raise wrong
    return parsed


def _why(error: Exception) -> str:
    """Say what went wrong in words of our own: libraries quote the address."""
    if isinstance(error, SettingsError):
        return str(error)
    if isinstance(error, HTTPError):
        error.close()
        return f"the server answered {error.code}"
    if isinstance(error, smtplib.SMTPResponseException):
        return f"the server answered {error.smtp_code}"
    cause = getattr(error, "reason", error)
    return getattr(cause, "strerror", None) or type(cause if isinstance(cause, Exception) else error).__name__
