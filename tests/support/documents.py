"""What the pages of docs/ show to be typed or written, found by the mark above each block."""

import re
from dataclasses import dataclass
from pathlib import Path

CONFIG, BOOT, RUN, MSMTP, REDIS = "config", "boot", "run", "msmtp", "redis.conf"
COMPOSE, PROMETHEUS = "compose", "prometheus"
HOW_IT_IS_RUN = {
    CONFIG: "tests/test_docs.py loads it",
    BOOT: "tests/boot/test_documents.py runs it on a Debian that has booted",
    RUN: "tests/test_recipes.py runs it against `franker run`",
    MSMTP: "tests/test_recipes.py gives it to msmtp",
    REDIS: "tests/test_recipes.py starts a Redis with it",
    COMPOSE: "docker-compose reads it",
    PROMETHEUS: "tests/test_monitoring.py gives it to promtool",
}

_FENCE = re.compile(r"(?ms)^(?:<!-- ([\w.]+)(?:: ([^>]+?))? -->\n)?```(\w*)\n(.*?)^```$")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: `kind` and `name` as its mark says, "" where there is none."""

    kind: str
    name: str
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    found = _FENCE.findall(page.read_text(encoding="utf-8"))
    return [Block(*one) for one in found]


def the_block(page: Path, kind: str, name: str, language: str = "") -> str:
    """Return the text of the one block of a page that is marked so."""
    found = [
        one.text
        for one in blocks(page)
        if (one.kind, one.name) == (kind, name) and language in ("", one.language)
    ]
    assert len(found) == 1, f"{page.name}: {len(found)} blocks {kind}: {name} {language}"
    return found[0]
