"""Whether live values came in another unit than those that the champion learned from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnpipe.errors import DataError, StoreError
from bnpipe.steps.live import Champion, LookBench
from bnpipe.store import Snapshot, load_frame
from bnpipe.verdict import Verdict

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray


def in_another_unit(bench: LookBench) -> tuple[Verdict, ...]:
    """Judge each numeric variable of the tested days; where the learned rows are gone from the store nobody can."""
    from bnpipe.expectations import unit_changed

    recipe = bench.recipe
    rules = {rule.name: rule for rule in recipe.spec.feature_rules() if rule.kind == "numeric" and not rule.target}
    verdicts = []
    for name, rule in rules.items():
        reference = None if name in recipe.absent else _learned(bench, name)
        if reference is None:
            continue
        live = bench.live_frame((name, "_cluster"), start=recipe.window.tested)
        days = {str(day): _numbers(part[name]) for day, part in live.groupby("_cluster", observed=True)}
        suspicion = unit_changed(days, _numbers(reference))
        if suspicion is not None:
            stops, said = rule.unknown_severity == "critical", f"{name} {suspicion}"
            verdicts.append(Verdict(f"unit of {name}", *(("fail", said) if stops else ("pass", f"warning: {said}"))))
    return tuple(verdicts)


def _learned(bench: LookBench, name: str) -> pd.Series | None:
    """Give the values that the champion learned from; of a refit also those of the versions it is made from."""
    import pandas as pd

    found, version = [], bench.recipe.champion
    while version is not None:
        found.append(_values(bench, name, version))
        version = version.base
    there = [values for values in found if values is not None]
    return pd.concat(there, ignore_index=True) if there else None


def _values(bench: LookBench, name: str, champion: Champion) -> pd.Series | None:
    try:
        with bench.store.open_snapshot(Snapshot("", champion.fingerprint, 0, 0)) as path:
            return load_frame(path, (name,), start=champion.start, end=champion.train_end)[name]
    except DataError:  # the champion has no such variable
        return None
    except StoreError as error:
        if error.retryable:
            raise
        return None


def _numbers(values: pd.Series) -> NDArray[np.float64]:
    import pandas as pd

    return pd.to_numeric(values, errors="coerce").to_numpy("float64", na_value=float("nan"))
