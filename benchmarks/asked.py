"""The command line: which part of the plan, or what else, is to be measured."""

import argparse
from fnmatch import fnmatchcase
from pathlib import Path

from benchmarks import plan
from benchmarks.scenarios import BOTH, Backlog, Flow, Load, Scenario, Setup

_OWN = ("messages", "sessions", "size", "fresh", "delay")


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures Franker, and Postfix beside it. Without options: everything, about"
        " an hour and a half. The machine should do nothing else meanwhile.",
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="scenarios or groups, such as flow or 'backlog-*'"
    )
    parser.add_argument("--quick", action="store_true", help="a hundredth of it, to see it work")
    parser.add_argument("--list", action="store_true", help="say what there is, measure nothing")
    parser.add_argument("--rounds", type=int, help="of each system; 3, with --quick 1")
    parser.add_argument("--only", choices=BOTH, help="one system alone")
    parser.add_argument("--own-load", action="store_true", help="do not use smtp-source")
    parser.add_argument(
        "--folder", type=Path, help="where to work, on the disk to be measured; kept afterwards"
    )
    parser.add_argument("--json", type=Path, help="default: benchmarks/results/TIME.json")
    parser.add_argument("--show", type=Path, metavar="JSON", help="show an earlier run again")
    own = parser.add_argument_group("instead of the plan, a flow of one's own")
    own.add_argument("--messages", type=int)
    own.add_argument("--sessions", type=int)
    own.add_argument("--size", type=int, help="octets of a message")
    own.add_argument("--fresh", action="store_true", default=None, help="a connection for each")
    own.add_argument("--delay", type=float, action="append", help="round trip to the sink in ms")
    own.add_argument("--backlog", type=int, help="with so many waiting")
    return parser.parse_args(words)


def chosen(given: argparse.Namespace) -> tuple[Scenario, ...]:
    """Return the scenarios that were asked for; none: no name is known."""
    if given.backlog or any(getattr(given, name) is not None for name in _OWN):
        return own_scenarios(given)
    whole = plan.quick() if given.quick else plan.full()
    names = given.names or ["*"]
    return tuple(
        one
        for one in whole
        if any(fnmatchcase(one.name, name) or one.group == name for name in names)
    )


def own_scenarios(given: argparse.Namespace) -> tuple[Scenario, ...]:
    """Return the flow or backlog that the options describe, for each delay."""
    usual = Load()
    load = Load(
        given.messages or usual.messages,
        given.sessions or usual.sessions,
        given.size or usual.size,
        bool(given.fresh),
    )
    if given.backlog:
        title = f"{given.backlog:,} waiting; {load.messages:,} come, as many go"
        setup = Setup(relaying=False, max_memory="8GB")
        what = Backlog(given.backlog, load, setup)
        return (Scenario(f"backlog-{given.backlog}", "backlog", title, what),)
    kind = "a new connection for each" if load.fresh else "connections kept"
    title = f"{load.messages:,} messages of {load.size:,} octets, {load.sessions} sessions, {kind}"
    return tuple(
        Scenario(f"own-{delay:g}ms", "flow", f"{title}; {delay:g} ms", Flow(load, delay))
        for delay in given.delay or [0.0]
    )
