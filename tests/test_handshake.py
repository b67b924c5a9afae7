"""From an address to a session that may send mail: every way in which that can fail."""

import asyncio
import base64
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.support.far_end import FarEnd
from tests.support.scripted_peer import (
    ENVELOPE_OK,
    EXTENSIONS,
    LOGIN,
    OK_FINAL,
    Peer,
    Script,
    Session,
    ca_file,
    server_context,
)
from worker.replies import ConnectFailure, Phase
from worker.smarthost.endpoints import Endpoint
from worker.smarthost.handshake import ehlo_name
from worker.smarthost.opening import connect
from worker.smarthost.sasl import MECHANISMS, Login
from worker.smarthost.tls import TrustStore, TrustStoreUnusable, client_context
from worker.smarthost.transaction import Transaction
from worker.verdict import Blame, judge_connect


async def failure_of(script: Script, **options: Any) -> tuple[ConnectFailure, Peer]:
    """Connect to a peer that plays `script`, and return how that failed."""
    async with Peer(script) as peer:
        with pytest.raises(ConnectFailure) as failed:
            await peer.connect(**options)
        return failed.value, peer


async def yes() -> bool:
    return True


async def send_one(peer: Peer, **options: Any) -> str:
    connection = await peer.connect(**options)
    try:
        content = b"Subject: x\r\n\r\nx\r\n"
        replies = await connection.submit(
            Transaction("a@b.example", ("c@d.example",), content, yes)
        )
        return str(replies.final)
    finally:
        connection.abort("the test is over")
        await connection.lost


async def take_one(session: Session) -> None:
    await session.envelope()
    await session.say(*ENVELOPE_OK)
    await session.content()
    await session.say(OK_FINAL)


# -- connect -------------------------------------------------------------------------------------


def closed_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


async def connect_to(endpoint: Endpoint, **options: Any) -> None:
    connection = await connect(
        endpoint,
        LOGIN,
        tls=client_context(ca_file()),
        auth=("PLAIN",),
        local_hostname="client.example",
        **options,
    )
    connection.abort("the test is over")
    await connection.lost


async def test_a_closed_port_is_the_endpoints_fault() -> None:
    with pytest.raises(ConnectFailure) as failed:
        await connect_to(Endpoint("127.0.0.1", closed_port()))
    assert failed.value.phase is Phase.CONNECT
    assert failed.value.detail == "Connection refused"
    assert judge_connect(failed.value) is Blame.ENDPOINT


async def test_a_name_that_cannot_be_looked_up_is_the_endpoints_fault() -> None:
    with pytest.raises(ConnectFailure) as failed:
        await connect_to(Endpoint("no..name.invalid", 587))
    assert failed.value.phase is Phase.RESOLVE
    assert judge_connect(failed.value) is Blame.ENDPOINT


