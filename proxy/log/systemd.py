"""Telling whoever started this process how it fares (sd_notify(3)): systemd, or `franker run`."""

import contextlib
import os
import socket


def tell(*lines: str) -> None:
    """Send `lines`, as "READY=1" or "STATUS=...", to $NOTIFY_SOCKET; nothing when nobody asked."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as one,
    ):
        one.sendto("\n".join(lines).encode(), address)
