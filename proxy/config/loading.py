"""Finding and reading the configuration: one file, the environment over it, all faults at once."""

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from proxy.config import environment
from proxy.config.checks import cross_faults, notices, secret_variables
from proxy.config.faults import ConfigError, Fault, Place, Written, faults_of
from proxy.config.model import Settings

SEARCHED = (Path("franker.toml"), Path("/etc/franker/franker.toml"))
"""Where a configuration is looked for when nobody says where it is; the first one is read."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A valid configuration.

    `source` says in words where it came from. `path` is the file, None when there is none.
    `notices` are for the log at start and for `franker check`.
    """

    settings: Settings
    source: str
    notices: tuple[str, ...]
    path: Path | None = None


def load(
    path: Path | None, environ: Mapping[str, str], *, searched: Sequence[Path] = SEARCHED
) -> Loaded:
    """Return the configuration from `path`, else $FRANKER_CONFIG, else the first of `searched`.

    Where none of these is there the defaults hold. Variables FRANKER_SECTION__KEY of `environ`
    go over the file's keys.

    Raises:
        ConfigError: it cannot be used; its text holds every fault there is.
    """
    file, raw = _read(path, environ, searched)
    overlay = environment.read(environ)
    for place, value in overlay.values.items():
        _put(raw, place, value)
    written = Written(raw, overlay.names)
    source = " and ".join(
        filter(None, [str(file) if file else "", ", ".join(overlay.names.values())])
    )
    source = source or "defaults"

    settings, faults = _validated(written)
    faults = [*overlay.faults, *faults]
    faults += cross_faults(settings, written, faults, _own_names())
    if faults:
        raise ConfigError(source, [str(fault) for fault in faults])
    said = notices(settings)
    secrets = secret_variables(settings)
    said += [
        f"{name} is set and has no effect; did you mean {meant}?"
        for name, meant in overlay.near_misses.items()
        if name not in secrets
    ]
    return Loaded(settings, source, tuple(said), file)


def load_again(before: Loaded, path: Path | None, environ: Mapping[str, str]) -> Loaded:
    """Return the configuration as it is now, from where `before` came; `path` as `load` had it.

    Raises:
        ConfigError: it cannot be used, or its file is not there any more.
    """
    if before.path is None:
        return load(path, environ)
    if not before.path.exists():  # the defaults, or another file, are not what was meant
        raise ConfigError(str(before.path), ["is not there any more"])
    return load(before.path, environ)


def _read(
    path: Path | None, environ: Mapping[str, str], searched: Sequence[Path]
) -> tuple[Path | None, dict[str, Any]]:
    """Return the file that holds and what it says.

    Raises:
        ConfigError: a file that was named is not there, or one cannot be read.
    """
    named = path or (Path(environ[environment.CONFIG]) if environ.get(environment.CONFIG) else None)
    for candidate in [named] if named is not None else searched:
        try:
            octets = candidate.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            if named is None:
                continue
            said = "--config" if path else f"${environment.CONFIG}"
            raise ConfigError(str(candidate), [f"no such file; {said} names it"]) from None
        except OSError as error:
            raise ConfigError(
                str(candidate), [f"cannot be read: {(error.strerror or str(error)).lower()}"]
            ) from None
        return candidate, _parsed(candidate, octets)
    return None, {}


def _parsed(path: Path, octets: bytes) -> dict[str, Any]:
    """Return the file's tables; its text is never shown, since it may hold a secret by mistake."""
    try:
        return tomllib.loads(octets.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = octets[: error.start].count(b"\n") + 1
        raise ConfigError(str(path), [f"line {line}: not UTF-8; save the file as UTF-8"]) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(str(path), [f"not TOML: {error}"]) from None


def _own_names() -> tuple[str, ...]:
    name = os.uname().nodename
    return (name, name.partition(".")[0])


def _put(raw: dict[str, Any], place: Place, value: Any) -> None:
    table: dict[Any, Any] = raw
    for part in place[:-1]:
        inner = table.get(part)
        if not isinstance(inner, dict):
            inner = table[part] = {}
        table = inner
    table[place[-1]] = value


def _validated(written: Written) -> tuple[Settings, list[Fault]]:
    """Return settings and the faults of single values.

    What was at fault is left out of the settings, its default in its place, so that the checks
    between values can be made all the same: first the value, then what holds it, then its section.
    """
    faults: list[Fault] = []
    kept: Any = written.raw
    for depth in (None, 2, 1):
        try:
            return Settings.model_validate(kept), faults
        except ValidationError as error:
            found = faults_of(error, Settings, written)
            # Later rounds only find what leaving out has broken: nobody wrote that.
            faults = faults or found
            for fault in found:
                kept = _without(kept, _value_at(fault.place)[:depth])
    return Settings.model_validate(kept), faults


def _value_at(place: Place) -> Place:
    """Return the place of the whole value that holds `place`: a list is not taken to pieces."""
    if place[-1] == "[key]":
        return place[:-1]
    for position, part in enumerate(place):
        if isinstance(part, int) and place[:position] != ("rules",):
            return place[:position]
    return place


def _without(tree: Any, place: Place) -> Any:
    """Return `tree` less what stands at `place`, if anything does.

    A rule becomes an empty one, so that the others keep their positions.
    """
    first, rest = place[0], place[1:]
    if isinstance(tree, list) and isinstance(first, int):
        return [
            (_without(one, rest) if rest else {}) if position == first else one
            for position, one in enumerate(tree)
        ]
    if not isinstance(tree, dict) or first not in tree:
        return tree
    if rest:
        return {**tree, first: _without(tree[first], rest)}
    return {key: value for key, value in tree.items() if key != first}
