"""Secrets are named in the configuration, never written into it."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator


class Secret(BaseModel):
    """Where one secret is found: an environment variable, a file, or a systemd credential."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    env: str = ""
    file: str = ""
    credential: str = ""

    @model_validator(mode="after")
    def _exactly_one(self) -> "Secret":
        if sum(map(bool, (self.env, self.file, self.credential))) != 1:
            raise ValueError(
                'a secret is { env = "NAME" }, { file = "PATH" } or { credential = "NAME" }'
            )
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
            return os.environ.get(self.env, "").strip() or None
        if self.file:
            path = Path(self.file)
        else:
            path = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nonexistent")) / self.credential
        try:
            return path.read_text(encoding="utf-8").strip() or None
        except (OSError, UnicodeDecodeError):
            return None


def _listed(value: object) -> object:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list | tuple) else (value,)


Secrets = Annotated[tuple[Secret, ...], BeforeValidator(_listed)]
"""One secret or a list of them, the first that is accepted being used (rotation)."""
