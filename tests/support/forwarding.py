"""A door to something on loopback for those who cannot reach loopback, such as containers."""

import contextlib
import socket
import threading
from collections.abc import Mapping


class Forwarding:
    """Passes octets from ports of `address` on to ports of 127.0.0.1, until closed."""

    def __init__(self, address: str, ports: Mapping[int, int]) -> None:
        self._listening = [(socket.create_server((address, port)), ports[port]) for port in ports]
        self._threads = [
            threading.Thread(target=_accept, args=pair, daemon=True) for pair in self._listening
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Take no more connections; those there are end with their ends."""
        for listening, _ in self._listening:
            listening.shutdown(socket.SHUT_RDWR)
            listening.close()
        for thread in self._threads:
            thread.join(10)


def _accept(listening: socket.socket, target: int) -> None:
    while True:
        try:
            client, _ = listening.accept()
        except OSError:
            return
        threading.Thread(target=_pass_on, args=(client, target), daemon=True).start()


def _pass_on(client: socket.socket, target: int) -> None:
    with (
        client,
        contextlib.suppress(OSError),
        socket.create_connection(("127.0.0.1", target)) as server,
    ):
        back = threading.Thread(target=_pump, args=(server, client), daemon=True)
        back.start()
        _pump(client, server)
        back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while octets := source.recv(65536):
            target.sendall(octets)
    # Whichever way it ended: the other direction learns of it.
    for one in (source, target):
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
