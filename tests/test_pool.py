"""The first connections to a far end: one goes ahead, the others follow it."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.config.model import Postmark
from proxy.config.secrets import Secret
from tests.support.scripted_peer import Peer, Script, Session, ca_file
from tests.support.waiting import wait_until
from worker.pauses import Reason
from worker.smarthost.host import Budget, Logins, RouteClosed, Smarthost, Way
from worker.smarthost.pool import Pool
from worker.smarthost.sasl import Login
from worker.smarthost.tls import TrustStore

WIDTH = 4
IN = "235 2.7.0 Authentication successful"
NOT_IN = "535 5.7.8 Authentication failed"


class Relayed:
    """A pool that is to have WIDTH connections to a peer, and what became of it."""

    def __init__(self, peer: Peer, tokens: tuple[Path, ...]) -> None:
        way = Way("127.0.0.1", tuple((Secret(file=str(at)), Secret(file=str(at))) for at in tokens))
        smarthost = Smarthost(
            way.host, Postmark(ports=(peer.port,)), TrustStore(ca_file()), "client.example"
        )
        self.let_in: list[Login] = []
        self.failures: list[tuple[RouteClosed, int]] = []
        budget = Budget(lambda: WIDTH)
        self.pool = Pool(smarthost, Logins(way), budget, self._in, self._failed, self.grow)

    def grow(self) -> None:
        if not self.failures:
            self.pool.grow(WIDTH, WIDTH)

    def _in(self, login: Login) -> None:
        self.let_in.append(login)
        self.grow()

    def _failed(self, closed: RouteClosed) -> None:
        self.failures.append((closed, self.pool.reached))


@asynccontextmanager
async def relaying(script: Script, *tokens: Path) -> AsyncIterator[tuple[Peer, Relayed]]:
    async with Peer(script) as peer:
        relayed = Relayed(peer, tokens)
        relayed.grow()
        try:
            yield peer, relayed
        finally:
            await relayed.pool.close()


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("token-1")
    return path


def logins(peer: Peer) -> list[str]:
    """Return the passwords that `peer` was shown."""
    lines = [line for line in peer.heard if line.startswith("AUTH PLAIN ")]
    return [base64.b64decode(line.split()[2]).split(b"\0")[2].decode() for line in lines]


async def stays(condition: Callable[[], bool]) -> None:
    """Fail if `condition` ends within a moment."""
    with pytest.raises(AssertionError, match="still not"):
        await wait_until(lambda: not condition(), 0.15)


async def up_to_login(session: Session) -> None:
    """Do everything until a login is shown."""
    await session.greet()
    await session.start_tls()
    await session.answer_ehlo(*session.peer.extensions, "AUTH PLAIN")
    await session.line()


def answering(verdict: str, when: asyncio.Event) -> Script:
    """Return a script that answers every login by `verdict`, but not before `when`."""

    async def script(session: Session) -> None:
        await up_to_login(session)
        await when.wait()
        await session.say(verdict)
        await session.line()  # QUIT, or the end

    return script


async def test_a_far_end_that_does_not_answer_costs_one_attempt(token: Path) -> None:
    async def script(session: Session) -> None:
        await session.until_end()

    async with relaying(script, token) as (peer, relayed):
        await wait_until(lambda: peer.connections)
        relayed.grow()
        await stays(lambda: peer.connections == len(relayed.pool) == 1)


async def test_the_others_set_out_once_the_far_end_has_answered_the_first(token: Path) -> None:
    answered = asyncio.Event()

    async def script(session: Session) -> None:
        if session.peer.connections == 1:
            await session.say("220 peer.example ESMTP")
            await answered.wait()
            await session.answer_ehlo("STARTTLS")
        await session.until_end()  # none comes further than that

    async with relaying(script, token) as (peer, relayed):
        await wait_until(lambda: peer.connections)
        relayed.grow()
        await stays(lambda: peer.connections == 1)
        answered.set()
        await wait_until(lambda: peer.connections == WIDTH)


async def test_a_far_end_without_tls_costs_one_attempt(token: Path) -> None:
    async def script(session: Session) -> None:
        await session.greet("PIPELINING")
        await session.until_end()

    async with relaying(script, token) as (peer, relayed):
        await wait_until(lambda: relayed.failures)
        assert peer.connections == 1
        assert [closed.reason for closed, _ in relayed.failures] == [Reason.TLS]


async def test_the_others_log_in_once_the_first_was_let_in(token: Path) -> None:
    let_in = asyncio.Event()
    async with relaying(answering(IN, let_in), token) as (peer, relayed):
        await wait_until(lambda: sum(line.startswith("EHLO") for line in peer.heard) == 2 * WIDTH)
        await stays(lambda: logins(peer) == ["token-1"])
        let_in.set()
        await wait_until(lambda: relayed.pool.reached == WIDTH)
        assert peer.connections == len(logins(peer)) == len(relayed.let_in) == WIDTH
        assert not relayed.failures


async def test_a_refused_password_is_shown_once_and_told_once(token: Path) -> None:
    refused = asyncio.Event()
    async with relaying(answering(NOT_IN, refused), token) as (peer, relayed):
        await wait_until(lambda: peer.connections == WIDTH)
        await wait_until(lambda: logins(peer))
        refused.set()
        await wait_until(lambda: relayed.failures)
        await wait_until(lambda: not len(relayed.pool))
        await relayed.pool.close()
        assert logins(peer) == ["token-1"]
        assert [closed.reason for closed, _ in relayed.failures] == [Reason.CREDENTIALS]


async def test_a_refusal_of_the_first_ends_attempts_that_wait_for_the_far_end(token: Path) -> None:
    refused = asyncio.Event()
    left = 0

    async def script(session: Session) -> None:
        nonlocal left
        if session.peer.connections > 1:
            await session.until_end()
            left += 1
        else:
            await up_to_login(session)
            await refused.wait()
            await session.say(NOT_IN)

    async with relaying(script, token) as (peer, relayed):
        await wait_until(lambda: peer.connections == WIDTH)
        refused.set()
        await wait_until(lambda: relayed.failures)
        assert not relayed.pool.opening
        await wait_until(lambda: left == WIDTH - 1, 5.0)  # before its patience with them ends


async def test_attempts_that_wait_give_way_to_other_logins_with_mail(token: Path) -> None:
    async def script(session: Session) -> None:
        await up_to_login(session)
        await session.until_end()

    async with relaying(script, token) as (peer, relayed):
        await wait_until(lambda: peer.connections == WIDTH)
        relayed.pool.tidy(0.0, 2)
        assert len(relayed.pool) == 2
        relayed.pool.tidy(0.0, 0)
        assert len(relayed.pool) == 1  # the one ahead goes on


async def test_where_a_second_login_is_let_in_the_first_is_not_shown_again(
    token: Path, tmp_path: Path
) -> None:
    second = tmp_path / "second"
    second.write_text("token-2")
    refused = asyncio.Event()

    async def script(session: Session) -> None:
        await up_to_login(session)
        if logins(session.peer) == ["token-1"]:
            await refused.wait()
            await session.say(NOT_IN)
        else:
            await session.say(IN)
        await session.line()  # QUIT

    async with relaying(script, token, second) as (peer, relayed):
        await wait_until(lambda: peer.connections == WIDTH and logins(peer))
        refused.set()
        await wait_until(lambda: relayed.pool.reached == WIDTH)
        assert logins(peer) == ["token-1", *["token-2"] * WIDTH]
        assert {login.password for login in relayed.let_in} == {"token-2"}
        assert not relayed.failures


async def test_what_the_others_are_refused_counts_after_the_word_to_the_first(token: Path) -> None:
    let_in = asyncio.Event()
    turned_away = 0

    async def script(session: Session) -> None:
        nonlocal turned_away
        if session.peer.connections > 1:
            await session.say("421 4.7.0 too many connections")
            turned_away += 1
        else:
            await up_to_login(session)
            await let_in.wait()
            await session.say(IN)
        await session.line()  # QUIT

    async with relaying(script, token) as (_, relayed):
        await wait_until(lambda: turned_away == WIDTH - 1)
        await stays(lambda: not relayed.failures)
        let_in.set()
        await wait_until(lambda: len(relayed.failures) == WIDTH - 1)
        told = {(closed.reason, reached) for closed, reached in relayed.failures}
        assert told == {(Reason.UNREACHABLE, 1)}
