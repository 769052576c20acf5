"""Taking a champion back: by a person from the terminal or Airflow's form, by a drift run on evidence."""

from __future__ import annotations

import logging

from bnpipe.config import Settings
from bnpipe.registry import ANY, Registry
from bnpipe.registry.entries import Anywhere
from bnpipe.steps.promotion import Outcome

log = logging.getLogger("bnpipe.steps")


def rollback(
    *,
    model: str,
    to: int | None = None,
    actor: str,
    reason: str,
    force: bool = False,
    evidence: str = "",
    expected: int | Anywhere | None = ANY,
    key: str = "",
    settings: Settings | None = None,
) -> Outcome:
    """Make an earlier version champion again and bar the present one from automatic promotion.

    The same request again, as after a crash, goes no further back while it is the last move.

    Parameters
    ----------
    to : int or None
        None: the newest earlier champion that passed its gates, is not barred and can be loaded.
    force : bool
        Also to a version that is barred or never passed its gates; never to one whose files can't be loaded.
    evidence : str
        Where to look it up; '': the MLflow run of the version that is rolled back.
    expected : int or None or ANY
        The champion this was decided against.
    key : str
        What makes a retry the same request, as an Airflow run id; '': actor and reason do.

    Raises
    ------
    PromotionRefused
        Nothing to go back to, `to` will not do, or somebody else moved the champion at the same moment.
    VersionNotFound
    """
    registry = Registry((settings or Settings.from_environ()).tracking_uri)
    before = registry.champion(model)
    bad_run = registry.run_url(before.run_id) if before is not None and before.run_id else ""
    entry = registry.rollback(
        model,
        to=to,
        actor=actor,
        reason=reason,
        evidence=evidence or bad_run,
        expected=expected,
        key=key or f"{actor}: {reason}",
        force=force,
    )
    assert entry.to is not None
    again = before is not None and before.number == entry.to
    word = "already rolled back" if again else "rolled back"
    said = f"{reason} (entry {entry.number}, {entry.time:%Y-%m-%d %H:%M UTC})"
    if again:
        said += "; to go further, say to which version or give another reason"
    log.info("%s: %s from version %s to %d: %s", model, word, entry.source, entry.to, said)
    return Outcome(word, entry.to, entry.source, said)
