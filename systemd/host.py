"""What an installation of Franker changes on its host beside its own files, and how that is undone.

`configure` after Franker's files are in place, at an installation and at each upgrade; `remove`
before they go. Both are for root, ask nothing, and can be run again.
"""

import argparse
import contextlib
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import configuration
import mta

OPT = Path("/opt/franker")
SOCKET_D = Path("/etc/systemd/system/franker-proxy.socket.d")
TAKEN_OVER = OPT / "taken-over"
"""What --take-over stopped, a unit a line, to be started again by `remove`."""

SMTP_PORT, BESIDE_PORT = 25, 2525
_PATIENCE_S = 30.0
SENDMAIL = Path("/usr/sbin/sendmail")
LINKS = (SENDMAIL, Path("/usr/bin/mailq"), Path("/usr/bin/newaliases"), Path("/usr/lib/sendmail"))
OUR_SENDMAIL = OPT / "current/bin/franker-sendmail"


class Trouble(Exception):
    """It cannot be done; the text says why and what to do."""


def succeeds(*command: str | Path) -> bool:
    """Return whether `command` ends with exit code 0."""
    return not subprocess.run(command, check=False).returncode


def run(*command: str | Path) -> None:
    """Run `command`.

    Raises:
        Trouble: it failed.
    """
    if not succeeds(*command):
        raise Trouble(f"this failed: {' '.join(map(str, command))}")


def booted() -> bool:
    """Return whether systemd runs here now, and not only after the next boot (sd_booted(3))."""
    return Path("/run/systemd/system").is_dir()


# Port 25


def give_port(*, take_over: bool) -> tuple[int, str]:
    """Decide on which port systemd listens; return it, and who holds port 25 otherwise, in words.

    Raises:
        Trouble: whoever holds port 25 cannot be stopped, or its queue still holds mail.
    """
    ours = succeeds("systemctl", "is-active", "--quiet", "franker-proxy.socket")
    if ours and not (SOCKET_D / "port.conf").exists():
        return SMTP_PORT, ""
    if mta.is_free(SMTP_PORT):
        return SMTP_PORT, ""
    held = mta.holder(SMTP_PORT)
    if held is not None and held.unit and _is_removed(held.unit):
        # Debian 13's Postfix runs on after its package was removed, and would until the next boot.
        run("systemctl", "stop", held.unit)
        if _is_soon_free(SMTP_PORT):
            return SMTP_PORT, ""
    if not take_over:
        return BESIDE_PORT, str(held or "a program that cannot be seen from here")
    if held is None or not held.unit:
        raise Trouble(f"port 25 is held by {held}, which no unit of systemd runs: stop it first")
    TAKEN_OVER.parent.mkdir(parents=True, exist_ok=True)
    with TAKEN_OVER.open("a", encoding="utf-8") as file:
        file.write(f"{held.unit}\n")
    run("systemctl", "disable", "--now", held.unit)
    if not _is_soon_free(SMTP_PORT):
        raise Trouble(f"{held.unit} was stopped, but port 25 is held by {mta.holder(SMTP_PORT)}")
    print(f"Port 25 was {held}'s, which is stopped and disabled.")
    return SMTP_PORT, ""


def _is_removed(unit: str) -> bool:
    """Return whether `unit` runs although its file is gone."""
    shown = mta.said("systemctl", "show", "--property=LoadState", "--value", unit)
    return shown.strip() == "not-found"


def _is_soon_free(port: int) -> bool:
    """Wait for a unit's end: of one that is only a part of the program, nobody awaits it."""
    deadline = time.monotonic() + _PATIENCE_S
    while not mta.is_free(port) and time.monotonic() < deadline:
        time.sleep(0.1)
    return mta.is_free(port)


def addresses(port: int, *, ipv6: bool) -> list[str]:
    """Return what to listen on; without IPv6 in the kernel, a unit that names ::1 would fail."""
    return [f"127.0.0.1:{port}", *([f"[::1]:{port}"] if ipv6 else [])]


def drop_in_of(listen: Sequence[str]) -> str:
    """Return what makes the socket unit listen on `listen`, "" where it does so by itself."""
    if list(listen) == addresses(SMTP_PORT, ipv6=True):
        return ""
    text = "# Written by Franker's installation, which looks again each time it is run.\n"
    text += "[Socket]\nListenStream=\n"
    return text + "".join(f"ListenStream={address}\n" for address in listen)


def write_addresses(listen: Sequence[str]) -> bool:
    """Make the socket unit listen on `listen`; return whether that has changed."""
    drop_in = SOCKET_D / "port.conf"
    before = drop_in.read_text(encoding="utf-8") if drop_in.exists() else ""
    after = drop_in_of(listen)
    if after == before:
        return False
    if not after:
        drop_in.unlink()
        with contextlib.suppress(OSError):  # another drop-in is there
            SOCKET_D.rmdir()
    else:
        SOCKET_D.mkdir(parents=True, exist_ok=True)
        drop_in.write_text(after, encoding="utf-8")
    return True


# /usr/sbin/sendmail


