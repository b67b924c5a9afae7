"""`sendmail -bs`: SMTP on standard input and output, with the proxy at the other end of it."""

import os
import select
from _collections_abc import Sequence

from proxy.sendmail import wire
from proxy.sendmail.exits import EX_UNAVAILABLE
from proxy.sendmail.output import write_all


def pass_through(addresses: Sequence[str]) -> int:
    """Carry octets between standard input, output and the proxy until it ends the dialog.

    The proxy sees the user who runs this as its client, so that rules by user hold.
    """
    try:
        connection = wire.connect(addresses)
    except wire.NotKeptError:
        write_all(1, b"421 4.3.2 Franker's proxy does not answer; try again later\r\n")
        return EX_UNAVAILABLE
    socket = connection.socket
    socket.settimeout(None)
    write_all(1, connection.greeting + connection.unread)
    sources = [0, socket.fileno()]
    try:
        while True:
            ready, _, _ = select.select(sources, [], [])
            if socket.fileno() in ready:
                octets = socket.recv(65536)
                if not octets:
                    return 0
                write_all(1, octets)
            if 0 in ready:
                octets = os.read(0, 65536)
                if octets:
                    socket.sendall(octets)
                else:
                    sources.remove(0)
                    socket.shutdown(wire.SHUT_WR)
    except OSError:
        return EX_UNAVAILABLE
    finally:
        connection.close()
