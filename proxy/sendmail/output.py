"""Straight to a descriptor, which may be closed: what is said to the caller, octets whole."""

import os


def write(descriptor: int, text: str) -> None:
    """Write `text`; that nobody reads it is no reason to fail."""
    try:
        os.write(descriptor, text.encode("utf-8", "replace"))
    except OSError:
        return


def say(text: str) -> None:
    """Write `text` as one line to standard error, what cannot be shown as "?"."""
    line = "".join(letter if letter.isprintable() else "?" for letter in text)
    write(2, f"sendmail: {line}\n")


def write_all(descriptor: int, octets: bytes) -> None:
    """Write `octets`, all of them.

    Raises:
        OSError: that cannot be.
    """
    view = memoryview(octets)
    while view:
        view = view[os.write(descriptor, view) :]
