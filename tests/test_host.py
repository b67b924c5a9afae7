"""What an installation says and writes on its host, of what it finds there."""

import socket
from pathlib import Path

import configuration
import host
import mta
import pytest

from tests.support.processes import ROOT

FIRST = (ROOT / "systemd/franker.toml").read_bytes()
WHOLE = b'[local]\npostmaster = "ops@example.com"\nfrom = "servers@example.com"\n'
NO_POSTMASTER, NO_FROM, NO_TOKEN = "local.postmaster", "local.from", "secrets/postmark"


def left(written: bytes, *, alias: str = "", has_token: bool = False) -> list[str]:
    return configuration.left_to_do(written, alias=alias, host="web1", has_token=has_token)


def test_of_the_first_configuration_all_three_are_left_to_do() -> None:
    postmaster, sender, token = left(FIRST)
    assert NO_POSTMASTER in postmaster
    assert NO_FROM in sender
    assert "root@web1" in sender
    assert NO_TOKEN in token


def test_a_token_that_is_there_is_not_asked_for() -> None:
    assert [NO_TOKEN in what for what in left(FIRST, has_token=True)] == [False, False]


def test_the_alias_of_root_is_named_where_it_could_be_used() -> None:
    assert "/etc/aliases says ops@example.com" in left(FIRST, alias="ops@example.com")[0]
    assert "/etc/aliases" not in left(FIRST)[0]


@pytest.mark.parametrize(
    "written",
    [
        WHOLE,
        b'local = { aliases_file = "/etc/aliases", domain = "example.com" }\n',
        b'local.postmaster = "ops@example.com"\nlocal.domain = "example.com"\n',
        b"[local]\npostmaster = '''ops@example.com'''\n\"from\" = 'servers@example.com'\n",
    ],
)
def test_what_is_configured_is_not_left_to_do_however_it_is_written(written: bytes) -> None:
    assert left(written) == []


@pytest.mark.parametrize(
    "written",
    [
        b'[[rules]]\nfrom = "a@example.com"\npostmaster = "b@example.com"\n',
        b'[tls]\ndomain = "example.com"\naliases_file = "x"\n',
        b'from = "a@example.com"\npostmaster = "b@example.com"\n',
        b'local = "postmaster"\n',
        b"",
    ],
)
def test_the_same_names_in_other_tables_do_not_stand_for_those_of_local(written: bytes) -> None:
    postmaster, sender = left(written)
    assert NO_POSTMASTER in postmaster
    assert NO_FROM in sender


@pytest.mark.parametrize(
    "written",
    [
        b'\n[streams.a]\ntoken = { credential = "secret_postmark" }\n',
        b'\n[streams.a.token]\ncredential = "secret_postmark"\n',
        b'\n[streams.a]\ntoken = [\n{ env = "A" },\n{ credential = "secret_postmark" }]\n',
    ],
)
def test_a_token_is_asked_for_wherever_its_credential_is_named(written: bytes) -> None:
    (token,) = left(WHOLE + written)
    assert NO_TOKEN in token
    assert left(WHOLE + written, has_token=True) == []


@pytest.mark.parametrize(
    "written",
    [
        b'# token = { credential = "secret_postmark" }\n',
        b'[streams.a]\ntoken = { credential = "secret_other" }\n',
        b'[streams.a]\ntoken = { env = "secret_postmark" }\n',
    ],
)
def test_no_token_is_asked_for_that_no_credential_names(written: bytes) -> None:
    assert left(WHOLE + written) == []


@pytest.mark.parametrize("written", [b"[local\n", b"[local]\nfrom = \xff\n", b"a = 1\na = 2\n"])
def test_of_a_broken_configuration_nothing_is_said(written: bytes) -> None:
    assert left(written) == []


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host's /etc/franker, and nobody's /etc/aliases."""
    monkeypatch.setattr(configuration, "ETC", tmp_path)
    monkeypatch.setattr(mta, "root_alias", lambda: "ops@example.com")
    return tmp_path


def test_the_first_configuration_has_root_s_alias_as_its_postmaster(
    etc: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to_do = configuration.write(ROOT / "systemd/franker.toml")
    assert 'postmaster = "ops@example.com"\n' in (etc / "franker.toml").read_text()
    assert "goes to ops@example.com" in capsys.readouterr().out
    assert [NO_POSTMASTER in what for what in to_do] == [False, False]


def test_a_configuration_that_is_there_is_never_written_over(
    etc: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (etc / "franker.toml").write_bytes(WHOLE)
    assert configuration.write(ROOT / "systemd/franker.toml") == []
    assert (etc / "franker.toml").read_bytes() == WHOLE
    assert capsys.readouterr().out == ""


def test_the_socket_unit_as_it_is_serves_a_host_with_ipv6() -> None:
    usual = host.addresses(25, ipv6=True)
    unit = (ROOT / "systemd/franker-proxy.socket").read_text()
    assert [line for line in unit.splitlines() if line.startswith("ListenStream=")] == [
        f"ListenStream={address}" for address in usual
    ]
    assert host.drop_in_of(usual) == ""


@pytest.mark.parametrize(
    ("port", "ipv6", "listen"),
    [
        (25, False, ["127.0.0.1:25"]),
        (2525, True, ["127.0.0.1:2525", "[::1]:2525"]),
        (2525, False, ["127.0.0.1:2525"]),
    ],
)
def test_on_another_host_its_list_is_emptied_and_filled_anew(
    port: int, ipv6: bool, listen: list[str]
) -> None:
    found = host.addresses(port, ipv6=ipv6)
    assert found == listen
    _comment, section, *lines = host.drop_in_of(found).splitlines()
    assert section == "[Socket]"
    assert lines == ["ListenStream=", *(f"ListenStream={address}" for address in listen)]


def test_a_drop_in_is_written_once_and_goes_when_it_is_no_more_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "franker-proxy.socket.d"
    monkeypatch.setattr(host, "SOCKET_D", folder)
    beside, usual = host.addresses(2525, ipv6=True), host.addresses(25, ipv6=True)
    changed = [host.write_addresses(listen) for listen in (usual, beside, beside)]
    assert changed == [False, True, False]
    assert (folder / "port.conf").read_text() == host.drop_in_of(beside)
    (folder / "mine.conf").touch()
    assert host.write_addresses(usual)
    assert [path.name for path in folder.iterdir()] == ["mine.conf"]


@pytest.mark.parametrize(
    ("aliases", "address"),
    [
        ("postmaster: root\nroot: ops@example.com # us\n", "ops@example.com"),
        ("Root :\tops@example.com\n", "ops@example.com"),
        ("root:\nops@example.com\n", ""),
        ("root: ops@example.com, ann@example.com\n", ""),
        ("root: ann\n", ""),
        ("root: |/bin/x@example.com\n", ""),
        ("# root: ops@example.com\n", ""),
    ],
)
def test_root_s_alias_is_one_address_or_none(tmp_path: Path, aliases: str, address: str) -> None:
    file = tmp_path / "aliases"
    file.write_text(aliases)
    assert mta.root_alias(file) == address
    assert mta.root_alias(tmp_path / "missing") == ""


def test_a_port_is_free_until_somebody_listens_on_it() -> None:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
        assert mta.is_free(port)  # programs that connect are refused
        one.listen()
        assert not mta.is_free(port)
        holder = mta.holder(port)
    assert holder is not None
    assert "python" in str(holder)
