"""Completion in real shells: what a person gets who presses the key."""

import subprocess
from pathlib import Path

import pytest

from proxy.cli.completion import SHELLS
from tests.support.clients import program
from tests.support.processes import ROOT, clean_environ, franker_command, run_franker
from tests.support.terminal import Terminal

SHARE = ROOT / "share"
_BASH = """
source "$1"; shift
complete -p franker > /dev/null
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
COMP_LINE="$*"
_franker_completion franker "${@: -1}" "${@: -2:1}" 2> /dev/null
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment whose `franker` is this tree's."""
    folder = tmp_path_factory.mktemp("bin")
    franker = folder / "franker"
    words = " ".join(f"'{word}'" for word in franker_command())
    franker.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    franker.chmod(0o755)
    environ = clean_environ()
    return {**environ, "PATH": f"{folder}:{environ['PATH']}"}


def in_bash(environ: dict[str, str], *words: str) -> set[str]:
    """Return what a real bash offers after `words`, of which the last has been begun."""
    file = SHARE / "bash-completion/completions/franker"
    done = subprocess.run(
        [program("bash"), "--norc", "-c", _BASH, "bash", file, "franker", *words],
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_bash_offers_the_commands(environ: dict[str, str]) -> None:
    assert {"run", "proxy", "worker", "queue", "check"} <= in_bash(environ, "")


def test_bash_completes_a_command_within_a_group(environ: dict[str, str]) -> None:
    assert in_bash(environ, "queue", "de") == {"dead", "delete"}


def test_bash_completes_options_and_their_values(environ: dict[str, str]) -> None:
    assert in_bash(environ, "explain", "--cl") == {"--client"}
    assert "deferred" in in_bash(environ, "queue", "list", "--state", "d")
    assert in_bash(environ, "completion", "z") == {"zsh"}


def test_bash_by_a_person_at_a_terminal(environ: dict[str, str], tmp_path: Path) -> None:
    command = [program("bash"), "--norc", "-i"]
    with Terminal(command, {**environ, "HOME": str(tmp_path), "TERM": "dumb"}) as terminal:
        terminal.type(f"source {SHARE}/bash-completion/completions/franker\n")
        terminal.type("echo re''ady\n")
        terminal.until("ready")
        terminal.type("franker que\t")
        terminal.until("franker queue ")
        terminal.type("li\t")
        terminal.until("list ")


def test_fish_offers_the_commands(environ: dict[str, str], tmp_path: Path) -> None:
    file = SHARE / "fish/vendor_completions.d/franker.fish"
    done = subprocess.run(
        [program("fish"), "--no-config", "-c", f"source {file}; complete -C 'franker queue de'"],
        env={**environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert {line.split("\t")[0] for line in done.stdout.splitlines()} == {"dead", "delete"}


def test_zsh_reads_it(tmp_path: Path) -> None:
    file = SHARE / "zsh/site-functions/_franker"
    subprocess.run([program("zsh"), "-f", "-n", file], check=True)
    assert file.read_text().startswith("#compdef franker\n")


def test_zsh_by_a_person_at_a_terminal(environ: dict[str, str], tmp_path: Path) -> None:
    command = [program("zsh"), "-f", "-i"]
    with Terminal(command, {**environ, "HOME": str(tmp_path), "TERM": "dumb"}) as terminal:
        terminal.type(f"fpath=({SHARE}/zsh/site-functions $fpath)\n")
        terminal.type("autoload -Uz compinit && compinit -D -u && echo re''ady\n")
        terminal.until("ready\r\n")
        # Control-A goes to the line's beginning: what the keys made of it is said, not run.
        terminal.type("franker que\trel\t--str\t\x01echo it is: \n")
        terminal.until("\nit is: franker queue release --stream")


@pytest.mark.parametrize("shell", SHELLS)
def test_the_command_prints_what_is_shipped(shell: str) -> None:
    done = run_franker("completion", shell)
    assert done.returncode == 0
    shipped = {file.read_text() for file in SHARE.glob("*/*/*franker*")}
    assert done.stdout in shipped


def test_another_shell_is_wrong_usage() -> None:
    assert run_franker("completion", "csh").returncode == 2
