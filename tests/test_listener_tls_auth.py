"""What clients that insist on STARTTLS or AUTH get, where an address is configured for it."""

import base64
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.support.listening import HOST, MESSAGE, front
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA, data_dir: Path) -> dict[str, Any]:
    """An address with a certificate for "localhost"."""
    issued = authority.issue_cert("localhost")
    issued.private_key_pem.write_to_path(str(data_dir / "key.pem"))
    for number, blob in enumerate(issued.cert_chain_pems):
        blob.write_to_path(str(data_dir / "cert.pem"), append=number > 0)
    files = {"cert": str(data_dir / "cert.pem"), "key": str(data_dir / "key.pem")}
    return {"address": "127.0.0.1:0", "tls": files}


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


ACCEPT = {"address": "127.0.0.1:0", "auth": "accept"}


async def test_mail_comes_in_over_starttls(
    redis_server: RedisServer, tls: dict[str, Any], trusting: ssl.SSLContext
) -> None:
    async with front(redis_server, listen={"smtp": [tls]}) as office:
        dialog = await office.dial()
        assert "250-STARTTLS" in (await dialog.say("EHLO x")).split("\n")
        assert await dialog.say("STARTTLS") == "220 2.0.0 Ready for TLS"
        await dialog.start_tls(trusting)
        assert "STARTTLS" not in await dialog.say("EHLO y")
        assert await dialog.say("STARTTLS") == "503 5.5.1 TLS is on already"
        large = MESSAGE + b"x" * 70 + b"\r\n" + (b"y" * 70 + b"\r\n") * 20_000
        for content in (MESSAGE, large, MESSAGE):
            assert (await dialog.mail(content)).startswith("250 2.0.0 ")
        assert await dialog.say("QUIT") == "221 2.0.0 Bye"
        assert await dialog.ended()
        kept = office.kept()
        assert len(kept) == 3
        assert b"with ESMTPS" in kept[0].body
        assert kept[1].body.endswith(large[-10_000:])


async def test_what_was_said_before_tls_is_forgotten(
    redis_server: RedisServer, tls: dict[str, Any], trusting: ssl.SSLContext
) -> None:
    async with front(redis_server, listen={"smtp": [tls]}) as office:
        dialog = await office.dial()
        await dialog.begin(data=False)
        await dialog.say("STARTTLS")
        await dialog.start_tls(trusting)
        assert await dialog.say("DATA") == "503 5.5.1 First comes MAIL"


async def test_commands_slipped_in_behind_starttls_are_not_obeyed(
    redis_server: RedisServer, tls: dict[str, Any]
) -> None:
    async with front(redis_server, listen={"smtp": [tls]}) as office:
        dialog = await office.dial()
        await dialog.say("EHLO x")
        dialog.send(b"STARTTLS\r\nMAIL FROM:<evil@example.com>\r\n")
        answer = await dialog.reply()
        assert answer == "503 5.5.1 Nothing may follow STARTTLS before its reply"
        assert await dialog.ended()


