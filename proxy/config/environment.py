"""Keys from the environment: FRANKER_SECTION__KEY, over what the file says.

Lists are JSON or texts with commas between; tables, and all of streams and rules, are JSON. An
empty variable counts as not set.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_origin

from proxy.config.faults import Fault, Place
from proxy.config.model import Settings
from proxy.config.section import Section, section_in

PREFIX = "FRANKER_"
CONFIG = "FRANKER_CONFIG"
_WHOLE = ("streams", "rules")


@dataclass(frozen=True, slots=True)
class Overlay:
    """What the environment sets: values by place, the variables they came from, and faults."""

    values: Mapping[Place, Any]
    names: Mapping[Place, str]
    faults: tuple[Fault, ...]
    near_misses: Mapping[str, str]
    """Variables with one underscore where two are meant, and what they should be."""


def read(environ: Mapping[str, str]) -> Overlay:
    """Return what `environ` says about the configuration."""
    places = _places()
    values: dict[Place, Any] = {}
    names: dict[Place, str] = {}
    faults: list[Fault] = []
    near_misses: dict[str, str] = {}
    singles = {name.replace("__", "_"): name for name in places if "__" in name}
    for name in sorted(environ):
        text = environ[name]
        if not name.startswith(PREFIX) or name == CONFIG or not text:
            continue
        if name in places:
            place, annotation = places[name]
            try:
                values[place] = _value(text, place, annotation)
                names[place] = name
            except ValueError as error:
                faults.append(Fault(place, name, "", str(error)))
        elif "__" in name:
            faults.append(Fault((), name, "", _unknown(name, places)))
        elif name in singles:
            near_misses[name] = singles[name]
    return Overlay(values, names, tuple(faults), near_misses)


def _places() -> dict[str, tuple[Place, object]]:
    """Return for every variable's name the place that it sets and what that place holds."""
    places: dict[str, tuple[Place, object]] = {}
    for section, whole in Settings.model_fields.items():
        table = section_in(whole.annotation)
        if table is None or section in _WHOLE:
            places[PREFIX + section.upper()] = ((section,), whole.annotation)
            continue
        for name, one in table.model_fields.items():
            key = one.alias or name
            places[f"{PREFIX}{section}__{key}".upper()] = ((section, key), one.annotation)
    return places


def _value(text: str, place: Place, annotation: object) -> Any:
    """Return `text` as what the file would have held.

    Raises:
        ValueError: JSON is needed and this is none.
    """
    listed = get_origin(annotation) is tuple
    table = place[0] in _WHOLE or get_origin(annotation) is dict or _is_table(annotation)
    if table or (listed and text.lstrip().startswith("[")):
        try:
            return json.loads(text)
        except ValueError:  # "[::1]:25" looks like JSON and is a list of one
            if table:
                raise ValueError("JSON, such as " + _example(place)) from None
    if listed:
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _is_table(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)


def _example(place: Place) -> str:
    if place == ("streams",):
        return '{"outbound": {"token": {"env": "POSTMARK_SERVER_TOKEN"}}}'
    if place == ("rules",):
        return '[{"name": "payroll", "sender": ["payroll@*"], "tag": "payroll"}]'
    if place[-1] == "password":
        return '{"env": "NAME"}'
    return '{"root": "admin@example.com"}'


def _unknown(name: str, places: Mapping[str, tuple[Place, object]]) -> str:
    whole = next((w for w in _WHOLE if name.startswith(f"{PREFIX}{w}__".upper())), None)
    if whole:
        return f"no such key; all of {whole} is given as JSON in {PREFIX}{whole.upper()}"
    from difflib import get_close_matches  # only a faulty configuration pays for it

    near = get_close_matches(name.upper(), places, 1)
    return f"no such key; did you mean {near[0]}?" if near else "no such key"
