"""Who may come in, and who it is: networks, IPv6, unix sockets, local users."""

import asyncio
import os
import pwd
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.config.model import ListenAddress
from proxy.listener import peer
from proxy.listener.sockets import Bound
from tests.support.listening import MESSAGE, Dialog, front
from tests.support.redis_server import RedisServer


async def test_a_client_that_is_not_allowed_hears_554_and_nothing_else(
    redis_server: RedisServer, capfd: pytest.CaptureFixture[str]
) -> None:
    async with front(redis_server, listen={"allow": ["192.0.2.0/24"]}) as office:
        dialog = await office.dial(greeted=False)
        dialog.send(b"EHLO x\r\n")
        assert await dialog.reply() == "554 5.7.1 This client may not send mail here (listen.allow)"
        assert await dialog.ended()
    assert "client_refused client=127.0.0.1" in capfd.readouterr().err


async def test_an_address_may_have_an_allow_list_of_its_own(redis_server: RedisServer) -> None:
    smtp = [
        {"address": "127.0.0.1:0", "allow": ["127.0.0.1"]},
        {"address": "127.0.0.1:0", "allow": ["10.0.0.0/8"]},
    ]
    async with front(redis_server, listen={"smtp": smtp, "allow": ["192.0.2.1"]}) as office:
        dialog = await office.dial(0)
        assert (await dialog.mail(MESSAGE)).startswith("250 2.0.0 ")
        other = await office.dial(1, greeted=False)
        assert (await other.reply()).startswith("554 5.7.1 ")


async def test_ipv6_is_served(redis_server: RedisServer) -> None:
    async with front(redis_server, listen={"smtp": ["[::1]:0"]}) as office:
        dialog = await office.dial()
        assert (await dialog.mail(MESSAGE)).startswith("250 2.0.0 ")
        (kept,) = office.kept()
        assert kept.envelope["by"] == "::1"


async def test_an_ipv4_client_on_an_ipv6_socket_is_matched_as_ipv4(
    redis_server: RedisServer,
) -> None:
    rules = [{"name": "four", "client": ["127.0.0.1"], "stream": "outbound", "tag": "four"}]
    # As systemd passes it: one socket for both.
    both = socket.socket(socket.AF_INET6)
    both.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    both.bind(("::", 0))
    both.listen()
    both.setblocking(False)
    passed = [Bound(both, ListenAddress(address="[::]:0"))]
    listen = {"allow": ["127.0.0.0/8"]}
    async with front(redis_server, rules=rules, listen=listen, sockets=passed) as office:
        streams = await asyncio.open_connection("127.0.0.1", office.ports[0])
        dialog = Dialog(*streams)
        office.dialogs.append(dialog)
        assert (await dialog.reply()).startswith("220 ")
        assert (await dialog.mail(MESSAGE)).startswith("250 2.0.0 ")
        (kept,) = office.kept()
        assert kept.envelope["by"] == "127.0.0.1"
        assert kept.envelope["rule"] == "four"


async def test_a_unix_socket_is_served_to_every_user(redis_server: RedisServer) -> None:
    path = redis_server.data_dir / "smtp.sock"
    async with front(redis_server, listen={"smtp": [f"unix:{path}"]}) as office:
        assert path.stat().st_mode & 0o777 == 0o666
        dialog = await office.dial()
        assert (await dialog.mail(MESSAGE)).startswith("250 2.0.0 ")
        (kept,) = office.kept()
        assert kept.envelope["by"] == "unix"


@pytest.mark.parametrize("where", ["127.0.0.1:0", "[::1]:0", "unix"])
async def test_a_rule_can_ask_for_the_local_user(redis_server: RedisServer, where: str) -> None:
    name = pwd.getpwuid(os.getuid()).pw_name
    rules = [{"name": "mine", "user": [name], "tag": "mine"}]
    if where == "unix":
        where = f"unix:{redis_server.data_dir / 'smtp.sock'}"
    async with front(redis_server, rules=rules, listen={"smtp": [where]}) as office:
        dialog = await office.dial()
        assert (await dialog.mail(MESSAGE)).startswith("250 2.0.0 ")
        (kept,) = office.kept()
        assert kept.envelope["rule"] == "mine"


