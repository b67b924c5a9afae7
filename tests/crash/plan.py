"""What is done to whom, and when, in one round. Pure: the same seed gives the same plan."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

Kind = Literal["kill", "stop", "term", "network", "cut", "fill", "rewrite"]

LOAD_S = 6.0
"""Seconds in which mail is handed in."""

DEAD_AFTER_S = 8.0
"""A worker that stands still longer is taken for dead by another."""

_REWRITTEN = 0.2
"""How often Redis rewrites its file, and is killed at about that time."""

_LONG_OUTAGE_S = (4.0, 14.0)
"""Of Redis, now and then: clients are kept waiting for 10 s where there is no journal."""

_FEWEST, _MOST = 3, 7

_PAIRED = 0.4
"""How often somebody is killed while Redis stands still: with all that waits for its answer."""


@dataclass(frozen=True, slots=True)
class Blow:
    """One disturbance, `at` seconds after the load began, undone `seconds` later.

    `victim` is the process, or, where `kind` is "network", what happens at the far end; then
    `fault` is the order to the far end, with `port` an index into its ports (None: all of them).
    """

    at: float
    kind: Kind
    victim: str
    seconds: float
    fault: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """Short words for the table."""
        to_process = self.kind in ("kill", "stop", "term")
        what = f"{self.kind} {self.victim}" if to_process else self.victim
        return f"{self.at:.1f}s {what} {self.seconds:.1f}s"


@dataclass(frozen=True, slots=True)
class Plan:
    """One round: who is there, how long mail is handed in, and what happens meanwhile."""

    seed: str
    number: int
    workers: int
    small_disk: bool
    blows: tuple[Blow, ...]
    load_s: float = LOAD_S

    def repeat(self) -> str:
        """Return the command that carries this round out again."""
        return f"python -m tests.crash --seed {self.seed} --first {self.number} --rounds 1"


def make_plan(seed: str, number: int, *, load_s: float = LOAD_S, disks: bool = True) -> Plan:
    """Return round `number` of `seed`; `disks` False where no small disk can be had."""
    chance = random.Random(f"{seed}/{number}")
    workers = chance.choice((1, 1, 2))
    small_disk = chance.random() < 0.15 and disks
    count = chance.randint(_FEWEST, _MOST)
    blows = [_blow(chance, workers, load_s) for _ in range(count)]
    if chance.random() < _REWRITTEN:
        blows += _rewrite(chance, load_s)
    if chance.random() < _PAIRED:
        blows += _pair(chance, workers, load_s)
    if small_disk:
        blows.append(Blow(round(chance.uniform(0.5, load_s), 2), "fill", "disk full", 2.0))
    blows.sort(key=lambda blow: blow.at)
    return Plan(seed, number, workers, small_disk, tuple(blows), load_s)


def _blow(chance: random.Random, workers: int, load_s: float) -> Blow:
    at = round(chance.uniform(0.3, load_s), 2)
    kind = chance.choices(("kill", "stop", "term", "network", "cut"), (8, 5, 2, 8, 1))[0]
    if kind == "network":
        name, make = chance.choice(_FAULTS)
        seconds = round(chance.uniform(0.3, 3.0), 2)
        return Blow(at, "network", name, seconds, MappingProxyType(make(chance)))
    if kind == "cut":
        return Blow(at, "cut", "all connections cut", 0.0)
    others = ["proxy", "redis"] if kind == "term" else ["proxy", "redis", "far_end"]
    victim = chance.choice([*others, *_workers(workers)])
    longest = 1.5 if kind != "stop" else 3.0
    seconds = round(chance.uniform(0.0, longest), 2)
    if kind == "stop" and victim.startswith("worker") and chance.random() < 0.3:
        seconds = DEAD_AFTER_S + round(chance.uniform(0.5, 2.0), 2)
    if victim == "redis" and chance.random() < 0.2:
        seconds = round(chance.uniform(*_LONG_OUTAGE_S), 2)
    return Blow(at, kind, victim, seconds)  # type: ignore[arg-type]  # choices() loses the literals


def _pair(chance: random.Random, workers: int, load_s: float) -> list[Blow]:
    at, seconds = chance.uniform(0.3, load_s - 1.0), chance.uniform(0.5, 3.0)
    victim = chance.choice(("proxy", "redis", *_workers(workers)))
    inside = at + chance.uniform(0.1, seconds)
    first = Blow(round(at, 2), "stop", "redis", round(seconds, 2))
    return [first, Blow(round(inside, 2), "kill", victim, round(chance.uniform(0.0, 1.0), 2))]


def _rewrite(chance: random.Random, load_s: float) -> list[Blow]:
    at = chance.uniform(0.5, load_s)
    kill = Blow(round(at + chance.uniform(0.0, 0.3), 2), "kill", "redis", 0.1)
    return [Blow(round(at, 2), "rewrite", "file rewritten", 0.0), kill]


def _workers(count: int) -> list[str]:
    return [f"worker{number}" for number in range(1, count + 1)]


def _one_port(chance: random.Random) -> dict[str, Any]:
    return {"port": chance.choice((None, 0, 0, 1, 2)), "host": chance.choice(("", "127.0.0.1"))}


def _times(chance: random.Random, most: int) -> dict[str, Any]:
    return {"times": chance.randint(1, most), "skip": chance.randint(0, 40)}


def _reply(at: str, reply: str, most: int) -> Callable[[random.Random], dict[str, Any]]:
    return lambda chance: {"at": at, "reply": reply, **_times(chance, most)}


def _act(at: str, do: str, most: int, **more: Any) -> Callable[[random.Random], dict[str, Any]]:
    return lambda chance: {"at": at, "do": do, **more, **_times(chance, most)}


def _port(do: str) -> Callable[[random.Random], dict[str, Any]]:
    return lambda chance: {"at": "connect", "do": do, **_one_port(chance)}


_FAULTS: tuple[tuple[str, Callable[[random.Random], dict[str, Any]]], ...] = (
    ("refused", _port("refuse")),
    ("blackholed", _port("blackhole")),
    ("reset in DATA", _act("content", "reset", 20)),
    ("closed in DATA", _act("content", "drop", 20)),
    ("silent in DATA", _act("content", "hang", 4)),
    ("reset after the dot, taken", _act("taken", "reset", 10)),
    ("closed after the dot, taken", _act("taken", "drop", 10)),
    ("silent after the dot, taken", _act("taken", "hang", 4)),
    ("reset after the dot, not taken", _act("dot", "reset", 10)),
    ("late after the dot, taken", _act("taken", "delay", 20, seconds=1.0)),
    ("reset at MAIL", _act("mail", "reset", 10)),
    ("reset at connect", _act("connect", "reset", 10)),
    ("reset in the handshake", _act("tls", "reset", 6)),
    ("wrong certificate", _act("starttls", "certificate", 3, what="untrusted")),
    ("login refused", _reply("auth", "535 5.7.8 Error: authentication failed", 2)),
    ("login busy", _reply("auth", "454 4.7.0 Temporary authentication failure", 3)),
    ("421 at MAIL", _reply("mail", "421 4.3.2 Service shutting down", 5)),
    ("421 after the dot", _reply("dot", "421 4.3.2 Service shutting down", 5)),
    ("451 at RCPT", _reply("rcpt", "451 4.3.0 Error: try again later", 60)),
    ("451 after the dot", _reply("dot", "451 4.3.0 Error: queue file write error", 20)),
)
