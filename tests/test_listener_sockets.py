"""Where the listener listens: bound by itself, passed by systemd, or said why not."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.config.model import ListenAddress
from proxy.listener.sockets import BindError, Bound, open_sockets


@contextlib.contextmanager
def opened(*addresses: str, environ: dict[str, str] | None = None) -> Iterator[list[Bound]]:
    said: list[str] = []
    bound = open_sockets(
        [ListenAddress(address=one) for one in addresses], environ or {}, said.append
    )
    try:
        yield bound
        assert said == []
    finally:
        for one in bound:
            one.socket.close()


def test_each_address_has_its_socket_and_its_real_port() -> None:
    with opened("127.0.0.1:0", "[::1]:0") as (four, six):
        assert four.name.startswith("127.0.0.1:")
        assert six.name.startswith("[::1]:")
        assert not four.name.endswith(":0")
        with socket.create_connection(("127.0.0.1", int(four.name.rpartition(":")[2]))):
            pass
        with socket.create_connection(("::1", int(six.name.rpartition(":")[2]))):
            pass


def test_the_ipv6_wildcard_takes_ipv4_too() -> None:
    with opened("[::]:0") as (both,):
        port = int(both.name.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=10):
            pass


def test_the_ipv6_wildcard_leaves_ipv4_to_an_address_that_is_listed_on_its_port() -> None:
    with opened("[::1]:0") as (found,):
        port = found.name.rpartition(":")[2]
    with opened(f"[::]:{port}", f"127.0.0.1:{port}") as bound:
        assert [one.name for one in bound] == [f"[::]:{port}", f"127.0.0.1:{port}"]


def test_a_host_without_ipv6_says_so_and_listens_on_the_rest() -> None:
    said: list[str] = []
    # An address that is not of this host gives the same error as a host without IPv6.
    addresses = [ListenAddress(address="127.0.0.1:0"), ListenAddress(address="[2001:db8::1]:0")]
    bound = open_sockets(addresses, {}, said.append)
    assert [one.name.rpartition(":")[0] for one in bound] == ["127.0.0.1"]
    assert said == ["no IPv6 on this host: [2001:db8::1]:0 is not listened on"]
    bound[0].socket.close()


def test_a_port_that_is_taken_is_named_with_the_reason() -> None:
    with opened("127.0.0.1:0") as (taken,):
        with pytest.raises(BindError) as caught, opened("127.0.0.1:0", taken.name):
            pass
        assert str(caught.value) == (
            f"listen.smtp: {taken.name}: another program listens there already; "
            "stop it or choose another address"
        )


def test_no_address_at_all_is_an_error() -> None:
    with pytest.raises(BindError, match="no address to listen on"), opened():
        pass


def test_a_unix_socket_left_over_is_replaced(data_dir: Path) -> None:
    path = data_dir / "smtp.sock"
    for _ in range(2):
        with opened(f"unix:{path}") as (one,):
            assert one.is_unix
            assert one.name == f"unix:{path}"
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))


def test_a_unix_socket_in_use_is_left_alone(data_dir: Path) -> None:
    path = data_dir / "smtp.sock"
    with opened(f"unix:{path}"):
        with (
            pytest.raises(BindError, match="another program listens there"),
            opened(f"unix:{path}"),
        ):
            pass
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_a_file_in_the_place_of_a_unix_socket_is_never_removed(data_dir: Path) -> None:
    path = data_dir / "smtp.sock"
    path.write_text("precious")
    with pytest.raises(BindError), opened(f"unix:{path}"):
        pass
    assert path.read_text() == "precious"


PASSED = """
import os, socket, sys
from proxy.config.model import ListenAddress
from proxy.listener.sockets import open_sockets
os.environ["LISTEN_PID"] = str(os.getpid())
addresses = [ListenAddress(address=one, auth="accept") for one in (sys.argv[1], "127.0.0.1:1")]
for one in open_sockets(addresses, os.environ, print):
    print(one.name, one.settings.auth or "-", os.get_inheritable(one.socket.fileno()))
"""


def run_with(sockets: list[socket.socket], *arguments: str) -> list[str]:
    """Run PASSED with `sockets` as systemd passes them: from descriptor 3 on."""

    def place() -> None:
        for number, one in enumerate(sockets):
            os.dup2(one.fileno(), 100 + number)
        for number in range(len(sockets)):
            os.dup2(100 + number, 3 + number)

    done = subprocess.run(
        [sys.executable, "-c", PASSED, *arguments],
        env=os.environ | {"LISTEN_FDS": str(len(sockets))},
        preexec_fn=place,
        close_fds=False,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_sockets_passed_by_systemd_win_over_the_addresses(data_dir: Path) -> None:
    path = data_dir / "smtp.sock"
    with (
        socket.create_server(("127.0.0.1", 0)) as four,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as six,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        unix.bind(str(path))
        unix.listen()
        name = f"127.0.0.1:{four.getsockname()[1]}"
        assert run_with([four, six, unix], name) == [
            f"{name} accept False",
            f"[::1]:{six.getsockname()[1]} - False",
            f"unix:{path} - False",
        ]


def test_sockets_passed_to_another_process_are_not_ours() -> None:
    with opened("127.0.0.1:0", environ={"LISTEN_PID": "1", "LISTEN_FDS": "1"}) as (one,):
        assert one.name.startswith("127.0.0.1:")


UNPRIVILEGED = """
import os, sys
import encodings.idna
from proxy.config.model import ListenAddress
from proxy.listener.sockets import BindError, open_sockets
if os.getuid() == 0:
    os.setgid(54321)
    os.setuid(54321)
try:
    for one in open_sockets([ListenAddress(address=sys.argv[1])], {}, print):
        print(one.name)
except BindError as error:
    print(error)
"""


def first_free_port() -> int:
    return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())


def as_nobody(address: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", UNPRIVILEGED, address], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def test_without_the_right_to_port_25_it_is_2525_and_said() -> None:
    said = as_nobody("127.43.25.25:25")
    if first_free_port() <= 25:  # in many containers everybody has the right
        assert said == ["127.43.25.25:25"]
        return
    assert said == [
        "no right to listen on 127.43.25.25:25: port 2525 is used instead",
        "127.43.25.25:2525",
    ]


def test_without_the_right_to_another_low_port_it_is_an_error() -> None:
    (said,) = as_nobody("127.43.25.25:26")
    if first_free_port() <= 26:
        assert said == "127.43.25.25:26"
        return
    assert said == (
        "listen.smtp: 127.43.25.25:26: no right to listen there "
        "(a port under 1024 needs CAP_NET_BIND_SERVICE)"
    )