async def test_a_rule_can_ask_for_a_uid(redis_server: RedisServer) -> None:
    rules = [{"name": "mine", "user": [str(os.getuid())], "tag": "mine"}]
    async with front(redis_server, rules=rules) as office:
        assert (await (await office.dial()).mail(MESSAGE)).startswith("250 2.0.0 ")
        (kept,) = office.kept()
        assert kept.envelope["rule"] == "mine"


CONNECT = """
import encodings.idna, os, socket, sys
os.setuid(int(sys.argv[1]))
one = socket.create_connection((sys.argv[2], int(sys.argv[3])))
sys.stdin.read()
"""


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("ask", [peer._ask_kernel, peer._read_proc])
def test_both_ways_to_ask_find_another_users_socket(host: str, ask: object) -> None:
    uid = 54321 if os.getuid() == 0 else os.getuid()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as server:
        port = server.getsockname()[1]
        client = subprocess.Popen(
            [sys.executable, "-c", CONNECT, str(uid), host, str(port)], stdin=subprocess.PIPE
        )
        try:
            server.settimeout(20)
            connection, address = server.accept()
            with connection:
                ends = (address[:2], (host, port))
                assert callable(ask)
                assert ask(family, *ends) == uid
                assert peer.local_uid(*ends) == uid
                assert ask(family, (host, 1), (host, port)) is None
        finally:
            client.communicate()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("ask", [peer._ask_kernel, peer._read_proc])
def test_a_socket_that_its_program_has_closed_is_nobodys_and_not_roots(
    host: str, ask: Callable[..., int | None]
) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as server:
        here = (host, server.getsockname()[1])
        client = socket.create_connection(here)
        connection, address = server.accept()
        with connection:
            assert ask(family, address[:2], here) == os.getuid()
            client.close()
            assert ask(family, address[:2], here) is None
            assert peer.local_uid(address[:2], here) is None


async def test_a_program_that_does_not_wait_for_the_last_reply_is_known_all_the_same(
    redis_server: RedisServer,
) -> None:
    loop = asyncio.get_running_loop()
    rules = [{"name": "mine", "user": [str(os.getuid())], "tag": "mine"}]
    async with front(redis_server, rules=rules) as office:
        client = socket.create_connection(("127.0.0.1", office.ports[0]))
        client.setblocking(False)
        for line in (b"", b"MAIL FROM:<a@example.com>\r\n", b"RCPT TO:<b@c.org>\r\n", b"DATA\r\n"):
            client.send(line)
            assert (await loop.sock_recv(client, 1000))[:1] in (b"2", b"3")
        client.send(MESSAGE + b".\r\n")
        client.close()  # before the listener has its turn to look
        assert (await office.one_kept()).envelope["rule"] == "mine"


def test_a_mapped_client_is_found_in_the_other_family() -> None:
    with socket.socket(socket.AF_INET6) as both:
        both.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        both.bind(("::", 0))
        both.listen()
        port = both.getsockname()[1]
        client = socket.socket(socket.AF_INET6)
        client.connect(("::ffff:127.0.0.1", port))
        with client:
            connection, address = both.accept()
            with connection:
                assert peer.plain_address(address[0]) == "127.0.0.1"
                found = peer.local_uid(("127.0.0.1", address[1]), ("127.0.0.1", port))
                assert found == os.getuid()


def test_a_client_of_another_host_has_no_uid() -> None:
    assert peer.local_uid(("192.0.2.1", 1234), ("192.0.2.2", 25)) is None


@pytest.mark.parametrize(
    ("host", "plain"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::1", "::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("2001:db8:0:0:0:0:0:1", "2001:db8::1"),
    ],
)
def test_addresses_are_shown_in_their_shortest_form(host: str, plain: str) -> None:
    assert peer.plain_address(host) == plain


def test_a_uid_without_a_name_has_none() -> None:
    assert peer.user_name(54321) == ""
    assert peer.user_name(os.getuid()) == pwd.getpwuid(os.getuid()).pw_name
    assert Path("/proc/net/tcp").exists()
