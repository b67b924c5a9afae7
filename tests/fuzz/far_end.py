"""What the far end says: replies in any pieces, challenges, and a whole dialog about messages."""

import asyncio
from functools import partial

from proxy.mail.address import AddressError, normal_address
from tests.fuzz.session import Wire
from tests.fuzz.target import Choices, Target
from tests.fuzz.texts import ADDRESSES
from worker.replies import MAX_LINE, MAX_REPLY, MAX_TEXT, Reply, ReplyReader, TransactionReplies
from worker.smarthost.connection import Connection
from worker.smarthost.endpoints import Endpoint
from worker.smarthost.sasl import MECHANISMS, Login, SaslFault, start
from worker.smarthost.transaction import Offers, Transaction
from worker.verdict import judge

SAYINGS = (
    b"250 2.0.0 Ok\r\n", b"250 2.1.5 Ok\r\n", b"354 go on\r\n", b"250-", b"250 ",
    b"550 5.1.1 no\r\n", b"450 4.2.1 later\r\n", b"421 4.3.2 bye\r\n", b"503 5.5.1 order\r\n",
    b"452 4.5.3 many\r\n", b"\r\n", b"\n", b"\r", b"\0", b"\xff", b"600 \r\n", b"199 \r\n",
    b"2500\r\n", b"x" * 500, b"\xf0\x9f\x92\xa9", b"\x1b[2J", "\u202e".encode(), b" ",
)  # fmt: skip


def check_replies(octets: bytes) -> None:
    """The same replies however they are cut, storable, within bounds; a fault stays one."""
    choices = Choices(octets)
    step = 1 + choices.number(40)
    octets = choices.rest()
    whole, pieces = ReplyReader(), ReplyReader()
    found = whole.feed(octets)
    again: list[Reply] = []
    for at in range(0, len(octets), step):
        again += pieces.feed(octets[at : at + step])
        assert len(pieces._rest) <= MAX_LINE + step
    assert again == found
    assert bool(pieces.fault) == bool(whole.fault)
    for reply in found:
        assert 200 <= reply.code < 600
        assert len(reply.text) <= MAX_TEXT
        assert len(str(reply).encode()) <= MAX_REPLY
        assert "\n" not in str(reply)
        assert not reply.enhanced or reply.enhanced[0] == str(reply.code)[0]


CHALLENGES = (
    b'nonce="', b'"', b",", b"=", b"realm", b"qop=", b"auth", b"algorithm=md5-sess", b"\\", b" ",
    b"charset=utf-8", b"rspauth=", b'nonce="x",algorithm=md5-sess,qop="auth"', b"\r\n", b"\xff",
    b"<1@h>", b"\0", b"ab" * 200,
)  # fmt: skip
LOGIN = Login("user-8c1f", "secret-77ab", "env TEST_TOKEN")


def check_challenges(octets: bytes) -> None:
    """A login is answered or given up; only DIGEST-MD5's and PLAIN's own words hold a secret."""
    choices = Choices(octets)
    mechanism = MECHANISMS[choices.number(len(MECHANISMS))]
    conversation = start(mechanism, LOGIN, "smtp.example", "0123456789abcdef")
    for challenge in choices.rest().split(b"\n")[:5]:
        try:
            answer = conversation.respond(challenge)
        except SaslFault:
            return
        if mechanism in ("CRAM-MD5", "DIGEST-MD5"):
            assert LOGIN.password.encode() not in answer
    assert conversation.complete in (True, False)


def check_dialog(octets: bytes) -> None:
    """The dot is told exactly when it was written, and never without permission."""
    choices = Choices(octets)
    pipelining = choices.number(3) > 0
    permissions = [choices.number(8) > 0 for _ in range(3)]
    said = [part.split(b"\xfe") for part in choices.rest().split(b"\xff")[:12]]
    written, outcomes = _run(_play(said, permissions, pipelining))
    for number, replies in enumerate(outcomes):
        whole = f"content {number}\r\n.\r\n".encode()
        assert written.count(whole) == replies.dot_sent
        assert written.count(f"content {number}".encode()) == replies.dot_sent
        if replies.dot_sent:
            assert permissions[number]
            assert any(reply.positive for reply in replies.recipients.values())
        judgement = judge(replies, _recipients(number))
        assert not judgement.sent or replies.dot_sent
        assert bool(judgement.unknown) == (replies.dot_sent and replies.final is None)


_run = asyncio.Runner().run


def _recipients(number: int) -> tuple[str, str]:
    return (f"a{number}@example.net", f"b{number}@example.net")


async def _play(
    said: list[list[bytes]], permissions: list[bool], pipelining: bool
) -> tuple[bytes, list[TransactionReplies]]:
    wire = Wire(asyncio.get_running_loop())
    connection = Connection(
        Endpoint("h", 1), wire, Offers(pipelining=pipelining), command_timeout=9, final_timeout=9
    )
    wire.protocol = connection
    futures: list[asyncio.Future[TransactionReplies]] = []

    async def ask(number: int) -> bool:
        return permissions[number]

    def submit() -> None:
        while connection.free_slots and len(futures) < len(permissions):
            number = len(futures)
            content = f"content {number}\r\n".encode()
            futures.append(
                connection.submit(
                    Transaction("s@example.com", _recipients(number), content, partial(ask, number))
                )
            )

    submit()
    for turn in said:
        for _ in range(4):
            await asyncio.sleep(0)
        for octets in turn:
            connection.data_received(octets)
        submit()
    for _ in range(4):
        await asyncio.sleep(0)
    connection.connection_lost(None)
    return wire.said, [await asyncio.wait_for(future, 20) for future in futures]


def check_commands(octets: bytes) -> None:
    """No address in the queue, whoever put it there, becomes a command or a parameter."""
    sender, *recipients = [part.decode("utf-8", "replace") for part in octets.split(b"\xff")[:4]]
    try:
        transaction = Transaction(sender, tuple(dict.fromkeys(recipients)), b"x\r\n", _never)
    except ValueError:
        return
    for address in (transaction.mail_from, *transaction.recipients):
        try:
            assert not address or normal_address(address) == address
        except AddressError as error:
            raise AssertionError(address) from error


async def _never() -> bool:
    return False


TARGETS = (
    Target("replies", check_replies, SAYINGS, 60),
    Target("challenges", check_challenges, CHALLENGES, 60),
    Target("commands", check_commands, (*ADDRESSES, b"\xff", b"> SIZE=1"), 30),
    Target("dialog", check_dialog, (*SAYINGS, b"\xff", b"\xfe", b"250 ok\r\n" * 3), 10),
)
