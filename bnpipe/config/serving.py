"""`config/serving.yaml`: where the service listens, who may ask, and what it does under strain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints, ValidationError, model_validator

from bnpipe.config import yaml_lines
from bnpipe.config.loading import Problem, explain, read_document, spec_error
from bnpipe.config.scalars import Part
from bnpipe.config.settings import Settings
from bnpipe.config.yaml_lines import YamlError
from bnpipe.errors import SettingsError, SpecError

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,99}$")]
Scope = Literal["ask", "feedback", "operate"]
METRICS_CLIENT: Final = "metrics"
Seconds = Annotated[float, Field(gt=0.0, le=3600.0)]


class LimitsSpec(Part):
    """What one request, and one worker, may take."""

    body: int = Field(default=8_000_000, ge=1000, description="Bytes of a body.")
    rows: int = Field(default=10_000, ge=1, description="Rows of a question.")
    waiting: int = Field(
        default=16,
        ge=1,
        description="Requests a worker holds at once; more get 503. What is held waits for all before it: more means "
        "fewer refusals and longer waits.",
    )
    deadline: Seconds = Field(default=2.0, description="Seconds in which an answer is worth giving; later is 504.")
    clique_cells: int = Field(
        default=2**22, ge=1, description="Cells of the largest clique of a network that is taken into service."
    )
    cost: float = Field(
        default=4e9,
        gt=0.0,
        description="What one question may cost, in cells of messages; a core touches some 2e9 of them a second.",
    )


class BatchSpec(Part):
    """How concurrent questions are gathered into one call of the engine."""

    wait: float = Field(
        default=0.0, ge=0.0, le=0.05, description="Seconds a question may wait for company while others are in flight."
    )
    rows: int = Field(default=1024, ge=1, description="Rows of one call.")


class BreakerSpec(Part):
    """When a model is given a rest."""

    failures: float = Field(default=0.5, gt=0.0, le=1.0, description="Share of failed or slow calls that opens it.")
    of: int = Field(default=20, ge=1, description="Calls looked back on.")
    slow: Seconds = Field(default=1.0, description="Seconds from which a call of the engine counts as failed.")
    pause: Seconds = Field(default=5.0, description="Seconds until one call may try again.")


class AnswerLogSpec(Part):
    """What is kept of each answer."""

    folder: str | None = Field(
        default=None, description="Where; left out: BNPIPE_ANSWERS, else `answers` in BNPIPE_STORE if that is a folder."
    )
    evidence: Literal["keep", "hash"] = Field(
        default="keep", description="`hash` keeps of the rows only a hash: enough to prove which were asked about."
    )
    required: bool = Field(default=True, description="Refuse to answer what can't be logged.")
    fsync: bool = Field(default=False, description="Wait until it is on the disk: survives loss of power, too.")


class ClientSpec(Part):
    """One caller and what it may do."""

    name: Name = Field(description="What logs and `/v1/models` call it.")
    key_sha256: str = Field(
        pattern="^[0-9a-f]{64}$", description="Of its key; `bnpipe serve --new-key NAME` makes one and prints both."
    )
    models: tuple[str, ...] = Field(default=("*",), description="Which it may ask; `*` is all.")
    scopes: tuple[Scope, ...] = Field(default=("ask",), description="`ask`, `feedback`, `operate` (metrics).")
    pins: dict[str, Annotated[int, Field(ge=1)]] = Field(
        default={}, description="Versions it stays on, model by model."
    )


class ServedModelSpec(Part):
    """How one model is served."""

    unknown_variables: Literal["refuse", "ignore"] = Field(
        default="refuse", description="What becomes of cells of variables the network does not have."
    )
    unknown_states: Literal["missing", "refuse"] = Field(
        default="missing",
        description="What becomes of a value that is no state and that no `other` takes: it counts as missing, "
        "and the answer says so; or the question is refused.",
    )
    fallback: bool = Field(
        default=True,
        description="While the champion fails: answer by the previous version, else by the marginal; marked as such.",
    )


class TracingSpec(Part):
    """Where OpenTelemetry spans go."""

    endpoint: str | None = Field(
        default=None,
        pattern="^https?://[^/]+/",
        description="OTLP over HTTP, as http://127.0.0.1:4318/v1/traces; left out: nowhere.",
    )
    share: float = Field(
        default=0.01,
        ge=0.0,
        le=1.0,
        description="Share of requests that are traced; one that comes with a `traceparent` is traced as that says.",
    )


class LogSpec(Part):
    """Which requests get a line in the log; it never holds a row or a key."""

    requests: Literal["all", "failed", "none"] = Field(
        default="failed", description="`failed` are those refused or not answered."
    )
    slow: Seconds = Field(default=0.5, description="Seconds from which a request gets a line even so.")


class ServingSpec(Part):
    """The whole file; every key may be left out."""

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8800, ge=0, le=65535, description="0 takes a free one and prints it.")
    workers: int = Field(default=2, ge=1, le=256, description="Processes that answer.")
    poll: Seconds = Field(default=2.0, description="Seconds between looks at the registry.")
    cache: str | None = Field(
        default=None,
        description="Folder of downloaded versions; left out: `serving` in BNPIPE_STORE if that is a folder.",
    )
    anonymous: bool | None = Field(
        default=None, description="Answer callers without a key; left out: only if `host` is a loopback address."
    )
    answers_cached: int = Field(default=20_000, ge=0, description="Answers a worker remembers.")
    drain: Seconds = Field(default=20.0, description="Seconds a stopping worker has for what it holds.")
    models: dict[Name, ServedModelSpec] = Field(
        default={}, description="Those served; left out: all that are registered."
    )
    defaults: ServedModelSpec = Field(default=ServedModelSpec(), description="For models that are not listed.")
    limits: LimitsSpec = LimitsSpec()
    batch: BatchSpec = BatchSpec()
    breaker: BreakerSpec = BreakerSpec()
    answers: AnswerLogSpec = AnswerLogSpec()
    tracing: TracingSpec = TracingSpec()
    log: LogSpec = LogSpec()
    clients: tuple[ClientSpec, ...] = Field(default=(), description="Callers with a key.")

    @model_validator(mode="after")
    def _clients_differ(self) -> ServingSpec:
        for field in ("name", "key_sha256"):
            values = [getattr(client, field) for client in self.clients]
            if repeated := {value for value in values if values.count(value) > 1}:
                raise ValueError(f"clients: {field} {sorted(repeated)[0]!r} is given twice")
        return self

    @property
    def open_to_all(self) -> bool:
        """Whether callers without a key are answered."""
        if self.anonymous is not None:
            return self.anonymous
        return self.host in ("127.0.0.1", "::1", "localhost")

    def served(self, model: str) -> ServedModelSpec:
        """How a model is served."""
        return self.models.get(model, self.defaults)


def with_metrics_key(spec: ServingSpec, key_sha256: str) -> ServingSpec:
    """Add a client ``metrics`` that may read the metrics and ask nothing.

    Raises
    ------
    SettingsError
        The file has one of that name.
    """
    if any(client.name == METRICS_CLIENT for client in spec.clients):
        raise SettingsError(
            f"clients: there is one called {METRICS_CLIENT!r}, which is the name of BNPIPE_METRICS_KEY; "
            "give it another, or leave the variable out"
        )
    client = ClientSpec(name=METRICS_CLIENT, key_sha256=key_sha256, models=(), scopes=("operate",))
    return spec.model_copy(update={"clients": (*spec.clients, client)})


def cache_folder(spec: ServingSpec, settings: Settings) -> Path:
    """Where downloaded versions lie."""
    return Path(spec.cache).expanduser() if spec.cache is not None else settings.own_folder("serving")


def answers_folder(spec: ServingSpec, settings: Settings) -> Path:
    """Where the log of answers lies."""
    return Path(spec.answers.folder).expanduser() if spec.answers.folder is not None else settings.answers


def load_serving(path: Path) -> ServingSpec:
    """Read the file.

    Raises
    ------
    SpecError
        With every mistake in `problems`, each as ``file:line: key: message``.
    """
    try:
        document = read_document(path, may_be_empty=True)
    except YamlError as error:
        raise SpecError(f"{path}:{error.line}: {error}") from None
    problems = [Problem(str(path), line, yaml_lines.show(key), text) for key, line, text in document.problems]
    try:
        spec = ServingSpec.model_validate(document.value or {})
    except ValidationError as error:
        raise spec_error([*problems, *explain(path, document, error, ServingSpec)]) from None
    if problems:
        raise spec_error(problems)
    return spec
