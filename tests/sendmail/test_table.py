"""The table of docs/sendmail.md: the same calls made to Postfix's sendmail and to ours."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sendmail.cases import CASES
from tests.sendmail.comparison import Outcome, alike, of_franker, of_postfix, table, with_table
from tests.sendmail.postfix import missing
from tests.support.processes import ROOT
from tests.support.redis_server import RedisServer, new_data_dir, remove_data_dir
from tests.support.sendmail import Sendmail

PAGE = ROOT / "docs/sendmail.md"


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that everybody can enter."""
    folder = new_data_dir()
    folder.chmod(0o755)
    yield folder
    remove_data_dir(folder)


@pytest.fixture(scope="module")
def franker(place: Path) -> list[Outcome]:
    store = RedisServer(place)
    store.start()
    (place / "drop").mkdir()
    try:
        sendmail = Sendmail(place, place / "drop", sys.executable)
        return of_franker(sendmail, {"FRANKER_DATA_DIR": str(place)})
    finally:
        store.stop()


@pytest.fixture(scope="module")
def postfix(place: Path) -> list[Outcome]:
    if lacking := missing():
        pytest.skip(lacking)
    return of_postfix(place)


@pytest.mark.slow
def test_both_do_the_same_but_where_the_table_says_why_not(
    postfix: list[Outcome], franker: list[Outcome]
) -> None:
    wrong = [
        f"{case.name} {case.arguments}: {theirs.words()} | {ours.words()}"
        for case, theirs, ours in zip(CASES, postfix, franker, strict=True)
        if alike(theirs, ours) is bool(case.differs)
    ]
    assert wrong == []


@pytest.mark.slow
def test_the_table_is_what_was_found(postfix: list[Outcome], franker: list[Outcome]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert with_table(page, table(postfix, franker)) == page


@pytest.mark.skipif(os.geteuid() != 0, reason="the table is about root's calls")
def test_our_exit_codes_are_those_of_the_table(franker: list[Outcome]) -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line[:3] == "| `"]
    said = [int(row.split("|")[-3]) for row in rows]
    assert said == [outcome.code for outcome in franker]
