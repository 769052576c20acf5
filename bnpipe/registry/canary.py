"""Canaries: which version gets which share of a model's requests, and how it came to that.

The truth is the sequence of write-once params ``canary.NNNNNN`` of the model's ledger, each holding the whole state
after one change, who made it and why. A number is claimed by compare-and-set (:mod:`bnpipe.registry.ledger`), so of two
who change the same state one wins and the other reads again. The tag ``bnpipe.canary`` of the registered model is the
copy that MLflow shows; it is written after the entry, and whoever writes it reads the entries again until both agree,
so a slow writer never leaves an older state standing. A tag that lags behind a killed writer is passed over by readers
and mended by the next change or retry.

A tag that is *deleted* is a person's halt: nobody is routed from then on, and the next step enters it. Only a start
makes a tag where there is none. It is entered before it is tagged, so who dies in between has started nothing: the same
start again carries on within the grace, and begins anew after it.

The champion moves by :meth:`bnpipe.registry.Registry.promote` alone; ``promoted`` is entered after that.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from bnpipe.errors import FormatError, PromotionRefused, RegistryError, RegistryUnavailable, VersionNotFound
from bnpipe.registry.entries import KEY_LENGTH, UNKNOWN_ACTOR, cut, name_version
from bnpipe.registry.freezing import Freezing
from bnpipe.registry.ledger import CHAMPION, LEDGER_TAG, ROUNDS
from bnpipe.registry.versions import Versions

if TYPE_CHECKING:
    from bnpipe.release.canary import CanaryDecision, CanaryPolicy, CanaryState

CANARY_TAG: Final = "bnpipe.canary"
PREFIX: Final = "canary."
REASON_LENGTH: Final = 600


@dataclass(frozen=True, slots=True)
class CanaryEntry:
    """One change of a model's canary.

    Parameters
    ----------
    number : int
        Counted from 1 for each model.
    model : str
    state : CanaryState
        After the change; its reason is the change's.
    actor : str
    evidence : str
        Verdicts in short, or where to look them up.
    time : datetime
        UTC.
    key : str
        What makes a retry the same change; '' if none was given.
    """

    number: int
    model: str
    state: CanaryState
    actor: str
    evidence: str
    time: datetime
    key: str = ""


class Canaries(Versions, Freezing):
    """What :class:`bnpipe.registry.Registry` does with canaries."""

    def canary(self, model: str) -> CanaryState | None:
        """Give the canary by which requests are routed, None if there is none, or no such model. Changes nothing.

        One that was compared with a champion who reigns no more routes nobody, also before its halt is entered.
        """
        state, champion = self._open(model)
        return state if state is not None and state.champion == champion else None

    def open_canary(self, model: str) -> CanaryState | None:
        """Give the canary that has not been ended yet, whoever is champion; None as for :meth:`canary`."""
        return self._open(model)[0]

    def canary_entries(self, model: str) -> tuple[CanaryEntry, ...]:
        """Give every change of the model's canaries, oldest first.

        Raises
        ------
        VersionNotFound
            No such model.
        """
        run_id = self.ledger.find(model)
        return _read_entries(model, self.ledger.params(run_id)) if run_id else ()

    def start_canary(
        self,
        model: str,
        version: int,
        *,
        policy: CanaryPolicy,
        actor: str,
        reason: str,
        shadow: float | None = None,
        key: str = "",
    ) -> CanaryEntry:
        """Begin a canary, or the shadowing before it.

        Parameters
        ----------
        model : str
        version : int
            The challenger.
        policy : CanaryPolicy
        actor, reason : str
        shadow : float or None
            Share of the requests that it answers unheard first; None: it begins with the first stage.
        key : str
            A retry with the same key gives the entry of the first attempt.

        Raises
        ------
        PromotionRefused
            The model is frozen, has no champion or another canary running; the version is the champion, barred, or
            never passed its gates.
        VersionNotFound
        """
        from bnpipe.release.canary import begin

        champion = self._check_start(model, version)
        before, known = self._standing(model, key)
        if known is not None and (known != before or not self._is_untagged(known)):
            return known
        if before is not None and before.state.running:
            if known is not None and self._is_young(known):
                self._show(model, start=True)
                return known
            if self._is_young(before) or not self._is_untagged(before):
                raise PromotionRefused(
                    f"{model!r} already has a canary of {name_version(before.state.version)}; halt it first"
                )
            before = self._enter_stop_by_hand(before)
        number = before.number + 1 if before else 1
        state = begin(
            version=version,
            champion=champion,
            policy=policy,
            now=self._now(),
            salt=f"{model}:{version}:{number}",
            shadow=shadow,
        )
        return self._write(model, before, replace(state, reason=reason), actor=actor, key=key)

    def move_canary(
        self,
        model: str,
        state: CanaryState,
        decision: CanaryDecision,
        *,
        policy: CanaryPolicy,
        actor: str,
        evidence: str = "",
        key: str = "",
        now: datetime | None = None,
    ) -> CanaryEntry:
        """Enter what was decided about a state: the next stage, the end after its promotion, or a halt.

        Parameters
        ----------
        model : str
        state : CanaryState
            The one decided about.
        decision : CanaryDecision
        policy : CanaryPolicy
        actor, evidence : str
        key : str
            A retry with the same key gives the entry of the first attempt.
        now : datetime or None
            When the decision was taken, from when the next stage counts; None: now.

        Raises
        ------
        PromotionRefused
            The canary is in another state than the one decided about, or the model is frozen or the version barred
            and the decision is not to halt.
        """
        from bnpipe.release.canary import follow

        before, known = self._standing(model, key)
        if known is not None:
            return known
        if decision.action == "advance":
            self._check_advance(model, state.version)
        if before is None or before.state != state:
            raise PromotionRefused(f"the canary of {model!r} is no longer the one that was decided about; decide again")
        after = follow(state, decision, policy, now or self._now())
        return self._write(model, before, after, actor=actor, evidence=evidence, key=key)

    def note_canary(self, model: str, state: CanaryState, reason: str, *, actor: str, key: str = "") -> CanaryEntry:
        """Enter something to be told of a canary that goes on as it was.

        Raises
        ------
        PromotionRefused
            The canary is in another state.
        """
        before, known = self._standing(model, key)
        if known is not None:
            return known
        if before is None or before.state != state:
            raise PromotionRefused(f"the canary of {model!r} is no longer the one that was decided about; decide again")
        return self._write(model, before, replace(state, reason=reason), actor=actor, key=key)

    def halt_canary(self, model: str, *, actor: str, reason: str, key: str = "") -> CanaryEntry | None:
        """End the canary that is running; every request is the champion's again. None if there is none to end.

        Raises
        ------
        VersionNotFound
            No such model.
        """
        from bnpipe.release.canary import halted

        for _ in range(ROUNDS):
            before, known = self._standing(model, key)
            if known is not None:
                return known
            if before is None or not before.state.running:
                return None
            try:
                after = halted(before.state, reason, self._now())
                return self._write(model, before, after, actor=actor, key=key)
            except PromotionRefused:
                continue  # it moved on meanwhile: to be halted where it is now
        raise RegistryUnavailable(f"the canary of {model!r} kept moving; try again")

    def stopped_by_hand(self, model: str) -> CanaryEntry | None:
        """Enter the halt of a canary whose tag somebody deleted in MLflow; None if nobody has.

        Raises
        ------
        VersionNotFound
            No such model.
        """
        last = _last(self.canary_entries(model))
        if last is None or not last.state.running or self._is_young(last) or not self._is_untagged(last):
            return None
        return self._enter_stop_by_hand(last)

    # -- what may begin or go on

    def _check_start(self, model: str, version: int) -> int:
        """Give the champion's number, or refuse."""
        chosen, champion = self.version(model, version), self.connection.call("get_registered_model", model)
        number = champion.aliases.get(CHAMPION)
        if (frozen := self.frozen(model)) is not None:
            raise PromotionRefused(f"{model!r} is frozen {frozen}")
        if number is None:
            raise PromotionRefused(f"{model!r} has no champion to compare with; promote a version first")
        if int(number) == version:
            raise PromotionRefused(f"{name_version(version)} already is the champion of {model!r}")
        if chosen.doubts:
            raise PromotionRefused(f"{model} {version}: {' and '.join(chosen.doubts)}")
        return int(number)

    def _check_advance(self, model: str, version: int) -> None:
        if (frozen := self.frozen(model)) is not None:
            raise PromotionRefused(f"{model!r} is frozen {frozen}")
        if (bar := self.version(model, version).barred) is not None:
            raise PromotionRefused(f"{name_version(version)} of {model!r} is barred: {bar or 'no reason given'}")

    # -- the protocol

    def _open(self, model: str) -> tuple[CanaryState | None, int | None]:
        """Give the state of a canary that runs and has its tag, and the champion of the moment."""
        try:
            found = self.connection.call("get_registered_model", model)
        except VersionNotFound:
            return None, None
        if CANARY_TAG not in found.tags or not found.tags.get(LEDGER_TAG):
            return None, None
        last = _last(_read_entries(model, self.ledger.params(found.tags[LEDGER_TAG])))
        champion = found.aliases.get(CHAMPION)
        state = last.state if last is not None and last.state.running else None
        return state, None if champion is None else int(champion)

    def _standing(self, model: str, key: str) -> tuple[CanaryEntry | None, CanaryEntry | None]:
        """Give the last entry, and the one that an earlier attempt wrote under this key, with the tag mended."""
        entries = self.canary_entries(model)
        known = next((one for one in reversed(entries) if key and one.key == cut(key, KEY_LENGTH)), None)
        if known is not None:
            self._show(model)
        return _last(entries), known

    def _is_untagged(self, entry: CanaryEntry) -> bool:
        """Whether the tag of a running canary is not there: deleted by a person, or its starter died."""
        return entry.state.running and CANARY_TAG not in self.connection.call("get_registered_model", entry.model).tags

    def _is_young(self, entry: CanaryEntry) -> bool:
        """Whether its writer may still be about to set the tag."""
        return self.ledger.clock() - entry.time.timestamp() < self.ledger.grace

    def _enter_stop_by_hand(self, before: CanaryEntry) -> CanaryEntry:
        from bnpipe.release.canary import halted

        reason = f"the tag {CANARY_TAG} was deleted in MLflow"
        after = halted(before.state, reason, self._now())
        return self._write(before.model, before, after, actor=UNKNOWN_ACTOR)

    def _write(
        self,
        model: str,
        before: CanaryEntry | None,
        state: CanaryState,
        *,
        actor: str,
        evidence: str = "",
        key: str = "",
    ) -> CanaryEntry:
        """Claim the number after `before`, then show the state that stands.

        Raises
        ------
        PromotionRefused
            Somebody else changed the canary first.
        """
        number = before.number + 1 if before else 1
        claim = {
            "nonce": uuid.uuid4().hex,
            "state": replace(state, reason=cut(state.reason, REASON_LENGTH)).to_dict(),
            "actor": cut(actor, KEY_LENGTH),
            "evidence": cut(evidence, REASON_LENGTH),
            "time": self._now().isoformat(),
            "key": cut(key, KEY_LENGTH),
        }
        value = json.dumps(claim, ensure_ascii=False)
        name = f"{PREFIX}{number:06d}"
        standing = self.ledger.claim(self.ledger.ensure(model), name, value)
        self.ledger.checkpoint("entered canary")
        self._show(model, start=before is None or not before.state.running)
        if standing == value:
            return _read_entry(model, number, standing)
        other = _read_entry(model, number, standing)
        if key and other.key == cut(key, KEY_LENGTH):
            return other
        said = other.state.reason or other.state.status
        raise PromotionRefused(f"the canary of {model!r} was changed meanwhile by {other.actor}: {said}")

    def _show(self, model: str, *, start: bool = False) -> None:
        """Make the tag say what the last entry says; whoever writes last has read that nothing came after."""
        for _ in range(ROUNDS):
            last = _last(self.canary_entries(model))
            if last is None or (not start and self._is_untagged(last)):
                return
            text = json.dumps({"number": last.number} | last.state.to_dict(), ensure_ascii=False)
            self.connection.call("set_registered_model_tag", model, CANARY_TAG, text)
            self.ledger.checkpoint("tagged canary")
            if _last(self.canary_entries(model)) == last:
                return
        raise RegistryUnavailable(f"the canary of {model!r} kept moving; try again")

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.ledger.clock(), UTC)


