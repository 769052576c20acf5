"""Write the `.env` of docker-compose.yaml: `.env.example` with every secret filled in.

Also runs alone, before anything else is installed: ``python -m bnpipe.demo.secrets .env``.
"""

from __future__ import annotations

import base64
import os
import re
import secrets
import sys
from pathlib import Path

from bnpipe.errors import BnpipeError, SettingsError


def write_env(destination: Path, *, example: Path | None = None) -> tuple[str, ...]:
    """Copy `example` to `destination` with a new value for each variable that has none, for its owner's eyes only.

    Parameters
    ----------
    destination : Path
        The file to make; never overwritten, since databases are encrypted and guarded by what is in it.
    example : Path, optional
        The template; `.env.example` beside `destination` when None.

    Returns
    -------
    tuple of str
        The names of the variables that were given a secret.

    Raises
    ------
    SettingsError
        The template is missing, or `destination` exists or can't be written.
    """
    template = example or destination.with_name(".env.example")
    try:
        text = template.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{template}: {error.strerror}; run this in a clone of bnpipe's repository") from error
    filled = re.sub(r"(?m)^([A-Z][A-Z0-9_]*)=$", lambda found: f"{found[1]}={new_secret(found[1])}", text)
    try:
        descriptor = os.open(destination, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise SettingsError(f"{destination} exists and may guard databases; move it away to make new secrets") from None
    except OSError as error:
        raise SettingsError(f"{destination}: {error.strerror}") from error
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(filled)
    return tuple(re.findall(r"(?m)^([A-Z][A-Z0-9_]*)=$", text))


def new_secret(name: str) -> str:
    """Make up a value for variable `name`: a Fernet key, a password to type, or a long key.

    Of letters, digits, ``-`` and ``_`` only (a Fernet key ends in ``=``), so it needs no quoting in a URL or a shell.
    """
    if name.endswith("FERNET_KEY"):
        return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    return secrets.token_urlsafe(24 if name.endswith("PASSWORD") else 64)


def main(arguments: list[str]) -> int:
    """Write the file named by the only argument, `.env` without one."""
    destination = Path(arguments[0] if arguments else ".env")
    try:
        names = write_env(destination)
    except BnpipeError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"{destination}: made {', '.join(names)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
