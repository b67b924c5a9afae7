"""Secrets are read where they are named, each time anew."""

from pathlib import Path

import pytest

from proxy.config.secrets import Secret


def test_a_secret_is_read_from_a_variable_without_white_space(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("A_TOKEN", " b7e1c5a0\n")
    assert Secret(env="A_TOKEN").read() == "b7e1c5a0"


def test_a_changed_file_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "token"
    secret = Secret(file=str(file))
    assert secret.read() is None
    file.write_text("one\n")
    assert secret.read() == "one"
    file.write_text("two\n")
    assert secret.read() == "two"


def test_a_credential_is_read_from_systemds_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("b7e1c5a0")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert Secret(credential="token").read() == "b7e1c5a0"
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    assert Secret(credential="token").read() is None


@pytest.mark.parametrize("octets", [b"", b" \n", b"\xff\xfe\x00", b"a\x00b"])
def test_an_empty_or_unreadable_secret_is_missing(octets: bytes, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_bytes(octets)
    expected = "a\x00b" if octets == b"a\x00b" else None
    assert Secret(file=str(file)).read() == expected


def test_an_unset_variable_is_a_missing_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("A_TOKEN", raising=False)
    assert Secret(env="A_TOKEN").read() is None
    monkeypatch.setenv("A_TOKEN", "")
    assert Secret(env="A_TOKEN").read() is None


def test_a_variable_that_is_not_set_may_be_in_a_file_that_another_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    monkeypatch.delenv("A_TOKEN", raising=False)
    monkeypatch.setenv("A_TOKEN_FILE", str(file))
    assert Secret(env="A_TOKEN").read() is None
    file.write_text("one\n")
    assert Secret(env="A_TOKEN").read() == "one"
    file.write_text("two\n")
    assert Secret(env="A_TOKEN").read() == "two"
    monkeypatch.setenv("A_TOKEN", "b7e1c5a0")
    assert Secret(env="A_TOKEN").read() == "b7e1c5a0"


def test_the_name_says_where_and_never_what(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", "b7e1c5a0")
    assert Secret(env="A_TOKEN").name == "env A_TOKEN"
    assert "b7e1c5a0" not in repr(Secret(env="A_TOKEN"))


def test_a_command_beside_the_services_finds_what_they_were_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.setattr("proxy.config.secrets._GIVEN", tmp_path)
    unit = tmp_path / "franker-worker@1.service"
    unit.mkdir()
    (unit / "secret_postmark").write_text("b7e1c5a0\n")
    assert Secret(credential="secret_postmark").read() == "b7e1c5a0"
