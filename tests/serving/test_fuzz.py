"""Bodies that nobody should send: each is refused with a problem document, none fails, none is answered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving_bench import Kept, make_service, over_http, send

from bnpipe.serving.questions import KINDS
from bnpipe.serving.service import Service

QUESTIONS = [f"/v1/models/flights/{kind}" for kind in KINDS]
FRAMES = ["/invocations", "/v1/models/flights/invocations"]
PATHS = [*QUESTIONS, *FRAMES, "/v1/feedback"]
DEEP = 100_000

BAD: dict[str, bytes] = {
    "empty": b"",
    "blank": b" \n",
    "null": b"null",
    "number": b"7",
    "text": b'"rows"',
    "list": b"[[]]",
    "truncated": b'{"rows": [{"rain": "ye',
    "two values": b'{"rows": [{}]} {"rows": [{}]}',
    "trailing comma": b'{"rows": [{},]}',
    "comment": b'{"rows": [{}]} // all',
    "single quotes": b"{'rows': [{}]}",
    "invalid UTF-8": b'{"rows": [{"rain": "\xff\xfe"}]}',
    "overlong UTF-8": b'{"rows": [{"rain": "\xc0\xaf"}]}',
    "surrogates in UTF-8": b'{"rows": [{"rain": "\xed\xa0\x80"}]}',
    "UTF-16": '{"rows": [{}]}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"rows": [{}]}',
    "half a surrogate pair": rb'{"rows": [{"rain": "\ud800"}]}',
    "half a surrogate pair in a name": rb'{"rows": [{"\ud800": "yes"}]}',
    "NUL": b'{"rows": [{"rain": "y\x00s"}]}',
    "deep lists": b'{"rows": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    "deep objects": b'{"rows": [' + b'{"rain": ' * DEEP + b"1" + b"}" * DEEP + b"]}",
    "deep beside": b'{"rows": [{}], "x": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    "deep and open": b"[" * DEEP,
    "rows no list": b'{"rows": {"rain": "yes"}}',
    "rows null": b'{"rows": null}',
    "row no object": b'{"rows": ["yes"]}',
    "row null": b'{"rows": [null]}',
    "cell a list": b'{"rows": [{"rain": ["yes"]}]}',
    "cell an object": b'{"rows": [{"rain": {"yes": 1}}]}',
    "huge number": b'{"rows": [{"wind": 1e400}]}',
    "huge negative number": b'{"rows": [{"wind": -1e400}]}',
    "huge integer": b'{"rows": [{"wind": ' + b"9" * 100_000 + b"}]}",
    "Infinity": b'{"rows": [{"wind": Infinity}]}',
    "hexadecimal": b'{"rows": [{"wind": 0x10}]}',
    "leading zero": b'{"rows": [{"wind": 01}]}',
    "cell twice": b'{"rows": [{"rain": "yes", "rain": "no"}]}',
    "cell twice, escaped": rb'{"rows": [{"rain": "yes", "\u0072ain": "no"}]}',
    "rows twice": b'{"rows": [{}], "rows": [{}]}',
    "unknown field": b'{"rows": [{}], "evidence": [{}]}',
    "target no text": b'{"rows": [{}], "targets": [3]}',
    "targets text": b'{"rows": [{}], "targets": "late"}',
    "unknown target": b'{"rows": [{}], "targets": ["gate"]}',
    "interval 0": b'{"rows": [{}], "interval": 0}',
    "interval 1": b'{"rows": [{}], "interval": 1.0}',
    "interval text": b'{"rows": [{}], "interval": "0.9"}',
    "interval true": b'{"rows": [{}], "interval": true}',
    "abstains below 2": b'{"rows": [{}], "abstain_below": 2}',
    "key a number": b'{"rows": [{}], "key": 3}',
    "no rows": b'{"rows": []}',
    "too many rows": b'{"rows": [' + b"{}," * 20_000 + b"{}]}",
    "NaN": b'{"rows": [{"wind": NaN}]}',
    "unknown variable": b'{"rows": [{"gate": "B"}]}',
}
BAD_FRAMES: dict[str, bytes] = {
    "no form": b"{}",
    "only params": b'{"params": {}}',
    "two forms": b'{"inputs": {"rain": ["yes"]}, "instances": [{"rain": "yes"}]}',
    "split without data": b'{"dataframe_split": {"columns": ["rain"]}}',
    "split too wide": b'{"dataframe_split": {"columns": ["rain"], "data": [["yes", 1]]}}',
    "split twice": b'{"dataframe_split": {"columns": ["rain", "rain"], "data": [["yes", "no"]]}}',
    "split with more": b'{"dataframe_split": {"columns": ["rain"], "data": [["yes"]], "dtypes": []}}',
    "record twice": b'{"dataframe_records": [{"rain": "yes", "rain": "no"}]}',
    "cell a list": b'{"dataframe_records": [{"rain": ["yes"]}]}',
    "columns of two lengths": b'{"inputs": {"rain": ["yes"], "wind": [1, 2]}}',
    "inputs a tensor": b'{"inputs": [[1, 2]]}',
    "instances a list": b'{"instances": [1, 2]}',
    "surrogate beside NaN": rb'{"dataframe_records": [{"rain": "\ud800", "wind": NaN}]}',
    "deep beside NaN": b'{"dataframe_records": [{"rain": NaN}], "params": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    "too many rows": b'{"dataframe_records": [' + b"{}," * 20_000 + b"{}]}",
}
BAD_CSV: dict[str, bytes] = {
    "empty": b"",
    "a column twice": b"rain,rain\nyes,no\n",
    "too wide": b"rain\nyes,1\n",
    "invalid UTF-8": b"rain\n\xff\n",
    "NUL": b'rain\n"y\x00',
    "open quotes": b'rain\n"yes\n',
    "a cell of megabytes": b"rain\n" + b"x" * 1_000_000,
    "too many rows": b"rain\n" + b"yes\n" * 20_000,
}


@pytest.fixture(scope="module")
def log() -> Kept:
    """What the service logged."""
    return Kept()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, log: Kept) -> Service:
    """A service of one small network."""
    return make_service(tmp_path_factory.mktemp("cache"), log=log, limits={"deadline": 30.0})


def check_refused(found: httpx.Response, *, statuses: tuple[int, ...] = (413, 422)) -> None:
    """A problem document of one of the statuses, short."""
    assert found.status_code in statuses, f"{found.status_code}: {found.text[:300]}"
    assert found.headers["content-type"] == "application/problem+json"
    problem = found.json()
    assert problem["status"] == found.status_code
    assert problem["detail"]
    assert len(found.content) < 2000


def pairs() -> Iterator[tuple[str, str, bytes]]:
    """Every path with every body that is bad for it."""
    for path in PATHS:
        yield from ((path, name, body) for name, body in BAD.items())
    for path in FRAMES:
        yield from ((path, name, body) for name, body in BAD_FRAMES.items())


@pytest.mark.parametrize("path", PATHS)
def test_bad_bodies_are_refused(service: Service, log: Kept, path: str) -> None:
    """Broken, deep, huge and mistyped JSON gets 4xx, and nothing of it is logged as an answer."""
    before = len(log.records)
    for its, name, body in pairs():
        if its == path:
            headers = {"content-type": "application/json"}
            try:
                check_refused(send(service, "POST", path, content=body, headers=headers))
            except AssertionError as error:
                raise AssertionError(f"{name}: {error}") from error
    assert len(log.records) == before


@pytest.mark.parametrize("path", FRAMES)
@pytest.mark.parametrize("body", BAD_CSV.values(), ids=BAD_CSV)
def test_bad_csv_is_refused(service: Service, path: str, body: bytes) -> None:
    """Broken CSV gets 4xx."""
    check_refused(send(service, "POST", path, content=body, headers={"content-type": "text/csv; charset=utf-8"}))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "content_type",
    [None, "", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/xml", "json"],
)
def test_other_types_of_bodies_are_not_read(service: Service, path: str, content_type: str | None) -> None:
    """What a browser may send to a local address without asking gets 415."""
    headers = {} if content_type is None else {"content-type": content_type}
    found = send(service, "POST", path, content=b'{"rows": [{}]}', headers=headers)
    check_refused(found, statuses=(415,))


@pytest.mark.parametrize("path", PATHS)
def test_bodies_beyond_the_limit_are_not_read(service: Service, path: str) -> None:
    """More bytes than allowed get 413, announced or not, without being held."""
    much, read = service.spec.limits.body + 1, 0

    async def endless() -> Any:
        nonlocal read
        for _ in range(10_000):
            read += 1
            yield b" " * 100_000

    async def use(client: httpx.AsyncClient) -> None:
        headers = {"content-type": "application/json"}
        check_refused(await client.post(path, content=b" " * much, headers=headers), statuses=(413,))
        check_refused(await client.post(path, content=endless(), headers=headers), statuses=(413,))
        claimed = {**headers, "content-length": "9" * 5000}
        check_refused(await client.post(path, content=b"{}", headers=claimed), statuses=(413,))

    over_http(service, use)
    assert read < 200


@pytest.mark.parametrize("version", ["0", "-1", "1.0", "x", "", "٣", "9" * 30, "1 ", "%00", "99"])
def test_versions_that_are_none(service: Service, version: str) -> None:
    """`?version=` of anything but a version in memory is refused."""
    for path in (*QUESTIONS, *FRAMES):
        found = send(
            service, "POST", f"{path}?version={version}", json={"rows": [{}], "dataframe_records": [{}], "inputs": {}}
        )
        check_refused(found, statuses=(404, 422))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
likely = st.fixed_dictionaries(
    {},
    optional={
        "rows": st.lists(st.dictionaries(st.sampled_from(["rain", "wind", "late", "x"]), json_values, max_size=3))
        | json_values,
        "targets": st.lists(st.sampled_from(["late", "note", "x"])) | json_values,
        "interval": st.floats() | json_values,
        "abstain_below": st.floats() | json_values,
        "key": st.text() | json_values,
        "dataframe_records": json_values,
        "dataframe_split": st.fixed_dictionaries(
            {"columns": st.lists(st.sampled_from(["rain", "wind"])), "data": st.lists(st.lists(json_values))}
        ),
        "inputs": st.dictionaries(st.sampled_from(["rain", "wind"]), json_values),
        "labels": json_values,
        "model": st.sampled_from(["flights", "x"]) | json_values,
        "request_id": json_values,
    },
)


@given(st.sampled_from(PATHS), st.one_of(likely.map(json.dumps).map(str.encode), st.binary(max_size=60)), st.data())
@settings(max_examples=400, suppress_health_check=list(HealthCheck))
def test_anything_is_answered_or_refused(service: Service, path: str, body: bytes, data: st.DataObject) -> None:
    """Random JSON, near to what is read, cut anywhere, and random bytes get 2xx or 4xx; never an error of ours."""
    cut = data.draw(st.integers(0, len(body)) | st.just(len(body)))
    found = send(service, "POST", path, content=body[:cut], headers={"content-type": "application/json"})
    assert found.status_code in (200, 202, 404, 413, 422), (body, found.text)
    json.loads(found.content, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1/models/flights/", 404),
        ("POST", "/v1/models//posterior", 404),
        ("POST", "/v1/models/x/posterior", 404),
        ("POST", "/v1/models/%00/posterior", 404),
        ("POST", "/v1/models/../../etc/passwd", 404),
        ("GET", "/v1/models/flights/posterior", 405),
        ("DELETE", "/v1/models/flights", 405),
        ("POST", "/health", 405),
        ("BREW", "/v1/models", 405),
    ],
)
def test_other_paths_and_methods(service: Service, method: str, path: str, status: int) -> None:
    """404 and 405 are problem documents, too; 405 says what is allowed."""
    found = send(service, method, path, json={"rows": [{}]})
    check_refused(found, statuses=(status,))
    assert ("allow" in found.headers) is (status == 405)


@pytest.mark.parametrize("path", ["/health", "/ready", "/ping"])
def test_head_is_get(service: Service, path: str) -> None:
    """Load balancers that ask with HEAD get the status and the headers of GET; the server leaves the body out."""
    got, head = send(service, "GET", path), send(service, "HEAD", path)
    assert (head.status_code, dict(head.headers)) == (got.status_code, dict(got.headers))
    assert head.status_code == 200
