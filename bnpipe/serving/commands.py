"""What ``bnpipe serve`` does."""

from __future__ import annotations

import errno
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final

from pydantic import ValidationError

from bnpipe.answers.journal import JOURNAL, try_folder
from bnpipe.config import Settings
from bnpipe.config.serving import (
    ClientSpec,
    ServingSpec,
    answers_folder,
    cache_folder,
    load_serving,
    with_metrics_key,
)
from bnpipe.errors import JournalError, SettingsError
from bnpipe.serving.access import hash_key, new_key
from bnpipe.serving.server import run

DEFAULT: Final = Path("config/serving.yaml")


def serve(
    config: Path | None = None, *, host: str | None = None, port: int | None = None, workers: int | None = None
) -> int:
    """Serve as the file says; arguments go before it.

    Raises
    ------
    SpecError, SettingsError
    """
    given = {"host": host, "port": port, "workers": workers}
    changes = {name: value for name, value in given.items() if value is not None}

    def read() -> ServingSpec:
        spec = load_serving(config or DEFAULT) if config is not None or DEFAULT.exists() else ServingSpec()
        try:
            spec = ServingSpec.model_validate({**spec.model_dump(), **changes})
        except ValidationError as error:
            wrong = error.errors(include_url=False)[0]
            raise SettingsError(f"--{wrong['loc'][0]}: got {wrong['input']!r}; {wrong['msg']}") from None
        if key := Settings.from_environ().metrics_key:
            spec = with_metrics_key(spec, hash_key(key))
        if not spec.open_to_all and not spec.clients:
            raise SettingsError(
                f"on {spec.host} nobody could ask: write `clients:` with keys into the serving file "
                "(bnpipe serve --new-key NAME), or `anonymous: true` if whoever reaches it may ask"
            )
        check_folders(spec, Settings.from_environ())
        return spec

    return run(read(), read)


def check_folders(spec: ServingSpec, settings: Settings) -> None:
    """Make the folders that are written to, and try them: a worker could only refuse every question.

    Raises
    ------
    SettingsError
    """
    cache, answers = cache_folder(spec, settings), answers_folder(spec, settings)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=cache):
            pass
    except OSError as error:
        key = "cache" if spec.cache is not None else "cache, BNPIPE_STORE"
        raise SettingsError(f"{key}: {cache}: versions can't be kept here: {error.strerror}") from error
    try:
        try_folder(answers / JOURNAL)
    except JournalError as error:
        full = isinstance(error.__cause__, OSError) and error.__cause__.errno in (errno.ENOSPC, errno.EDQUOT)
        if full and not spec.answers.required:  # it will pass, and until then answers go unlogged, as is wanted
            return
        key = "answers.folder" if spec.answers.folder is not None else "answers.folder, BNPIPE_ANSWERS"
        raise SettingsError(f"{key}: {error}") from error


def make_key(client: str) -> int:
    """Print a new key, once, and what the serving file keeps of it.

    Raises
    ------
    SettingsError
        The file would not take the name.
    """
    key = new_key()
    try:
        ClientSpec(name=client, key_sha256=hash_key(key))
    except ValidationError:
        raise SettingsError(
            f"--new-key: got {client!r}; a name has small letters, digits, _ and -, at most 100"
        ) from None
    line = f"  - {{name: {client}, key_sha256: {hash_key(key)}, scopes: [ask]}}"
    print(f"the key of {client}, shown only now:\n\n  {key}\n")  # noqa: T201
    print("for config/serving.yaml, in place of its empty list of clients; or the last line, below others:\n")  # noqa: T201
    print(f"clients:\n{line}")  # noqa: T201
    return 0
