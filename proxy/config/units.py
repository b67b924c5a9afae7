"""Sizes and times as people write them: "10MB", "30s", "48h"."""

import math
import re
from typing import Annotated, Literal

from pydantic import PlainValidator

# MB = 1,000,000 octets: the units of a mail provider's limits, not of a memory chip.
_OCTETS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9}
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST_S = 10 * 365 * 86400.0

_A_SIZE = 'a size is a number of octets or text like "10MB"'
_A_TIME = 'a time is text like "30s", "10m" or "48h", above 0 and at most 10 years'


def parse_size(value: object) -> int:
    """Return octets for "10MB", "64 kB" or a whole number.

    Raises:
        ValueError: no size, or below one octet.
    """
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,9})?)\s*([a-zA-Z]*)\s*", value, re.ASCII)
        if match is None or match[2].lower() not in _OCTETS:
            raise ValueError(_A_SIZE)
        octets = int(float(match[1]) * _OCTETS[match[2].lower()])
    elif isinstance(value, int) and not isinstance(value, bool):
        octets = value
    else:
        raise ValueError(_A_SIZE)
    if octets < 1:
        raise ValueError(f"{_A_SIZE}, above 0")
    return octets


def parse_size_or_auto(value: object) -> int | Literal["auto"]:
    """Return "auto" for itself, else `parse_size(value)`.

    Raises:
        ValueError: neither.
    """
    if value == "auto":
        return "auto"
    try:
        return parse_size(value)
    except ValueError as error:
        raise ValueError(f'{error}, or "auto"') from None


def parse_duration(value: object) -> float:
    """Return seconds for "30s", "10m", "48h", "30d" or a number of seconds.

    Raises:
        ValueError: no time, not above 0, or above ten years.
    """
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,9})?)\s*([a-z]+)\s*", value, re.ASCII)
        if match is None or match[2] not in _SECONDS:
            raise ValueError(_A_TIME)
        seconds = float(match[1]) * _SECONDS[match[2]]
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    else:
        raise ValueError(_A_TIME)
    if not math.isfinite(seconds) or not 0 < seconds <= _LONGEST_S:
        raise ValueError(_A_TIME)
    return seconds


Size = Annotated[int, PlainValidator(parse_size)]
"""Octets, at least one."""

SizeOrAuto = Annotated[int | Literal["auto"], PlainValidator(parse_size_or_auto)]
"""Octets, or "auto"."""

Duration = Annotated[float, PlainValidator(parse_duration)]
"""Seconds, above 0."""