async def test_a_lookup_without_an_answer_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silence(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", silence)
    with pytest.raises(ConnectFailure) as failed:
        await connect_to(Endpoint("smtp.example.com", 587), connect_timeout=0.1)
    assert failed.value.phase is Phase.RESOLVE
    assert "within 0.1 s" in failed.value.detail


def swallowing(listener: socket.socket) -> tuple[socket.socket, socket.socket]:
    """Fill the queue of `listener`, so that connects hang as behind a filter; return what fills."""
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    fillers = (socket.socket(), socket.socket())
    for filler in fillers:
        filler.setblocking(False)
        filler.connect_ex(listener.getsockname())
    return fillers


async def test_an_address_that_swallows_packets_costs_one_connect_time_out() -> None:
    with socket.socket() as listener:
        full = swallowing(listener)
        with full[0], full[1]:
            started = asyncio.get_running_loop().time()
            with pytest.raises(ConnectFailure) as failed:
                await connect_to(Endpoint(*listener.getsockname()), connect_timeout=0.3)
            assert failed.value.phase is Phase.CONNECT
            assert failed.value.detail == "no answer within 0.3 s"
            assert asyncio.get_running_loop().time() - started < 3


def addresses(monkeypatch: pytest.MonkeyPatch, *found: tuple[str, int]) -> None:
    """Let the name localhost have the addresses `found`."""
    loop = asyncio.get_running_loop()
    real = loop.getaddrinfo

    async def lookup(host: str, *arguments: Any, **options: Any) -> Any:
        if host != "localhost":
            return await real(host, *arguments, **options)
        return [
            (
                socket.AF_INET6 if ":" in host else socket.AF_INET,
                socket.SOCK_STREAM,
                6,
                "",
                (host, port),
            )
            for host, port in found
        ]

    monkeypatch.setattr(loop, "getaddrinfo", lookup)


async def polite(session: Session) -> None:
    await session.shake_hands()
    await take_one(session)
    await session.until_end()


async def test_a_dead_address_of_a_name_does_not_keep_mail_from_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Peer(polite) as peer:
        addresses(monkeypatch, ("::1", closed_port()), ("127.0.0.1", peer.port))
        assert await send_one(peer, endpoint=Endpoint("localhost", 587)) == OK_FINAL


async def test_an_address_that_swallows_packets_does_not_hold_up_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as listener:
        full = swallowing(listener)
        with full[0], full[1]:
            async with Peer(polite) as peer:
                addresses(monkeypatch, listener.getsockname(), ("127.0.0.1", peer.port))
                endpoint = Endpoint("localhost", 587)
                assert await send_one(peer, endpoint=endpoint, connect_timeout=30) == OK_FINAL


async def test_an_address_that_greets_badly_leads_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def busy(session: Session) -> None:
        await session.say("421 4.3.2 too busy")

    async with Peer(busy) as bad, Peer(polite) as good:
        addresses(monkeypatch, ("127.0.0.1", bad.port), ("127.0.0.1", good.port))
        assert await send_one(good, endpoint=Endpoint("localhost", 587)) == OK_FINAL
        assert bad.connections == 1


async def test_a_name_all_of_whose_addresses_greet_badly_fails_with_the_last_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def busy(session: Session) -> None:
        await session.say("554 5.3.2 go away")

    async with Peer(busy) as one, Peer(busy) as other:
        addresses(monkeypatch, ("127.0.0.1", one.port), ("127.0.0.1", other.port))
        with pytest.raises(ConnectFailure) as failed:
            await one.connect(endpoint=Endpoint("localhost", 587))
        assert str(failed.value) == "greeting: 554 5.3.2 go away"
        assert (one.connections, other.connections) == (1, 1)


# -- greeting and EHLO ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("greeting", "code"),
    [
        (b"554 5.3.2 no service\r\n", 554),
        (b"421 4.3.2 later\r\n", 421),
        (b"HTTP/1.1 400 Bad Request\r\n", None),
        (b"\xff\xfe\x00\r\n", None),
        (b"250 what\r\n", 250),
        (b"x" * 100_000, None),
        (b"220-" + b"x" * 100_000, None),
        (b"", None),
    ],
)
async def test_a_bad_greeting_is_the_endpoints_fault(greeting: bytes, code: int | None) -> None:
    async def script(session: Session) -> None:
        await session.send(greeting)

    failure, peer = await failure_of(script)
    assert failure.phase is Phase.GREETING
    assert (failure.reply and failure.reply.code) == code
    assert judge_connect(failure) is Blame.ENDPOINT
    assert not peer.heard


async def test_silence_instead_of_a_greeting_ends_in_time() -> None:
    async def script(session: Session) -> None:
        await session.until_end()

    failure, _ = await failure_of(script, connect_timeout=0.2)
    assert failure.phase is Phase.GREETING


async def test_silence_is_paid_for_once_and_not_at_every_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def script(session: Session) -> None:
        await session.until_end()

    async with Peer(script) as one, Peer(script) as other:
        addresses(monkeypatch, ("127.0.0.1", one.port), ("127.0.0.1", other.port))
        with pytest.raises(ConnectFailure):
            await one.connect(endpoint=Endpoint("localhost", 587), connect_timeout=0.2)
        assert (one.connections, other.connections) == (1, 0)


async def test_a_refused_ehlo_is_the_endpoints_fault_and_nothing_is_tried_in_clear() -> None:
    async def script(session: Session) -> None:
        await session.say("220 peer.example")
        await session.line()
        await session.say("502 5.5.1 what")
        await session.until_end()

    failure, peer = await failure_of(script)
    assert failure.phase is Phase.EHLO
    assert judge_connect(failure) is Blame.ENDPOINT
    assert peer.heard == ["EHLO client.example"]


