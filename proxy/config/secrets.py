"""Secrets are named in the configuration, never written into it."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, model_validator

from proxy.config.section import Section

_GIVEN = Path("/run/credentials")
"""Where systemd keeps what it gave to each unit, a folder each; only root can look."""

_FORM = (
    'a secret is never written here but named: { env = "NAME" }, { file = "PATH" } or '
    '{ credential = "NAME" }'
)


class Secret(Section):
    """Where one secret is found: an environment variable, a file, or a systemd credential.

    Of a variable NAME that is not set, NAME_FILE may say which file it is in, as containers do.
    """

    env: str = ""
    file: str = ""
    credential: str = ""

    @model_validator(mode="after")
    def _exactly_one(self) -> "Secret":
        if sum(map(bool, (self.env, self.file, self.credential))) != 1:
            raise ValueError(f"exactly one place; {_FORM}")
        # systemd hands credentials over as files of one folder: nothing may lead out of it.
        if "/" in self.credential or self.credential in (".", ".."):
            raise ValueError("a credential is the name that LoadCredential= gave it, not a path")
        return self

    @property
    def name(self) -> str:
        """What a person may see instead of the secret, as in "env POSTMARK_SERVER_TOKEN"."""
        if self.env:
            return f"env {self.env}"
        return f"file {self.file}" if self.file else f"credential {self.credential}"

    def read(self) -> str | None:
        """Return the secret as it is now, without surrounding white space; None when missing.

        Files are read at each call, so that a rotated secret is seen.
        """
        if self.env:
            if secret := os.environ.get(self.env, "").strip():
                return secret
            path = Path(os.environ.get(f"{self.env}_FILE", ""))
        else:
            path = Path(self.file) if self.file else _given(self.credential)
        try:
            return path.read_text(encoding="utf-8").strip() or None
        except (OSError, ValueError):
            return None


def _given(credential: str) -> Path:
    """Return where systemd has put `credential`: for this process, else for our services.

    The latter is for a command that root runs beside them. Where no service runs it is the file
    that the units would be given (`LoadCredential=secret:/etc/franker/secrets`).
    """
    if own := os.environ.get("CREDENTIALS_DIRECTORY"):
        return Path(own) / credential
    units = sorted(_GIVEN.glob("franker-*.service"))
    found = (unit / credential for unit in units if os.access(unit / credential, os.R_OK))
    return next(found, Path("/etc/franker/secrets", credential.removeprefix("secret_")))


def _named(value: object) -> object:
    if isinstance(value, Secret | dict):
        return value
    raise ValueError(_FORM)


def _all_named(value: object) -> object:
    if value is None:
        return ()
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    return tuple(_named(one) for one in values)


OneSecret = Annotated[Secret, BeforeValidator(_named)]
"""Where one secret is found."""

Secrets = Annotated[tuple[Secret, ...], BeforeValidator(_all_named)]
"""One secret or a list of them, the first that is accepted being used (rotation)."""
