"""The configuration's keys, each with default and meaning: out of franker.toml.example."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from manual.mdoc import literal, prose, words

EXAMPLE = Path(__file__).parents[1] / "franker.toml.example"

_TABLE = re.compile(r"#?(\[\[?[a-z.]+\]\]?)$")
_KEY = re.compile(r"#?([a-z_]+) = (.*)$")
_REMARK = re.compile(r"(.*?)\s{2,}# (.*)$")


@dataclass(slots=True)
class Keys:
    """Keys that stand together: one text about all, then `name = value` with a remark each."""

    text: list[str] = field(default_factory=list)
    keys: list[tuple[str, str, str]] = field(default_factory=list)


@dataclass(slots=True)
class Table:
    """One table of the file; the first has no name."""

    name: str
    text: list[str]
    groups: list[Keys] = field(default_factory=list)


def tables(example: str) -> Iterator[Table]:
    """Yield the tables of a commented configuration, in order."""
    table = Table("", [])
    comment: list[str] = []
    group: Keys | None = None
    for line in example.splitlines():
        if found := _TABLE.fullmatch(line):
            yield table
            table, comment, group = Table(found[1], comment), [], None
        elif found := _KEY.fullmatch(line):
            if group is None or comment:
                group = Keys(comment)
                table.groups.append(group)
                comment = []
            value, remark = found[2], ""
            if remarked := _REMARK.fullmatch(value):
                value, remark = remarked[1], remarked[2]
            group.keys.append((found[1], value, remark))
        elif line.startswith("#"):
            comment.append(line[1:].removeprefix(" "))
        elif line.lstrip().startswith("#") and group and group.keys:
            name, value, remark = group.keys[-1]
            group.keys[-1] = (name, value, f"{remark} {line.strip(' #')}")
        elif not line:
            if comment and not table.name and not table.groups:
                table.text += [*comment, ""]
                comment = []
            elif comment:
                comment.append("")
            group = None
    yield table


def section() -> list[str]:
    """Return the page's part about all keys."""
    lines: list[str] = []
    for table in tables(EXAMPLE.read_text(encoding="utf-8")):
        if table.name:
            lines.append(f".Ss {words(table.name)}\\&")
        else:
            lines.append(".Ss Before the first table")
        lines += _text(table.text)
        for number, group in enumerate(table.groups):
            lines += _group(group, first=not number)
    return lines


def _group(group: Keys, *, first: bool) -> list[str]:
    lines = [".Bl -tag -width indent"]
    for number, (name, value, remark) in enumerate(group.keys):
        lines.append(f".It Ic {words(name)} No = Li {words(value)}")
        if not number and len(group.keys) == 1:
            lines += _text(group.text)
        lines += prose(remark)
    lines.append(".El")
    if len(group.keys) > 1 and group.text:
        lines = [*([] if first else [".Pp"]), *_text(group.text), *lines]
    return lines


def _text(comment: list[str]) -> list[str]:
    """Return a comment's paragraphs; lines that stand further in are shown as they are."""
    out: list[str] = []
    for shown, lines in groupby(comment, key=_kind):
        if shown is _SHOWN:
            out += literal(line.strip() for line in lines)
        elif shown is _PLAIN:
            out += prose(" ".join(lines))
        elif out:
            out.append(".Pp")
    return out[:-1] if out[-1:] == [".Pp"] else out


_SHOWN, _PLAIN, _EMPTY = "shown", "plain", "empty"


def _kind(line: str) -> str:
    return _SHOWN if line.startswith("  ") else _PLAIN if line else _EMPTY
