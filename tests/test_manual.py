"""The manual pages say what the program does, and nothing else; they read well everywhere."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from manual import commands, configuration, sendmail
from manual.pages import files
from proxy.config.model import Settings
from proxy.config.section import Section, section_in
from proxy.sendmail.options import UsageError, read_options
from tests.support.clients import program
from tests.support.processes import ROOT

SHARE = ROOT / "share"
PAGES = sorted((SHARE / "man").glob("*/*"))
pages = pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])


def shown(page: str) -> str:
    """Return a page as it is read, in lines that are long enough for any item."""
    file = next(SHARE.glob(f"man/*/{page}"))
    done = subprocess.run(
        [program("mandoc"), "-T", "ascii", "-O", "width=1000", file],
        capture_output=True,
        text=True,
        check=True,
    )
    return re.sub(r".\x08", "", done.stdout)


def test_what_lies_in_share_is_what_the_program_says_today() -> None:
    there = {str(f.relative_to(SHARE)): f.read_text() for f in SHARE.rglob("*") if f.is_file()}
    assert there == files(), "run: make manual"


def test_there_are_the_three_pages() -> None:
    names = {"franker.1", "franker.toml.5", "franker-sendmail.8"}
    assert {page.name for page in PAGES} == names


@pages
def test_mandoc_finds_nothing_in_it(page: Path) -> None:
    done = subprocess.run(
        [program("mandoc"), "-T", "lint", page], capture_output=True, text=True, check=False
    )
    ours = [name.rpartition(".")[::2] for name in (page.name for page in PAGES)]
    # It looks for pages where this host has its own; that ours refer to each other is checked here.
    absent = re.compile(r"referenced manual not found: Xr (\S+) (\d)")
    said = [
        line
        for line in (done.stdout + done.stderr).splitlines()
        if not ((found := absent.search(line)) and found.groups() in [tuple(o) for o in ours])
    ]
    assert said == []


@pages
def test_man_shows_it_without_a_warning(page: Path) -> None:
    done = subprocess.run(
        [program("man", "man-db"), "--warnings=w", "--local-file", page],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MANWIDTH": "80", "MANROFFOPT": ""},
    )
    assert done.stderr == ""
    assert "SEE ALSO" in done.stdout


def test_every_command_with_its_options_and_words_is_in_franker_1() -> None:
    text = shown("franker.1")
    told = list(commands.commands())
    assert {"queue list", "run", "completion"} <= {path for path, _, _ in told}
    for path, command, context in told:
        heading = rf"(?m)^   franker {path}( [\[{{I].*)?$"
        assert re.search(heading, text), path
        part = re.split(heading, text)[2].partition("\n   franker ")[0].partition("\nSIGNALS")[0]
        assert " ".join(str(command.help).partition("\n\n")[0].split()) in " ".join(part.split())
        for option in command.get_params(context):
            if isinstance(option, click.Option) and not commands.EVERYWHERE & set(option.opts):
                assert re.search(rf"(?m)^     .*{re.escape(option.opts[0])}\b", part), option.opts
                assert option.help
                assert " ".join(option.help.split()) in " ".join(part.split())
        named = set(re.findall(r"(?m)^     (--[\w-]+)", part))
        assert named <= {o for p in command.params for o in p.opts}, path


def test_every_command_but_completion_takes_the_configuration_as_the_page_says() -> None:
    without = {
        path
        for path, command, _ in commands.commands()
        if not any("--config" in parameter.opts for parameter in command.params)
    }
    assert without == {"completion"}


def keys(section: type[Section], path: str = "") -> Iterator[str]:
    """Yield the full name of every key below `section`; NAME stands for a table's free name."""
    for name, field in section.model_fields.items():
        key = f"{path}{field.alias or name}"
        inner = section_in(field.annotation)
        if inner is None or inner.__name__ in ("Secret", "ListenAddress"):
            yield key
        elif key == "streams":
            yield from keys(inner, "streams.NAME.")
        else:
            yield from keys(inner, f"{key}.")