@pytest.mark.parametrize(
    ("hostname", "said"),
    [
        ("host.example.com", "host.example.com"),
        ("host", "host"),
        ("bad_name", "[127.0.0.1]"),
        ("", "[127.0.0.1]"),
        ("a b", "[127.0.0.1]"),
        ("x\r\nRSET", "[127.0.0.1]"),
        ("grün.example", "[127.0.0.1]"),
        ("-x", "[127.0.0.1]"),
        ("x" * 300, "[127.0.0.1]"),
    ],
)
def test_ehlo_says_the_hosts_name_where_it_may_be_said(hostname: str, said: str) -> None:
    assert ehlo_name(hostname) == said


# -- STARTTLS ------------------------------------------------------------------------------------


async def test_without_starttls_nothing_is_sent_not_even_a_login() -> None:
    async def script(session: Session) -> None:
        await session.greet("PIPELINING", "AUTH PLAIN LOGIN")
        session.peer.heard.append((await session.until_end()).decode())

    failure, peer = await failure_of(script)
    assert failure.phase is Phase.OFFER
    assert judge_connect(failure) is Blame.HOST
    assert str(failure) == "STARTTLS not offered: nothing is sent in clear"
    assert peer.heard[0] == "EHLO client.example"
    assert "".join(peer.heard[1:]) == ""


@pytest.mark.parametrize(
    ("reply", "code"), [("454 4.7.0 TLS not available", 454), ("500 5.5.1 no", 500)]
)
async def test_a_refused_starttls_is_the_endpoints_fault(reply: str, code: int) -> None:
    async def script(session: Session) -> None:
        await session.greet()
        await session.line()
        await session.say(reply)
        await session.until_end()

    failure, _ = await failure_of(script)
    assert failure.phase is Phase.STARTTLS
    assert failure.reply is not None
    assert failure.reply.code == code
    assert judge_connect(failure) is Blame.ENDPOINT


async def test_a_broken_handshake_is_the_endpoints_fault() -> None:
    async def script(session: Session) -> None:
        await session.greet()
        await session.line()
        await session.say("220 go")
        await session.send(b"this is no TLS\r\n" * 10)
        await session.until_end()

    failure, _ = await failure_of(script)
    assert failure.phase in (Phase.HANDSHAKE, Phase.STARTTLS)
    assert judge_connect(failure) is Blame.ENDPOINT


@pytest.mark.parametrize(
    ("context", "words"),
    [
        (server_context("smtp.elsewhere.example"), "IP address mismatch"),
        (server_context("127.0.0.1", signed_by=trustme.CA()), "ca_file"),
    ],
    ids=["another name", "unknown authority"],
)
async def test_a_certificate_that_is_not_verified_is_the_hosts_fault_and_gets_no_login(
    context: ssl.SSLContext, words: str
) -> None:
    async def script(session: Session) -> None:
        await session.greet()
        await session.start_tls(context)
        await session.line()  # fails: the client leaves before it

    failure, peer = await failure_of(script)
    assert failure.phase is Phase.CERTIFICATE
    assert judge_connect(failure) is Blame.HOST
    assert words in failure.detail
    assert peer.heard == ["EHLO client.example", "STARTTLS"]


def test_old_tls_is_not_spoken_and_nothing_goes_unverified() -> None:
    assert client_context(ca_file()).minimum_version == ssl.TLSVersion.TLSv1_2
    assert client_context(ca_file()).check_hostname
    assert client_context().verify_mode is ssl.CERT_REQUIRED


async def test_replies_slipped_in_before_tls_are_not_believed() -> None:
    async def script(session: Session) -> None:
        await session.greet()
        await session.line()
        await session.say("220 go", "250-evil.example", "250-PIPELINING", "250 AUTH EVIL", "235 in")
        await session.writer.start_tls(server_context())
        await session.answer_ehlo("AUTH PLAIN")
        assert (await session.line()).startswith("AUTH PLAIN ")
        await session.say("235 2.7.0 ok")
        await session.until_end()

    async with Peer(script) as peer:
        connection = await peer.connect()
        assert not connection.offers.pipelining
        connection.abort("the test is over")
        await connection.lost


