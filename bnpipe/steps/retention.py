"""What may be deleted from the store: whatever no registered version needs."""

from __future__ import annotations

import time
from dataclasses import dataclass

from bnpipe.config import Settings
from bnpipe.errors import RegistryError, hide_secrets
from bnpipe.registry import Registry
from bnpipe.store import Store, snapshot_key


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep found.

    Parameters
    ----------
    kept, removed : int
        Snapshots and training folders that stay, and that went or would go.
    freed : int
        Bytes.
    """

    kept: int
    removed: int
    freed: int


def sweep(*, older_than_days: float = 30.0, dry_run: bool = True, settings: Settings | None = None) -> Swept:
    """Delete snapshots and training folders that no registered version refers to.

    Every version that bnpipe made keeps its snapshot, so that `bnpipe rebuild` works for it;
    younger files stay too, since a training under way has no version yet.

    Raises
    ------
    RegistryUnavailable
        Without MLflow nobody can say what is needed; nothing is deleted then.
    RegistryError
        MLflow knows no version at all while the store holds something: most likely the wrong MLflow was asked.
    """
    settings = settings or Settings.from_environ()
    registry = Registry(settings.tracking_uri)
    store = Store(settings.store)
    versions = registry.all_versions()
    items = store.items()
    if items and not versions:
        raise RegistryError(
            f"MLflow at {hide_secrets(settings.tracking_uri)} knows no version made by bnpipe, {store!r} holds "
            f"{len(items)} items: nothing is swept. Is MLFLOW_TRACKING_URI the right one?"
        )
    needed = {f"runs/{version.training_key}" for version in versions}
    needed |= {snapshot_key(version.tags.get("bnpipe.data_fingerprint", "")) for version in versions}
    cutoff = time.time() - older_than_days * 86_400
    kept = removed = freed = 0
    for item in items:
        if item.name in needed or item.modified >= cutoff:
            kept += 1
            continue
        removed += 1
        freed += item.bytes
        if not dry_run:
            store.delete(item.name)
    return Swept(kept, removed, freed)
