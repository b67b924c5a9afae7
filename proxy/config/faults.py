"""What is wrong with a configuration, in words for the person who wrote it.

Every fault names its key, what it was and what is allowed. A value that is or may hold a secret
is never shown, not even a mistyped one.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

    from proxy.config.section import Section

Place = tuple[str | int, ...]
"""Where in the configuration a value stands: keys, and positions in lists."""

_SHOWN_CHARACTERS = 60
_HARMLESS_IN_STREAM = {"id", "kind"}
_MAY_HOLD_PASSWORD = {("redis", "url"), ("postmark", "api_url")}
_KEY = "[key]"  # pydantic's mark for a fault of a key itself, not of its value

_ALLOWED = {
    "string_type": "text in quotes",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "tuple_type": "a list in [ ]",
    "list_type": "a list in [ ]",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "path_type": "a path in quotes",
    "string_unicode": "text that is valid UTF-8",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. `where` is the key as a person finds it; `was` is "" when it must not be shown."""

    place: Place
    where: str
    was: str
    allowed: str

    def __str__(self) -> str:
        was = f"was {self.was}; " if self.was else ""
        return _printable(f"{self.where}: {was}{self.allowed}")

    def covers(self, place: Place) -> bool:
        """Tell whether what stands at `place` is at fault with this."""
        return bool(self.place) and place[: len(self.place)] == self.place


class ConfigError(Exception):
    """The configuration cannot be used. `str()` is the full text: every fault, one a line."""

    def __init__(self, source: str, faults: Sequence[str]) -> None:
        self.source = _printable(source)
        self.faults = tuple(faults)
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        super().__init__("\n".join([f"{self.source}: {count}", *(f"  {one}" for one in faults)]))


@dataclass(frozen=True, slots=True)
class Written:
    """The configuration as it was written: its tables, and which values the environment gave."""

    raw: Mapping[str, Any]
    variables: Mapping[Place, str]

    def at(self, place: Place) -> Any:
        """Return what stands at `place`, None when nothing does."""
        value: Any = self.raw
        for part in place:
            try:
                value = value[part]
            except (KeyError, IndexError, TypeError):
                return None
        return value

    def where(self, place: Place) -> str:
        """Return the key a person looks for: "listen.smtp", "rules.payroll.tag", "rules[3].tag".

        Positions in other lists are left out, since what stood there is shown beside. A value
        from the environment has its variable's name first.
        """
        key = ""
        for number, part in enumerate(place):
            if not isinstance(self.at(place[:number]), dict | list):
                break  # a text that stands for a whole table: its keys were not written
            if isinstance(part, str) and part != _KEY:
                key += f".{part}" if key else part
            elif number == 1 and place[0] == "rules" and isinstance(part, int):
                name = self.at((*place[:2], "name"))
                key += f".{name}" if isinstance(name, str) and name else f"[{part + 1}]"
        for length in range(len(place), 0, -1):
            if place[:length] in self.variables:
                deeper = any(isinstance(part, str) for part in place[length:])
                variable = self.variables[place[:length]]
                return f"{variable} {key}" if deeper else variable
        return key


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def shown(place: Place, value: object) -> str:
    """Return `value` as it may be shown in a fault at `place`, or "" when it may not."""
    in_stream = place[:1] == ("streams",)
    if in_stream and not (len(place) == 3 and place[2] in _HARMLESS_IN_STREAM):
        return ""
    if place[:2] == ("redis", "password") or value is None or isinstance(value, dict):
        return ""
    if place in _MAY_HOLD_PASSWORD and re.search("[@?]", str(value)):
        return ""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = str(value)  # a date, say
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."


def faults_of(error: "ValidationError", model: "type[Section]", written: Written) -> list[Fault]:
    """Return pydantic's findings in plain words, one for each place."""
    found: dict[Place, Fault] = {}
    for detail in error.errors(include_url=False):
        place = tuple(detail["loc"])
        if place not in found:
            found[place] = Fault(place, written.where(place), *_words(detail, place, model))
    return list(found.values())


def _words(detail: "ErrorDetails", place: Place, model: "type[Section]") -> tuple[str, str]:
    kind = detail["type"]
    if kind == "extra_forbidden":
        return "", _no_such_key(place, model)
    if kind == "missing":
        return "", "is missing"
    was = shown(place, detail["input"])
    if kind == "value_error":
        return was, str(detail["ctx"]["error"])
    if kind == "literal_error":
        return was, "one of " + detail["ctx"]["expected"].replace("'", '"')
    return was, _ALLOWED.get(kind, "not a value that this key takes")


def _no_such_key(place: Place, model: "type[Section]") -> str:
    from difflib import get_close_matches  # only a faulty configuration pays for it

    known = keys_at(place[:-1], model)
    key = str(place[-1])
    near = get_close_matches(key.lower().replace("-", "_"), known, 1)
    hint = f'did you mean "{near[0]}"?' if near else "known are " + ", ".join(known)
    return f"no such key; {hint}"


def keys_at(place: Place, model: "type[Section]") -> list[str]:
    """Return the keys that the table at `place` may have, as written in a file."""
    from proxy.config.section import Section, section_in

    table: type[Section] | None = model
    for part in place:
        if table is not None and isinstance(part, str):
            field = next((f for n, f in table.model_fields.items() if (f.alias or n) == part), None)
            # A stream's name is not a field: the table stays the one for every stream.
            table = section_in(field.annotation) if field is not None else table
    if table is None:
        return []
    return [field.alias or name for name, field in table.model_fields.items()]
