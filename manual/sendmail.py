"""sendmail's flags and exit codes, out of its own help."""

from manual.mdoc import prose, words
from proxy.sendmail.program import HELP


def flags() -> list[tuple[str, str]]:
    """Return each line of flags with what it does."""
    found: list[tuple[str, str]] = []
    for line in HELP.partition("Options of other")[0].splitlines():
        if line.startswith("  -"):
            names, _, text = line.strip().partition("  ")
            found.append((names, text.strip()))
        elif found and line:
            names, text = found[-1]
            found[-1] = (names, f"{text} {line.strip()}".strip())
    return found


def flag_section() -> list[str]:
    """Return the page's list of flags."""
    lines = [".Bl -tag -width indent"]
    for names, text in flags():
        lines += [f".It {_head(names)}", *prose(text[:1].upper() + text[1:] + ".")]
    return [*lines, ".El"]


def _head(names: str) -> str:
    out = []
    for part in names.split(", "):
        if part.startswith("-"):
            flag, _, value = part[1:].partition(" ")
            out.append(f"Fl {words(flag)}" + (f" Ar {words(value)}" if value else ""))
        else:
            out.append(f"Nm {words(part)}")
    return " , ".join(out)


def exit_section() -> list[str]:
    """Return the page's list of exit codes."""
    text = " ".join(HELP.partition("Exit codes: ")[2].partition("\n\n")[0].split()).rstrip(".")
    lines = [".Bl -tag -width indent"]
    for one in text.split("; "):
        code, _, meaning = one.partition(" ")
        lines += [f".It {code}", *prose(meaning[:1].upper() + meaning[1:] + ".")]
    return [*lines, ".El"]


def foreign() -> list[str]:
    """Return the sentence about options of other mail systems."""
    text = HELP.partition("Options of other")[2].partition("\n\n")[0]
    return prose(f"Options of other{text}")
