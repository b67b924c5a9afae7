"""The systems that are measured side by side, and what a measurement may ask of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, Self

from benchmarks.far import Far
from benchmarks.franker import Franker
from benchmarks.postfix import Postfix
from benchmarks.scenarios import FRANKER, POSTFIX, Setup


class System(Protocol):
    """A running program that takes mail at `ports` and relays it to a sink."""

    name: str
    ports: tuple[int, ...]

    def release(self) -> None:
        """Begin to relay, where it was started without."""

    def kept_octets(self) -> int:
        """Return the octets of memory that the mail takes; 0 where it is in none."""

    def processes(self) -> dict[int, str]:
        """Return pid and name of all its processes."""

    def close(self) -> None:
        """End it."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


Make = Callable[[Path, Far, Setup], System]

SYSTEMS: dict[str, Make] = {FRANKER: Franker, POSTFIX: Postfix}
