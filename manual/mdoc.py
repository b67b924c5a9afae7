"""Text as mdoc(7) writes it. Pure."""

import re
import textwrap
from collections.abc import Iterable

_WIDTH = 60  # mandoc's own check wants lines under 80 octets, escapes included


def escape(text: str) -> str:
    """Return `text` so that every character is printed as it is."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "\\(ga")
    return text.replace("'", "\\(aq").replace("~", "\\(ti").replace("^", "\\(ha")


def words(text: str) -> str:
    """Return `text` as arguments of a macro, none of which is taken for another macro."""
    escaped = (escape(word).replace('"', '""') for word in text.split())
    return " ".join(f'"\\&{word}"' if '"' in word else f"\\&{word}" for word in escaped)


def prose(text: str) -> list[str]:
    """Return one paragraph as lines, a new one for each sentence."""
    joined = " ".join(text.split())
    sentences = re.split(r"(?<=[^.][.?!])\s+(?=[A-Z\"{$`])", joined)
    return [_line(line) for sentence in sentences for line in textwrap.wrap(sentence, _WIDTH)]


def _line(text: str) -> str:
    line = escape(text)
    return f"\\&{line}" if line.startswith((".", "\\(aq")) else line


def literal(lines: Iterable[str]) -> list[str]:
    """Return a display of `lines` as they are."""
    return [".Bd -literal -offset indent", *map(_line, lines), ".Ed"]


def paragraphs(text: str) -> list[str]:
    """Return `text`, whose paragraphs are parted by empty lines, as lines."""
    out: list[str] = []
    for number, block in enumerate(re.split(r"\n\s*\n", text.strip("\n"))):
        if number:
            out.append(".Pp")
        out += prose(block)
    return out
