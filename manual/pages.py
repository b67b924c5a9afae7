"""All files of share/ by their names."""

from pathlib import Path

from manual import commands, configuration, sendmail
from proxy.cli.completion import SHELLS, script

_HERE = Path(__file__).parent
_PLACES = {
    "bash": "bash-completion/completions/franker",
    "zsh": "zsh/site-functions/_franker",
    "fish": "fish/vendor_completions.d/franker.fish",
}


def files() -> dict[str, str]:
    """Return what is to be in share/, by path there."""
    parts = {
        "@COMMANDS@": commands.section,
        "@KEYS@": configuration.section,
        "@FLAGS@": sendmail.flag_section,
        "@FOREIGN@": sendmail.foreign,
        "@EXITS@": sendmail.exit_section,
    }
    made = {}
    for source in sorted(_HERE.glob("*.in")):
        lines: list[str] = []
        for line in source.read_text(encoding="utf-8").splitlines():
            lines += parts[line]() if line in parts else [line]
        name = source.name.removesuffix(".in")
        made[f"man/man{name[-1]}/{name}"] = "\n".join(lines) + "\n"
    for shell in SHELLS:
        made[_PLACES[shell]] = script(shell)
    return made
