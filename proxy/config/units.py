"""Sizes and times as people write them: "10MB", "30s", "48h"."""

import re
from typing import Annotated

from pydantic import BeforeValidator

# MB = 1,000,000 octets: the units of a mail provider's limits, not of a memory chip.
_OCTETS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9}
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_size(value: object) -> object:
    """Return octets for "10MB", "64 kB" or a whole number; anything else unchanged.

    Raises:
        ValueError: text that is no size.
    """
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", value)
    if match is None or match[2].lower() not in _OCTETS:
        raise ValueError('a size is a number of octets or text like "10MB"')
    return int(float(match[1]) * _OCTETS[match[2].lower()])


def parse_duration(value: object) -> object:
    """Return seconds for "30s", "10m", "48h", "30d" or a number of seconds.

    Raises:
        ValueError: text that is no time.
    """
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", value)
    if match is None or match[2] not in _SECONDS:
        raise ValueError('a time is text like "30s", "10m" or "48h"')
    return float(match[1]) * _SECONDS[match[2]]


Size = Annotated[int, BeforeValidator(parse_size)]
"""Octets, as a whole number."""

Duration = Annotated[float, BeforeValidator(parse_duration)]
"""Seconds."""