def link_sendmail(*, take_over: bool) -> str:
    """Link Franker's sendmail where nothing is, or all is taken over; return who else has it."""
    if not OUR_SENDMAIL.exists():
        return ""
    if _is_ours(SENDMAIL):
        return ""
    if SENDMAIL.exists() and not take_over:
        return mta.owner(str(SENDMAIL)) or str(SENDMAIL.resolve())
    for link in LINKS:
        if _is_ours(link):
            continue
        if link.exists() or link.is_symlink():
            if not take_over:
                continue
            run("dpkg-divert", "--quiet", "--local", "--rename", "--add", link)
        link.symlink_to(OUR_SENDMAIL)
    return ""


def unlink_sendmail() -> None:
    """Take Franker's links away, and put back what was there before them."""
    for link in LINKS:
        if _is_ours(link):
            link.unlink()
        kept = Path(f"{link}.distrib")
        by = mta.said("/usr/bin/dpkg-divert", "--listpackage", str(link)).strip()
        if by == "LOCAL" and (kept.is_symlink() or kept.exists()):
            run("dpkg-divert", "--quiet", "--local", "--rename", "--remove", link)


def _is_ours(link: Path) -> bool:
    return link.is_symlink() and str(link.readlink()) == str(OUR_SENDMAIL)


# All of it


def configure(*, first: bool, take_over: bool, package: bool) -> int:
    """Set up all that Franker needs of this host, start it, and say what holds; return 0 or 1."""
    run("systemd-sysusers", "franker.conf")
    run("systemd-tmpfiles", "--create", "franker.conf")
    to_do = configuration.write(OPT / "current/share/franker/franker.toml")
    port, held_by = give_port(take_over=take_over) if booted() else (SMTP_PORT, "")
    listen = addresses(port, ipv6=Path("/proc/net/if_inet6").exists())
    moved = write_addresses(listen)
    sendmail_of = link_sendmail(take_over=take_over)
    if first:
        run("systemctl", "--quiet", "enable", "franker.target")
    if booted():
        _start(moved=moved, package=package)
    where = " and ".join(listen)
    print(
        f"Franker takes mail at {where} and keeps it."
        if booted()
        else f"Franker starts at the next boot and takes mail at {where}."
    )
    if held_by:
        to_do.append(f"port 25 is held by {held_by}{_how(package=package)}")
    if sendmail_of:
        to_do.append(f"{SENDMAIL} is still {sendmail_of}'s{_how(package=package)}")
    if to_do:
        print("\nLeft to do:")
    for what in to_do:
        print(f"  - {what.replace(chr(10), chr(10) + '    ')}")
    print("\nAs root: franker check, franker queue list, journalctl --unit 'franker-*'")
    return 0


def _how(*, package: bool) -> str:
    if package:
        return ":\n    stop it, then: dpkg-reconfigure franker"
    return ":\n    systemd/install --take-over gives it to Franker, --uninstall gives it back"


def _start(*, moved: bool, package: bool) -> None:
    run("systemctl", "daemon-reload")
    if moved:
        run("systemctl", "stop", "franker-proxy.service", "franker-proxy.socket")
    if package:  # asks policy-rc.d
        run("deb-systemd-invoke", "restart", "franker.target")
    else:
        run("systemctl", "restart", "franker.target")
    asleep = [
        unit
        for unit in ("franker-proxy.socket", "franker-proxy.service", "franker-worker@1.service")
        if not succeeds("systemctl", "is-active", "--quiet", unit)
    ]
    if asleep and not package:
        raise Trouble(f"not running: {', '.join(asleep)}; journalctl --unit 'franker-*' says why")


def remove(*, package: bool) -> int:
    """Stop Franker and take back all that `configure` has done; mail and configuration stay."""
    if booted():
        succeeds("systemctl", "stop", "franker*")
    if not package:
        succeeds("systemctl", "--quiet", "disable", "franker.target")
    unlink_sendmail()
    with contextlib.suppress(FileNotFoundError):
        (SOCKET_D / "port.conf").unlink()
        SOCKET_D.rmdir()
    units = TAKEN_OVER.read_text(encoding="utf-8").split() if TAKEN_OVER.exists() else []
    for unit in units:
        run("systemctl", "enable", *(["--now"] if booted() else []), unit)
    TAKEN_OVER.unlink(missing_ok=True)
    return 0


def main() -> int:
    """Do what the command line says; return the exit code."""
    arguments = argparse.ArgumentParser(prog="host.py")
    arguments.add_argument("what", choices=("configure", "remove"))
    arguments.add_argument("--first", action="store_true", help="not an upgrade")
    arguments.add_argument("--take-over", action="store_true", help="port 25 and sendmail, too")
    arguments.add_argument("--package", action="store_true", help="for dpkg")
    given = arguments.parse_args()
    try:
        if given.what == "remove":
            return remove(package=given.package)
        return configure(first=given.first, take_over=given.take_over, package=given.package)
    except (Trouble, OSError) as trouble:
        print(f"franker: {trouble}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
