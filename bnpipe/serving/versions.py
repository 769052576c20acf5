"""One version in memory: loaded, compiled, warmed, and checked before it may answer anybody."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

import bnpipe
from bnpipe.errors import BnpipeError, NetworkError, NotServed
from bnpipe.inference import Engine, TrainingLikelihoods
from bnpipe.network import Network
from bnpipe.schema import MISSING
from bnpipe.serving.answering import Options, answer, posterior_answers
from bnpipe.serving.cells import CellEncoder
from bnpipe.serving.questions import KINDS
from bnpipe.serving.situation import VersionOnDisk
from bnpipe.serving.usual import DRAWN, set_usual

NETWORK: Final = "network.json"
EXAMPLE: Final = "example.json"
LIKELIHOODS: Final = "likelihoods.json"
_WARM_CELLS: Final = 1e9
"""Cells of messages that warming may touch for likelihoods: a second or so."""
_TOLERANCE: Final = 1e-9
"""Between the answer recorded where the version was made and this machine's."""


@dataclass(frozen=True, eq=False)
class ServedVersion:
    """A version that answers.

    Parameters
    ----------
    model : str
    number : int
    engine : Engine
    about : VersionOnDisk
    encoder : CellEncoder
        Of the network's schema; for one thread.
    marginals : mapping of str to list of dict
        Answer of each target when nothing is known: what is left when all else fails.
    """

    model: str
    number: int
    engine: Engine
    about: VersionOnDisk
    encoder: CellEncoder
    marginals: dict[str, Any] = field(repr=False)

    @property
    def network(self) -> Network:
        """The network."""
        return self.engine.network

    @property
    def cost(self) -> float:
        """Cells that one row's messages touch."""
        return float(self.engine.cost.cells)

    def targets(self, asked: tuple[str, ...] | None) -> tuple[str, ...]:
        """Targets of a question: those asked for, else the model's own, else all variables."""
        return tuple(dict.fromkeys(asked)) if asked else self.about.targets or self.network.nodes


def load_version(folder: Path, model: str, number: int, about: VersionOnDisk, *, clique_cells: int) -> ServedVersion:
    """Load a version from its folder and make it fit to answer.

    Raises
    ------
    NotServed
        It is damaged, too costly, or answers its own example otherwise than recorded.
    """
    try:
        network = Network.load(folder / NETWORK)
        if network.content_hash != about.content_hash:
            raise NetworkError(f"its files hold network {network.content_hash[:12]}, not {about.content_hash[:12]}")
        engine = bnpipe.compile(network, max_clique_cells=clique_cells)
        version = ServedVersion(model, number, engine, about, CellEncoder(network.schema), marginals=_marginals(engine))
        set_usual(engine, _read_likelihoods(folder / LIKELIHOODS, about))
        _check_example(version, folder / EXAMPLE)
        _warm(version)
    except BnpipeError as error:
        raise NotServed(f"{model} version {number} is not taken into service: {error}") from error
    except Exception as error:  # whatever its files hold, it is no reason to stop answering from others
        why = f"{type(error).__name__}: {error}"
        raise NotServed(f"{model} version {number} is not taken into service: {why[:200]}") from error
    return version


def _marginals(engine: Engine) -> dict[str, Any]:
    (nothing,) = posterior_answers(engine, {name: table[None, :] for name, table in engine.marginals().items()})
    found: dict[str, Any] = nothing["posterior"]
    return found


def _read_likelihoods(path: Path, about: VersionOnDisk) -> TrainingLikelihoods | None:
    if not about.likelihoods:  # registered by hand, or before they were kept
        return None
    found = TrainingLikelihoods.from_json(path.read_text()) if path.exists() else None
    if found is None or found.hash != about.likelihoods:
        raise NetworkError(f"{path.name}: the likelihoods of its training rows are not those that were registered")
    return found


def _check_example(version: ServedVersion, recorded: Path) -> None:
    """Ask the version its own input example; its answer must be the one recorded when it was registered."""
    if not recorded.exists():  # registered by hand, or before examples were recorded
        return
    example = json.loads(recorded.read_text())
    codes = version.encoder.encode(example["rows"]).codes
    found = version.engine.posterior_codes(codes, list(example["posterior"]), threads=1)
    for target, expected in example["posterior"].items():
        table = np.array(expected, dtype=np.float64)
        if found[target].shape != table.shape or not np.allclose(
            found[target], table, rtol=0.0, atol=_TOLERANCE, equal_nan=True
        ):
            raise NetworkError(f"{target}: it answers its own example otherwise than recorded when it was registered")


def _warm(version: ServedVersion) -> None:
    """Compile every path a first request would otherwise wait for."""
    codes = np.full((len(version.network.nodes), 2), MISSING, dtype=np.uint8)
    codes[:, 1] = 0
    targets = version.targets(None)
    for kind in (*KINDS, "invocations"):
        if kind == "likelihood" and DRAWN * version.cost > _WARM_CELLS:
            continue  # left to who asks for one, within what a question may cost
        answer(version.engine, kind, Options() if kind == "likelihood" else Options(targets=targets), codes)
    if version.network.has_counts:
        answer(version.engine, "posterior", Options(targets=targets[:1], interval=0.95), codes[:, :1])