def describe_canary(entry: CanaryEntry) -> str:
    """Tell a change of a canary in one line."""
    state = entry.state
    if state.status != "running":
        what = f"canary of version {state.version} {state.status}"
    elif state.mode == "shadow":
        what = f"version {state.version} shadows version {state.champion} on {state.share:.3g} of the requests"
    else:
        what = f"version {state.version} answers {state.share:.3g} of the requests, version {state.champion} the rest"
    evidence = f" [{entry.evidence}]" if entry.evidence else ""
    return f"{entry.number:>4}  {entry.time:%Y-%m-%d %H:%M:%S UTC}  {what}, by {entry.actor}: {state.reason}{evidence}"


def _last(entries: tuple[CanaryEntry, ...]) -> CanaryEntry | None:
    return entries[-1] if entries else None


def _read_entries(model: str, params: Mapping[str, str]) -> tuple[CanaryEntry, ...]:
    names = sorted(name for name in params if name.startswith(PREFIX))
    return tuple(_read_entry(model, int(name.removeprefix(PREFIX)), params[name]) for name in names)


def _read_entry(model: str, number: int, text: str) -> CanaryEntry:
    from bnpipe.release.canary import CanaryState

    try:
        fields: dict[str, Any] = json.loads(text)
        return CanaryEntry(
            number=number,
            model=model,
            state=CanaryState.from_dict(fields["state"]),
            actor=fields["actor"],
            evidence=fields["evidence"],
            time=datetime.fromisoformat(fields["time"]),
            key=fields["key"],
        )
    except (KeyError, TypeError, ValueError, FormatError) as error:
        raise RegistryError(f"canary entry {number} of the ledger of {model!r} can't be read: {error!r}") from error
