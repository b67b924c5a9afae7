"""What README and docs say is true: commands, configuration, metrics, links, make targets."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from proxy.cli import main
from proxy.config import load
from tests.fuzz.targets import TARGETS
from tests.support.documents import CONFIG, HOW_IT_IS_RUN, blocks
from tests.support.processes import ROOT

PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
IDS = [str(page.relative_to(ROOT)) for page in PAGES]
pages = pytest.mark.parametrize("page", PAGES, ids=IDS)


def shown_commands(page: Path) -> Iterator[list[str]]:
    """Every command line of ours that a page shows, as words after "franker"."""
    text = re.sub(r"\\\n\s*", " ", page.read_text(encoding="utf-8"))
    lines = re.findall(r"(?m)^    .*?(?<!--name )(?<!lib/)\bfranker (.+)$", text)
    lines += re.findall(r"`franker ([^`]+)`", text)
    for block in blocks(page):
        if block.language == "sh":
            lines += re.findall(r"(?m)^(?:.* )?franker ([^\\\n]+)$", block.text)
    for line in lines:
        yield shlex.split(line.partition(" #")[0].partition(" > ")[0].partition(" | ")[0])


def parse(words: list[str]) -> None:
    """Let click read `words` as it would, without running anything."""
    command: click.Command = main
    context = click.Context(main, info_name="franker")
    while isinstance(command, click.Group):
        if words[:1] == ["--version"]:
            break
        if not words or words[0] not in command.commands:
            raise AssertionError(f"no command {words[:1]} of {context.command_path}")
        command, words = command.commands[words[0]], words[1:]
        context = click.Context(command, info_name=command.name, parent=context)
    command.make_parser(context).parse_args(list(words))


@pages
def test_every_command_shown_exists_with_its_options(page: Path) -> None:
    for words in shown_commands(page):
        parse(words)


@pages
def test_every_link_inside_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pages
def test_every_configuration_shown_loads(page: Path, tmp_path: Path) -> None:
    for number, block in enumerate(blocks(page)):
        if block.kind == CONFIG:
            file = tmp_path / f"{number}.toml"
            file.write_text(block.text, encoding="utf-8")
            load(file, {})


@pages
def test_every_toml_block_is_loaded_by_the_test_above(page: Path) -> None:
    assert all((one.kind == CONFIG) == (one.language == "toml") for one in blocks(page))


@pages
def test_every_fenced_block_says_which_test_runs_it(page: Path) -> None:
    pictures = {"docs/flow.md"}
    for block in blocks(page):
        assert block.kind in HOW_IT_IS_RUN or str(page.relative_to(ROOT)) in pictures, block.text


@pages
def test_every_heading_that_a_link_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    headings = re.findall(r"(?m)^#+ (.+)$", text)
    there = {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= there


@pages
def test_every_file_of_the_tree_that_is_named_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for named in re.findall(r"`((?:tests|proxy|worker|docs)/[\w./-]+)`", text):
        assert (ROOT / named).exists(), f"{page.name}: {named}"


def test_every_fuzz_target_is_documented_and_no_other() -> None:
    text = (ROOT / "docs/guarantees.md").read_text(encoding="utf-8")
    table = text[text.index("| target | reads") :]
    shown = re.findall(r"(?m)^\| (`[^|]+) \|", table)
    assert {name for row in shown for name in re.findall(r"`([\w-]+)`", row)} == set(TARGETS)


def test_every_make_target_shown_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for page in PAGES:
        for target in re.findall(r"(?m)^    .*?\bmake ([a-z]+)", page.read_text(encoding="utf-8")):
            assert re.search(rf"(?m)^{target}:", makefile), target


def test_every_key_that_docs_name_is_one() -> None:
    from proxy.config.model import Settings

    sections = Settings.model_fields
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for section, key in re.findall(r"`([a-z]+)\.([a-z_]+)(?: = [^`]*)?`", text):
            if section in sections and key != "sock":
                model = sections[section].annotation
                names = {f.alias or n for n, f in model.model_fields.items()}  # type: ignore[union-attr]  # sections are models
                assert key in names, f"{page.name}: {section}.{key}"


def test_every_metric_is_documented_and_no_other() -> None:
    from proxy.metrics import intake, relaying

    documented = {}
    for part, rest in zip(
        ("proxy", "worker"), re.split(r"## Of the ", METRICS_PAGE)[1:], strict=True
    ):
        documented[part] = set(re.findall(r"(?m)^\| `(franker_\w+)`", rest))
    assert documented["proxy"] == metric_names(intake.REGISTRY)
    assert documented["worker"] == metric_names(relaying.REGISTRY)


METRICS_PAGE = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")


def metric_names(registry: object) -> set[str]:
    families = registry.collect()  # type: ignore[attr-defined]  # prometheus_client is not typed
    return {
        family.name + ("_total" if family.type == "counter" else "")
        for family in families
        if family.name.startswith("franker_")
    }


def test_every_command_and_option_is_documented() -> None:
    text = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
    common = {"--config", "--json", "--help"}

    def check(command: click.Command, path: str) -> None:
        if isinstance(command, click.Group):
            for name, inner in command.commands.items():
                check(inner, f"{path} {name}".strip())
            return
        assert f"franker {path}" in text, path
        options = {o for p in command.params for o in p.opts if o.startswith("--")} - common
        assert [option for option in sorted(options) if option not in text] == [], path

    check(main, "")


def test_the_first_screen_says_what_it_is_what_it_promises_what_not_then_how() -> None:
    screen = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:45]
    text = "\n".join(screen)
    order = [
        "Takes mail",
        "What it promises",
        "What it does not do",
        "make run",
        "POSTMARK_SERVER_TOKEN=",
    ]
    places = [text.index(phrase) for phrase in order]
    assert places == sorted(places)
