"""One reader of foreign octets, and what must hold for whatever it is given."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CORPUS = Path(__file__).parents[1] / "data" / "corpus"


@dataclass(frozen=True, slots=True)
class Target:
    """`check` raises when something does not hold for a case. The cases are any octets.

    `tokens` are octets of which trouble is made; `share` is how many of 1000 cases of a run go
    here: the slow ones get few.
    """

    name: str
    check: Callable[[bytes], None]
    tokens: tuple[bytes, ...]
    share: int

    def corpus(self) -> list[Path]:
        """Return the cases kept in the tree: one file for each past defect, and beginnings."""
        return sorted(path for path in (CORPUS / self.name).glob("*") if path.is_file())


class Choices:
    """The first octets of a case as decisions, the rest as content."""

    __slots__ = ("_at", "_octets")

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._at = 0

    def number(self, below: int) -> int:
        """Return the next octet as a number below `below`; 0 when there is none."""
        self._at += 1
        return self._octets[self._at - 1] % below if self._at <= len(self._octets) else 0

    def piece(self) -> bytes:
        """Return the next octets up to a 0xFF, which is left out."""
        end = self._octets.find(b"\xff", self._at)
        end = len(self._octets) if end < 0 else end
        found = self._octets[self._at : end]
        self._at = end + 1
        return found

    def rest(self) -> bytes:
        """Return what nobody has taken."""
        return self._octets[self._at :]
