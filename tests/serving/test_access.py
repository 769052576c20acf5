"""Who may what: keys hashed, scopes per model, strangers only where the address is this machine's own."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from registry_bench import make_network
from serving_bench import Kept, make_service, put_version, send

from bnpipe.config.serving import ClientSpec, ServingSpec
from bnpipe.errors import AccessDenied
from bnpipe.serving.access import ANONYMOUS, Access, hash_key, new_key
from bnpipe.serving.service import Service
from bnpipe.serving.situation import ModelSituation, Situation, read_situation, write_situation

KEYS = {name: new_key() for name in ("asker", "labeller", "operator", "trains")}
CLIENTS = [
    {"name": "asker", "key_sha256": hash_key(KEYS["asker"]), "pins": {"flights": 1}},
    {"name": "labeller", "key_sha256": hash_key(KEYS["labeller"]), "scopes": ["feedback"]},
    {"name": "operator", "key_sha256": hash_key(KEYS["operator"]), "scopes": ["ask", "operate"]},
    {"name": "trains", "key_sha256": hash_key(KEYS["trains"]), "models": ["trains"], "scopes": ["ask", "feedback"]},
]
LABELS = {"model": "flights", "request_id": "0006453a7e3c10-5f2b8c1d9e4a7036", "labels": {"late": True}}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Service:
    """Two models, four clients, bound to all addresses."""
    cache = tmp_path_factory.mktemp("cache")
    service = make_service(cache, [make_network(), make_network(300)], log=Kept(), host="0.0.0.0", clients=CLIENTS)
    about = put_version(cache, "trains", 1, make_network())
    held = read_situation(cache)
    assert held is not None
    trains = ModelSituation(1, versions={"1": about}, faults={"7": "secret of the trains"})
    write_situation(cache, Situation(held.at, {**held.models, "trains": trains}))
    assert service.shelf.refresh()
    return service


def status(service: Service, key: str | None, method: str, path: str, **request: Any) -> int:
    """Ask with a key."""
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    return send(service, method, path, headers=headers, **request).status_code


ROW = {"json": {"rows": [{}]}}


@pytest.mark.parametrize(
    "asked",
    [
        ("asker", "POST", "/v1/models/flights/posterior", ROW, 200),
        ("asker", "POST", "/v1/models/trains/posterior", ROW, 200),
        ("asker", "POST", "/v1/feedback", {"json": LABELS}, 403),
        ("asker", "GET", "/metrics", {}, 403),
        ("asker", "GET", "/v1/models/flights", {}, 200),
        ("labeller", "POST", "/v1/feedback", {"json": LABELS}, 202),
        ("labeller", "POST", "/v1/models/flights/posterior", ROW, 403),
        ("labeller", "GET", "/v1/models/flights", {}, 403),
        ("operator", "GET", "/metrics", {}, 200),
        ("operator", "POST", "/v1/models/flights/likelihood", ROW, 200),
        ("trains", "POST", "/v1/models/trains/predict", ROW, 200),
        ("trains", "POST", "/v1/models/flights/predict", ROW, 403),
        ("trains", "POST", "/v1/models/nothing/predict", ROW, 403),
        ("trains", "GET", "/v1/models/flights", {}, 403),
        ("trains", "POST", "/v1/feedback", {"json": LABELS}, 403),
        ("trains", "POST", "/v1/models/flights/invocations", {"json": {"inputs": {}}}, 403),
        ("trains", "POST", "/invocations", {"json": {"dataframe_records": [{}]}}, 200),
        ("asker", "POST", "/invocations", {"json": {"dataframe_records": [{}]}}, 404),
        (None, "POST", "/v1/models/flights/posterior", ROW, 401),
        (None, "POST", "/v1/feedback", {"json": LABELS}, 401),
        (None, "POST", "/invocations", ROW, 401),
        (None, "GET", "/v1/models", {}, 401),
        (None, "GET", "/v1/models/flights", {}, 401),
        (None, "GET", "/metrics", {}, 401),
        (None, "GET", "/health", {}, 200),
        (None, "GET", "/ready", {}, 200),
        (None, "GET", "/ping", {}, 200),
        (None, "GET", "/v1/openapi.json", {}, 200),
    ],
)
def test_scopes_hold(service: Service, asked: tuple[str | None, str, str, dict[str, Any], int]) -> None:
    """Each may do what its scopes and models say, and no more."""
    who, method, path, request, expected = asked
    key = None if who is None else KEYS[who]
    assert status(service, key, method, path, **request) == expected


@pytest.mark.parametrize(
    "key",
    ["", "x", "bnp_", new_key(), hash_key(KEYS["asker"]), KEYS["asker"][:-1], "é"],
    ids=["empty", "letter", "prefix", "another", "hash", "cut", "not ASCII"],
)
def test_other_keys_are_none(service: Service, key: str) -> None:
    """An unknown key is not a stranger's request: 401, and how to say who asks. The hash is no key."""
    found = send(service, "GET", "/v1/models", headers={"authorization": f"Bearer {key}".encode()})
    assert found.status_code == 401
    assert found.headers["www-authenticate"] == "Bearer"
    assert KEYS["asker"] not in found.text


def test_both_headers_are_read(service: Service) -> None:
    """`X-API-Key` does as well as `Authorization: Bearer`; other schemes are refused, not ignored."""
    assert send(service, "GET", "/v1/models", headers={"x-api-key": KEYS["asker"]}).status_code == 200
    basic = {"authorization": "Basic YTpi", "x-api-key": KEYS["asker"]}
    assert send(service, "GET", "/v1/models", headers=basic).status_code == 401