async def test_what_was_offered_before_tls_does_not_count() -> None:
    async def script(session: Session) -> None:
        await session.greet("STARTTLS", "AUTH PLAIN", *EXTENSIONS)
        await session.start_tls()
        await session.answer_ehlo("SIZE")
        await session.until_end()

    failure, _ = await failure_of(script)
    assert failure.phase is Phase.MECHANISM
    assert judge_connect(failure) is Blame.CREDENTIALS
    assert failure.certificate_expiry is not None


# -- AUTH ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", MECHANISMS)
async def test_each_mechanism_logs_in_at_the_sandbox(mechanism: str) -> None:
    async with FarEnd() as far_end:
        connection = await connect(
            Endpoint("127.0.0.1", far_end.ports[0]),
            Login(far_end.token, far_end.token),
            tls=client_context(str(far_end.ca_file)),
            auth=(mechanism,),
            local_hostname="client.example",
        )
        assert [(one.mechanism, one.accepted) for one in far_end.logins] == [(mechanism, True)]
        await connection.close()


def auth_script(offered: str, *answers: str) -> Script:
    async def script(session: Session) -> None:
        await session.greet()
        await session.start_tls()
        await session.answer_ehlo(f"AUTH {offered}")
        for answer in answers:
            await session.line()
            await session.say(answer)
        await session.until_end()

    return script


async def test_the_first_configured_mechanism_that_is_offered_is_used() -> None:
    async def script(session: Session) -> None:
        await session.greet()
        await session.start_tls()
        await session.answer_ehlo("AUTH LOGIN CRAM-MD5 XOAUTH2")
        assert await session.line() == "AUTH CRAM-MD5"
        await session.say("535 5.7.8 no")
        assert await session.until_end() == b""

    failure, _ = await failure_of(script, auth=("PLAIN", "CRAM-MD5", "LOGIN"))
    assert failure.phase is Phase.AUTH


async def test_the_prompt_that_a_refusal_repeats_is_not_shown() -> None:
    said = "535 5.7.8 Error: authentication failed: UGFzc3dvcmQ6"
    failure, _ = await failure_of(auth_script("PLAIN", said))
    assert str(failure.reply) == "535 5.7.8 Error: authentication failed"
    assert str(failure).endswith("authentication failed")


async def test_a_refused_login_is_not_tried_by_another_mechanism() -> None:
    failure, peer = await failure_of(auth_script("PLAIN LOGIN CRAM-MD5", "535 5.7.8 no"))
    assert failure.phase is Phase.AUTH
    assert str(failure.reply) == "535 5.7.8 no"
    assert judge_connect(failure) is Blame.CREDENTIALS
    assert len([line for line in peer.heard if line.startswith("AUTH")]) == 1


async def test_no_common_mechanism_names_what_is_offered() -> None:
    failure, _ = await failure_of(auth_script("XOAUTH2 GSSAPI"), auth=("PLAIN", "LOGIN"))
    assert failure.phase is Phase.MECHANISM
    assert failure.detail == "offered: XOAUTH2 GSSAPI; configured: PLAIN LOGIN"


@pytest.mark.parametrize(
    ("reply", "blame"),
    [
        ("535 5.7.8 Error: authentication failed", Blame.CREDENTIALS),
        ("534 5.7.9 too weak", Blame.CREDENTIALS),
        ("538 5.7.11 encrypt first", Blame.CREDENTIALS),
        ("504 5.5.4 no such mechanism", Blame.CREDENTIALS),
        ("432 4.7.12 change your password", Blame.CREDENTIALS),
        ("454 4.7.0 Temporary authentication failure", Blame.ENDPOINT),
        ("421 4.7.0 too many failures", Blame.ENDPOINT),
        ("451 4.3.0 later", Blame.ENDPOINT),
    ],
)
async def test_who_is_to_blame_for_a_login_that_fails(reply: str, blame: Blame) -> None:
    failure, _ = await failure_of(auth_script("PLAIN", reply))
    assert failure.phase is Phase.AUTH
    assert str(failure.reply) == reply
    assert judge_connect(failure) is blame