def test_every_key_of_the_configuration_is_in_franker_toml_5_with_its_default() -> None:
    text = shown("franker.toml.5")
    found: dict[str, str] = {}
    table = ""
    for line in text.splitlines():
        if heading := re.fullmatch(r"   (\[+[a-z.]+\]+|Before the first table)", line):
            name = re.sub(r"streams\..*", "streams.NAME", heading[1].strip("[]"))
            table = "" if name.startswith("Before") else f"{name}."
        elif key := re.match(r"     ([a-z_]+) = (.+)$", line):
            found.setdefault(table + key[1], key[2])
    assert set(found) == set(keys(Settings))
    defaults = Settings().model_dump(by_alias=True, mode="json")
    for key, value in found.items():
        if key.startswith(("rules.", "streams.", "notify.to", "notify.from")):
            continue  # examples
        section, _, name = key.rpartition(".")
        default = defaults[section][name] if section else defaults[name]
        assert as_loaded(key, value) == default, key


def as_loaded(key: str, value: str) -> Any:
    """Return what the configuration makes of `key = value`."""
    section, _, name = key.rpartition(".")
    given = tomllib.loads(f"value = {value}")["value"]
    loaded = Settings.model_validate({section: {name: given}} if section else {name: given})
    dumped = loaded.model_dump(by_alias=True, mode="json")
    return dumped[section][name] if section else dumped[name]


def test_the_keys_of_a_listening_address_and_of_a_secret_are_in_franker_toml_5() -> None:
    text = shown("franker.toml.5")
    for inner in ("address", "allow", "auth", "tls", "cert", "key", "env", "file", "credential"):
        assert re.search(rf"\b{inner} = ", text), inner


def test_every_text_of_the_example_is_in_franker_toml_5() -> None:
    plain = re.sub(r"[\s|]+", " ", shown("franker.toml.5"))
    for line in configuration.EXAMPLE.read_text(encoding="utf-8").splitlines():
        comment = re.sub(r"^#? *[a-z_]+ = .*?(\s{2,}#|$)|^\s*#+", "", line).strip()
        if comment and not re.match(r"\[+[a-z.]+\]+$", comment):
            assert " ".join(comment.split()) in plain, line


def test_every_flag_of_sendmail_is_in_its_page() -> None:
    text = shown("franker-sendmail.8")
    for names, meaning in sendmail.flags():
        assert re.search(rf"(?m)^     {re.escape(names)}(  |$)", text), names
        assert " ".join(meaning[1:].split()) in " ".join(text.split())
    named = set(re.findall(r"(?<![\w-])-([A-Za-z])", text))
    taken = {letter for letter in map(chr, range(65, 123)) if accepts(letter)}
    assert taken <= named, "taken by the program, not on the page"
    assert {letter for letter in named if not accepts(letter)} == set()


def accepts(letter: str) -> bool:
    """Tell whether sendmail takes -LETTER, alone or with one of some values."""
    for value in ("", "m", "never", "7BIT", "full", "V", "x"):
        try:
            read_options("sendmail", [f"-{letter}{value}", "you@example.net"])
        except UsageError:
            continue
        return True
    return False


def test_every_exit_code_of_sendmail_is_in_its_page() -> None:
    from proxy.sendmail import listing, options, program, through

    codes = {
        value
        for module in (program, options, listing, through)
        for name, value in vars(module).items()
        if name.startswith("EX_")
    }
    part = shown("franker-sendmail.8").partition("EXIT STATUS")[2].partition("EXAMPLES")[0]
    assert {int(code) for code in re.findall(r"(?m)^     (\d+) ", part)} == codes | {0}


@pytest.mark.slow
def test_the_wheel_puts_them_where_man_and_the_shells_look(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("proxy", "worker", "share"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tree)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    subprocess.run([*pip, f"--wheel-dir={tmp_path}", tree], check=True, capture_output=True)
    wheel = zipfile.ZipFile(next(tmp_path.glob("*.whl")))
    data = {name.partition(".data/data/")[2] for name in wheel.namelist() if ".data/data/" in name}
    assert data == {f"share/{name}" for name in files()}
