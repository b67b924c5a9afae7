"""The id of a message: 26 characters of [0-9a-z], unique over hosts, sorting by time.

A ULID in lower case: 48 bits of milliseconds since 1970, then 80 bits of chance.
"""

import functools
import os

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_VALUES = {letter: value for value, letter in enumerate(_ALPHABET)}
_LETTERS = _ALPHABET.encode("ascii") * 8  # for each octet the letter of its last five bits
LENGTH = 26


def new_id(now_ms: int, chance: bytes | None = None) -> str:
    """Return the id for a message accepted at `now_ms`; `chance` is 16 random octets."""
    if chance is None:
        chance = os.urandom(16)
    return _time_letters(now_ms) + chance.translate(_LETTERS).decode("ascii")


@functools.lru_cache(maxsize=4)
def _time_letters(milliseconds: int) -> str:
    return "".join(_ALPHABET[milliseconds >> shift & 31] for shift in range(45, -1, -5))


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
