"""Messages hold no passwords, however badly these were written into a URL."""

from __future__ import annotations

import pytest

from bnpipe.errors import StoreError, StoreUnavailable, hide_secrets


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("postgresql://u:s3cret@host/db", "postgresql://***@host/db"),
        ("postgresql://u:s3@cret@host/db", "postgresql://***@host/db"),
        ("postgresql://u:s3/cret@host/db", "postgresql://***@host/db"),
        ("postgresql://u:s3@c/ret@host/db", "postgresql://***@host/db"),
        ("can't reach http://s3cret@host: no", "can't reach http://***@host: no"),
        ("http://a:s3cret@x and http://b:s3cret@y", "http://***@x and http://***@y"),
        ("s3://bucket/x?token=s3cret&region=eu is gone", "s3://bucket/x?token=***&region=eu is gone"),
    ],
)
def test_secrets_of_urls_are_blanked(text: str, hidden: str) -> None:
    """With @ or / in them, in a sentence, twice, or in the query."""
    assert hide_secrets(text) == hidden


@pytest.mark.parametrize(
    "text",
    ["http://host/a@b", "http://host:5000/a@b", "http://[::1]:5000/a@b", "sqlite:////tmp/a@b.db", "ask eve@host", ""],
)
def test_what_is_no_secret_stays(text: str) -> None:
    """An @ in a path, behind a port, in a file's name or in an address of mail."""
    assert hide_secrets(text) == text


def test_the_mark_may_be_nothing() -> None:
    """So that the URL still works as a link."""
    assert hide_secrets("https://u:p@ss@mlflow:5000/x", mark="") == "https://mlflow:5000/x"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://u:hunter2@h/db", 'password "hunter2" was refused'),
        ("postgresql://u:p%40ss@h/db", 'password "p@ss" was refused'),
        ("postgresql://u:p@ss@h/db", 'could not translate host name "ss@h" to address'),
        ("postgresql://u:pp/ss@h/db", 'invalid integer value "pp" for connection option "port"'),
        ("postgresql://h/db?password=hunter2", "password hunter2"),
        ("postgresql://h/db?sslmode=x", "postgresql://h/db?sslmode=x is wrong"),
    ],
)
def test_what_a_driver_quotes_of_a_url_is_blanked(url: str, message: str) -> None:
    """Also where it took a piece of the password for the host or the port; other words stay whole."""
    told = hide_secrets(message, of=url)
    assert "***" in told
    assert not {"hunter2", "ss", "p@ss", "pp"} & set(told.replace("@", '"').split('"'))
    assert hide_secrets("passed, supper, happy", of=url) == "passed, supper, happy"


def test_a_store_that_is_away_may_be_back() -> None:
    """It is retryable, and whoever catches StoreError catches it."""
    assert StoreUnavailable.retryable
    assert issubclass(StoreUnavailable, StoreError)
    assert not StoreError.retryable
