"""Which folder holds Franker's own files: the one configured, else one of the user's own."""

import os
from collections.abc import Mapping
from pathlib import Path

from proxy.config.faults import ConfigError
from proxy.config.model import Settings

_PRIVATE = 0o700  # mail lies in it


def usable_data_dir(
    settings: Settings, environ: Mapping[str, str], *, make: bool = True
) -> tuple[Path, str | None]:
    """Return the folder to use, made if it was not there, and what must be said about it.

    Without `make` nothing is made: the folder is the one that would be.

    Without the right to `data_dir` it is $XDG_STATE_HOME/franker (~/.local/state/franker). Being
    allowed to write to the private Redis's socket in `data_dir` is right enough.

    Raises:
        ConfigError: neither can be used.
    """
    wanted = settings.data_dir.absolute()
    usable = _made if make else _could_be_made
    trouble = usable(wanted)
    if not trouble:
        return wanted, None
    own = _state_home(environ) / "franker"
    also = usable(own)
    if also:
        raise ConfigError(
            "data_dir", [f"{wanted}: {trouble}", f"{own}, tried in its place: {also}"]
        )
    return own, f"data_dir {wanted}: {trouble}; mail is kept in {own}"


def _state_home(environ: Mapping[str, str]) -> Path:
    given = Path(environ.get("XDG_STATE_HOME", ""))
    if given.is_absolute():
        return given
    home = environ.get("HOME")
    return (Path(home) if home else Path.home()) / ".local" / "state"


def _made(folder: Path) -> str:
    """Make `folder` if need be; return "" or why it cannot be used."""
    try:
        folder.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
    except OSError as error:
        return (error.strerror or str(error)).lower()
    if os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return ""
    if os.access(folder / "redis.sock", os.R_OK | os.W_OK):
        return ""
    return "no right to write in it"


def _could_be_made(folder: Path) -> str:
    """Return "" when `folder` can be used, or made, by this user; else why not."""
    if folder.exists():
        return _made(folder)
    there = next(place for place in folder.parents if place.exists())
    return "" if os.access(there, os.W_OK | os.X_OK) else "no right to make it"
