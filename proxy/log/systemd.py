"""Telling whoever started this process how it fares (sd_notify(3)): systemd, or `franker run`."""

import contextlib
import os
import socket
import time


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


def tell_reloading() -> None:
    """Say that the configuration is read again from now on; `tell("READY=1")` says that it was."""
    tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