async def test_a_drop_during_auth_is_the_endpoints_fault() -> None:
    async def script(session: Session) -> None:
        await session.greet()
        await session.start_tls()
        await session.answer_ehlo("AUTH PLAIN")
        await session.line()
        session.drop()

    failure, _ = await failure_of(script)
    assert failure.phase is Phase.AUTH
    assert failure.reply is None
    assert judge_connect(failure) is Blame.ENDPOINT


def challenge(text: bytes) -> str:
    return f"334 {base64.b64encode(text).decode()}"


DIGEST = b'realm="r",nonce="n1",qop="auth",charset=utf-8,algorithm=md5-sess'


@pytest.mark.parametrize(
    "answers",
    [
        (challenge(DIGEST), challenge(b"rspauth=00000000000000000000000000000000")),
        (challenge(DIGEST), "235 2.7.0 ok"),
        (challenge(b"nonsense"),),
        ("334 ***",),
        ("235 2.7.0 ok",),
    ],
    ids=["wrong proof", "no proof", "unreadable", "not base64", "no challenge"],
)
async def test_a_server_that_proves_nothing_in_digest_md5_gets_no_mail(
    answers: tuple[str, ...],
) -> None:
    failure, peer = await failure_of(auth_script("DIGEST-MD5", *answers))
    assert failure.phase is Phase.PROOF
    assert judge_connect(failure) is Blame.CREDENTIALS
    assert not any(line.startswith("MAIL") for line in peer.heard)


async def test_endless_challenges_end() -> None:
    failure, peer = await failure_of(auth_script("LOGIN", *[challenge(b"Username:")] * 50))
    assert failure.phase is Phase.PROOF
    assert len(peer.heard) < 10


async def test_no_failure_repeats_what_the_server_repeated_of_the_login() -> None:
    plain = base64.b64encode(f"\0{LOGIN.user}\0{LOGIN.password}".encode()).decode()
    failure, _ = await failure_of(
        auth_script("PLAIN", f"501 5.5.2 what is AUTH PLAIN {plain} {LOGIN.password} {LOGIN.user}?")
    )
    assert str(failure) == "AUTH: 501 5.5.2 what is AUTH PLAIN *** *** ***?"
    assert str(failure.reply) == "501 5.5.2 what is AUTH PLAIN *** *** ***?"
    assert failure.__cause__ is None


def test_a_login_shown_by_mistake_shows_no_secret() -> None:
    assert repr(LOGIN) == "Login(name='env TEST_TOKEN')"


async def test_without_a_login_there_is_no_auth() -> None:
    async def script(session: Session) -> None:
        await session.greet()
        await session.start_tls()
        await session.answer_ehlo("AUTH PLAIN")
        assert await session.line() == "QUIT"
        await session.say("221 bye")

    async with Peer(script) as peer:
        connection = await peer.connect(login=None)
        assert connection.certificate_expiry is not None
        await connection.close()
        assert peer.heard[-1] == "QUIT"


async def test_a_cancelled_connect_leaves_nothing_open() -> None:
    ended = asyncio.Event()

    async def script(session: Session) -> None:
        await session.say("220 peer.example")
        await session.line()
        await session.until_end()
        ended.set()

    async with Peer(script) as peer:
        attempt = asyncio.create_task(peer.connect())
        while not peer.heard:
            await asyncio.sleep(0)
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
        await asyncio.wait_for(ended.wait(), 5)


# -- the trust store -----------------------------------------------------------------------------


def test_an_unusable_ca_file_is_named(tmp_path: Any) -> None:
    with pytest.raises(TrustStoreUnusable, match=r"nothere\.pem: No such file"):
        client_context(str(tmp_path / "nothere.pem"))
    empty = tmp_path / "empty.pem"
    empty.write_text("no certificate\n")
    with pytest.raises(TrustStoreUnusable, match=r"empty\.pem"):
        client_context(str(empty))


async def test_a_trust_store_that_was_mended_is_seen_without_a_restart(tmp_path: Any) -> None:
    path = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    store = TrustStore(str(path))
    async with Peer(polite) as peer:
        with pytest.raises(ConnectFailure):
            await peer.connect(tls=store.context())
        path.write_text(Path(ca_file()).read_text() + "\n")
        assert await send_one(peer, tls=store.context()) == OK_FINAL
        assert store.context() is store.context()