async def test_a_broken_handshake_ends_the_session_and_nothing_else(
    redis_server: RedisServer, tls: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    async with front(redis_server, listen={"smtp": [tls]}) as office:
        dialog = await office.dial()
        await dialog.say("EHLO x")
        await dialog.say("STARTTLS")
        dialog.send(b"this is not TLS\r\n" * 10)
        await wait_until(lambda: office.listener.sessions == 0, what="the session is over")
        assert (await (await office.dial()).mail(MESSAGE)).startswith("250 2.0.0 ")
    shown = capfd.readouterr().err
    assert "TLS handshake failed" in shown
    assert "defect" not in shown


async def test_a_handshake_that_never_comes_ends_the_session(
    redis_server: RedisServer, tls: dict[str, Any]
) -> None:
    async with front(redis_server, listen={"smtp": [tls]}, limits={"handshake": 0.2}) as office:
        dialog = await office.dial()
        await dialog.say("EHLO x")
        await dialog.say("STARTTLS")
        await wait_until(lambda: office.listener.sessions == 0, what="the session is over")


async def test_a_slow_client_hears_421_over_tls_too(
    redis_server: RedisServer, tls: dict[str, Any], trusting: ssl.SSLContext
) -> None:
    async with front(redis_server, listen={"smtp": [tls]}, limits={"timeout": 1.0}) as office:
        dialog = await office.dial()
        await dialog.say("STARTTLS")
        await dialog.start_tls(trusting)
        assert (await dialog.reply()).startswith("421 4.4.2 ")


@pytest.mark.parametrize("greeting", ["EHLO x", "HELO x", "NOOP"])
async def test_any_login_is_accepted_in_one_go(redis_server: RedisServer, greeting: str) -> None:
    rules = [{"name": "erp", "login": ["erp"], "tag": "erp"}]
    async with front(redis_server, rules=rules, listen={"smtp": [ACCEPT]}) as office:
        dialog = await office.dial()
        await dialog.say(greeting)
        answer = await dialog.say(f"auth plain {b64(chr(0) + 'erp' + chr(0) + 'secret')}")
        assert answer == "235 2.7.0 Any login is accepted here"
        await dialog.say("MAIL FROM:<a@example.com>")
        await dialog.say("RCPT TO:<you@example.net>")
        await dialog.say("DATA")
        dialog.send(MESSAGE + b".\r\n")
        assert (await dialog.reply()).startswith("250 2.0.0 ")
        (kept,) = office.kept()
        assert kept.envelope["rule"] == "erp"
        assert (b"with ESMTPA" in kept.body) == (greeting == "EHLO x")


async def test_auth_plain_and_login_are_accepted_step_by_step(
    redis_server: RedisServer, capfd: pytest.CaptureFixture[str]
) -> None:
    async with front(redis_server, listen={"smtp": [ACCEPT]}) as office:
        plain, login, named = [await office.dial() for _ in range(3)]
        assert "250-AUTH PLAIN LOGIN" in (await plain.say("EHLO x")).split("\n")
        assert (await plain.say("AUTH PLAIN")).startswith("334")
        answer = await plain.say(b64("\0user\0hunter2"))
        assert answer == "235 2.7.0 Any login is accepted here"

        await login.say("EHLO x")
        assert (await login.say("AUTH LOGIN")).startswith("334 ")
        assert (await login.say(b64("user"))).startswith("334 ")
        assert (await login.say(b64("hunter2"))).startswith("235 2.7.0")

        await named.say("EHLO x")
        assert (await named.say(f"AUTH LOGIN {b64('user')}")).startswith("334 ")
        assert (await named.say(b64("hunter2"))).startswith("235 2.7.0")
        assert (await named.mail(MESSAGE)).startswith("250 2.0.0 ")
    shown = capfd.readouterr().err
    assert "hunter2" not in shown
    assert b64("hunter2") not in shown


async def test_auth_that_goes_wrong_leaves_the_session_usable(redis_server: RedisServer) -> None:
    async with front(redis_server, listen={"smtp": [ACCEPT]}) as office:
        dialog = await office.dial()
        await dialog.say("EHLO x")
        assert (await dialog.say("AUTH")).startswith("501 5.5.4")
        assert (await dialog.say("AUTH PLAIN a b")).startswith("501 5.5.4")
        assert (await dialog.say("AUTH CRAM-MD5")).startswith("504 5.5.4")
        assert (await dialog.say("AUTH PLAIN !!!")).startswith("501 5.5.2")
        assert (await dialog.say("AUTH PLAIN AAAA")).startswith("501 5.5.2")
        assert (await dialog.say("AUTH LOGIN")).startswith("334")
        assert (await dialog.say("*")).startswith("501 5.7.0")
        assert (await dialog.say("AUTH LOGIN")).startswith("334")
        assert (await dialog.say("x" * 40_000)).startswith("500 5.5.2")
        assert (await dialog.say(f"AUTH PLAIN {b64(chr(0) + 'u' + chr(0) + 'p')}")).startswith(
            "235"
        )
        assert (await dialog.say("AUTH PLAIN AHUAcA==")).startswith("503 5.5.1")
        assert (await dialog.mail(MESSAGE)).startswith("250 2.0.0 ")
        assert (await dialog.say("MAIL FROM:<a@example.com> AUTH=<>")).startswith("250 2.1.0")


async def test_a_client_that_goes_away_within_auth_is_no_defect(
    redis_server: RedisServer, capfd: pytest.CaptureFixture[str]
) -> None:
    async with front(redis_server, listen={"smtp": [ACCEPT]}) as office:
        for leave in ("reset", "vanish"):
            dialog = await office.dial()
            await dialog.say("AUTH LOGIN")
            getattr(dialog, leave)()
        await wait_until(lambda: office.listener.sessions == 0, what="the sessions are over")
    assert "defect" not in capfd.readouterr().err
    assert HOST