def test_models_are_shown_to_who_may_ask_them(service: Service) -> None:
    """Neither names, faults, health nor others' pins are told to who has no business with them."""

    def seen(who: str) -> dict[str, Any]:
        found = send(service, "GET", "/v1/models", headers={"x-api-key": KEYS[who]}).json()["models"]
        return {model["name"]: model for model in found}

    assert list(seen("trains")) == ["trains"]
    assert list(seen("asker")) == ["flights", "trains"]
    assert seen("asker")["flights"]["pinned"] == {"asker": 1}
    assert seen("operator")["flights"]["pinned"] == {"asker": 1}
    assert seen("labeller")["flights"]["pinned"] == {}
    assert send(service, "GET", "/health").json() == {"status": "ok"}
    health = send(service, "GET", "/health", headers={"x-api-key": KEYS["trains"]})
    assert list(health.json()["models"]) == ["trains"]
    for who in ("trains",):
        refused = send(service, "POST", "/v1/models/flights/posterior", headers={"x-api-key": KEYS[who]}, **ROW)
        assert "secret" not in refused.text


@pytest.mark.parametrize(
    ("host", "anonymous", "opened"),
    [
        ("127.0.0.1", None, True),
        ("::1", None, True),
        ("localhost", None, True),
        ("0.0.0.0", None, False),
        ("10.0.0.3", None, False),
        ("::", None, False),
        ("0.0.0.0", True, True),
        ("127.0.0.1", False, False),
    ],
)
def test_strangers_are_answered_on_loopback_only(host: str, anonymous: bool | None, opened: bool) -> None:
    """Elsewhere it must be asked for."""
    spec = ServingSpec(host=host, anonymous=anonymous)
    access = Access(spec.clients, anonymous=spec.open_to_all)
    if opened:
        assert access.caller(None) is ANONYMOUS
    else:
        with pytest.raises(AccessDenied, match="a key is needed"):
            access.caller(None)


@pytest.mark.parametrize(
    ("host", "let_in"),
    [
        ("127.0.0.1:8800", True),
        ("localhost:8800", True),
        ("flights.localhost", True),
        ("[::1]:8800", True),
        ("[::ffff:127.0.0.1]:80", True),
        ("service", True),
        ("evil.example:8800", False),
        ("127.0.0.1.evil.example", False),
        ("evil.example", False),
    ],
)
def test_a_name_that_leads_here_lets_no_stranger_in(tmp_path: Path, host: str, let_in: bool) -> None:
    """A page whose own name leads to 127.0.0.1 is refused, unless strangers are asked for; a key goes before."""
    spec: dict[str, Any] = {"clients": CLIENTS[:1]}
    headers = {"host": host}
    found = send(make_service(tmp_path, **spec), "GET", "/v1/models", headers=headers)
    assert found.status_code == (200 if let_in else 401)
    with_key = {**headers, "x-api-key": KEYS["asker"]}
    assert send(make_service(tmp_path, **spec), "GET", "/v1/models", headers=with_key).status_code == 200
    open_ = make_service(tmp_path, anonymous=True)
    assert send(open_, "GET", "/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"])
def test_what_a_proxy_brings_is_a_strangers(tmp_path: Path, header: str) -> None:
    """A proxy on this machine asks as localhost; whom it asks for has no key, and is told what to do."""
    headers = {"host": "localhost:8800", header: "203.0.113.9"}
    refused = send(make_service(tmp_path), "GET", "/v1/models", headers=headers)
    assert refused.status_code == 401
    assert header.lower() in refused.json()["detail"]
    assert "anonymous: true" in refused.json()["detail"]
    assert send(make_service(tmp_path, anonymous=True), "GET", "/v1/models", headers=headers).status_code == 200
    with_key = {**headers, "x-api-key": KEYS["asker"]}
    assert send(make_service(tmp_path, clients=CLIENTS[:1]), "GET", "/v1/models", headers=with_key).status_code == 200


def test_a_pinned_client_stays(service: Service) -> None:
    """It is answered by its version, marked so; another client by the champion; `?version=` goes before both."""
    path = "/v1/models/flights/posterior"

    def answered(who: str, query: str = "") -> tuple[int, str]:
        found = send(service, "POST", path + query, headers={"x-api-key": KEYS[who]}, **ROW).json()
        return found["version"], found["arm"]

    assert answered("asker") == (1, "pinned")
    assert answered("operator") == (2, "champion")
    assert answered("operator", "?version=1") == (1, "pinned")
    assert answered("asker", "?version=2") == (2, "pinned")


def test_no_key_is_kept_or_told(
    service: Service, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """No log line, reply or record holds a key, or the values of a row that was refused."""
    caplog.set_level(logging.DEBUG)
    texts = []
    for key in (*KEYS.values(), "bnp_wrong-key-wrong-key"):
        for rows in ([{"rain": "canary-value"}], [{"gate": "canary-value"}]):
            found = send(
                service, "POST", "/v1/models/flights/posterior", headers={"x-api-key": key}, json={"rows": rows}
            )
            texts += [str(found.headers)] + ([found.text] if found.status_code != 200 else [])
    logged = caplog.text + "".join(capsys.readouterr())
    everything = "".join(texts) + logged + repr(service.access) + repr(service.log)
    for key in (*KEYS.values(), "bnp_wrong-key-wrong-key"):
        assert key not in everything
    assert "canary-value" not in logged


def test_keys_are_random_and_hashed(tmp_path: Path) -> None:
    """256 bits, never the same; the hash is what the file keeps, and the file takes nothing else."""
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert min(map(len, keys)) >= 47
    with pytest.raises(ValueError, match="key_sha256"):
        ClientSpec(name="a", key_sha256=keys.pop())
    assert json.loads(ClientSpec(name="a", key_sha256=hash_key("k")).model_dump_json())["key_sha256"] == hash_key("k")
