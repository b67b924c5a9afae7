"""The id of a message: 26 characters of [0-9a-z], unique over hosts, sorting by time.

A ULID in lower case: 48 bits of milliseconds since 1970, then 80 bits of chance.
"""

import os

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_VALUES = {letter: value for value, letter in enumerate(_ALPHABET)}
_PAIRS = tuple(high + low for high in _ALPHABET for low in _ALPHABET)
LENGTH = 26


def new_id(now_ms: int, chance: int | None = None) -> str:
    """Return the id for a message accepted at `now_ms`; `chance` is 80 random bits."""
    if chance is None:
        chance = int.from_bytes(os.urandom(10), "big")
    number = (now_ms & (1 << 48) - 1) << 80 | chance
    return "".join(_PAIRS[number >> shift & 1023] for shift in range(120, -1, -10))


def accepted_ms(message_id: str) -> int:
    """Return the milliseconds since 1970 at which `message_id` was accepted.

    A dead recipient's "<id>-<n>" is taken as its message.

    Raises:
        ValueError: not one of our ids.
    """
    text = message_id[:LENGTH]
    if len(text) < LENGTH or not set(text) <= _VALUES.keys():
        raise ValueError(f"not a message id: {message_id!r}")
    number = 0
    for letter in text[:10]:
        number = number << 5 | _VALUES[letter]
    return number
