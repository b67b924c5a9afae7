"""Broken configurations: each file says in its first lines what must be said of it."""

from pathlib import Path

import pytest

from proxy.config import ConfigError, load

FOLDER = Path(__file__).parent / "data" / "bad_configs"
FILES = sorted(FOLDER.glob("*.toml"))


def expected(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line.removeprefix("#! ") for line in lines if line.startswith("#! ")]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_broken_file_is_refused_with_every_fault_at_once(path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    first, *faults = str(caught.value).splitlines()
    assert [fault.strip() for fault in faults] == expected(path)
    count = len(faults)
    assert first == f"{path}: {count} fault{'s' if count > 1 else ''}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_secret_is_shown_in_a_fault(path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    assert "b7e1c5a0" not in str(caught.value)
    assert "b7e1c5a0" not in repr(caught.value)
    assert caught.value.__context__ is None or caught.value.__suppress_context__


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_fault_is_told_in_plain_words(path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    for foreign in ("Input should", "pydantic", "validation error", "Value error", "None", "dict"):
        if foreign == "None" and path.stem == "rules":
            continue  # one of Postmark's own words for tracking links
        assert foreign not in str(caught.value)


def test_there_are_broken_files() -> None:
    assert len(FILES) > 10
