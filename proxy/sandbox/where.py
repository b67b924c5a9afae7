"""Where a sandbox listens, and how a Franker beside it is pointed to it."""

import contextlib
import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from proxy.config import Settings
from proxy.sandbox.account import TOKEN, Account, Kind

TRANSACTIONAL_ADDRESS = "127.0.0.1"
BROADCAST_ADDRESS = "127.0.0.2"
TOKEN_VARIABLE = "FRANKER_SANDBOX_TOKEN"  # noqa: S105 - the name of a variable

_FILE_NAME = "where.json"


class SandboxMissing(Exception):
    """The sandbox's own dependencies are not installed; str() says what to do."""


@dataclass(frozen=True, slots=True)
class Where:
    """The ports of both hosts, the page and API's port on 127.0.0.1, the folder for certificates.

    The two SMTP hosts are the loopback addresses 127.0.0.1 and 127.0.0.2.
    """

    folder: Path
    ports: tuple[int, ...] = (10587, 12525, 10025)
    http_port: int = 9589

    @property
    def ca_file(self) -> Path:
        """The certificate that a client of the sandbox has to trust."""
        return self.folder / "ca.pem"


def prepare(folder: Path) -> Where:
    """Decide where a sandbox in `folder` listens, and make its authority, before either starts.

    The usual ports are taken when they are free, else others; no other sandbox is given them while
    this process lives, or what it becomes by exec. `find` gives the same answer from then on.

    Raises:
        SandboxMissing: a library of the extra is not installed.
        OSError: the folder cannot be written.
    """
    try:
        from proxy.sandbox.certificates import Authority
    except ImportError as error:
        raise SandboxMissing(
            f"the sandbox needs a library that is not installed ({error.name}): "
            "install Franker with it, from its checkout: pip install '.[sandbox]'"
        ) from error
    Authority(folder)
    usual = Where(folder)
    http_port = _free((TRANSACTIONAL_ADDRESS,), usual.http_port)
    hosts = (TRANSACTIONAL_ADDRESS, BROADCAST_ADDRESS)
    where = Where(folder, tuple(_free(hosts, port) for port in usual.ports), http_port)
    part = folder / f"{_FILE_NAME}.part"
    said = {"ports": where.ports, "http_port": where.http_port}
    part.write_text(json.dumps(said), encoding="utf-8")
    part.replace(folder / _FILE_NAME)
    return where


def find(folder: Path) -> Where:
    """Return what `prepare` decided for `folder`; the usual places when it was never called."""
    try:
        said = json.loads((folder / _FILE_NAME).read_text(encoding="utf-8"))
        return Where(folder, tuple(map(int, said["ports"])), int(said["http_port"]))
    except (OSError, ValueError, LookupError, TypeError):
        return Where(folder)


def sandbox_settings(settings: Settings, where: Where) -> dict[str, str]:
    """Return environment variables that point a Franker with `settings` to the sandbox.

    Every stream gets the sandbox's token, so that no real secret is ever shown to it.
    """
    streams = {
        name: {
            "id": stream.id or name,
            "kind": stream.kind,
            "token": {"env": TOKEN_VARIABLE},
        }
        for name, stream in settings.streams.items()
    }
    return {
        TOKEN_VARIABLE: TOKEN,
        "FRANKER_POSTMARK__TRANSACTIONAL_HOST": TRANSACTIONAL_ADDRESS,
        "FRANKER_POSTMARK__BROADCAST_HOST": BROADCAST_ADDRESS,
        "FRANKER_POSTMARK__PORTS": json.dumps(list(where.ports)),
        "FRANKER_POSTMARK__CA_FILE": str(where.ca_file),
        "FRANKER_POSTMARK__API_URL": f"http://127.0.0.1:{where.http_port}",
        "FRANKER_STREAMS": json.dumps(streams),
    }


def account_for(settings: Settings) -> Account:
    """Return the account that the sandbox plays for `settings`: its streams, the usual ones too."""
    streams: dict[str, Kind] = dict(Account().streams)
    for name, stream in settings.streams.items():
        streams[stream.id or name] = stream.kind
    return Account(streams=streams, verified=settings.postmark.verified)


def _free(hosts: tuple[str, ...], wanted: int) -> int:
    """Return `wanted` when it is free on all `hosts` and nobody's, else a port that is."""
    for port in (wanted, *[0] * 20):
        held: list[socket.socket] = []
        try:
            for host in hosts:
                held.append(socket.socket())
                held[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                held[-1].bind((host, held[0].getsockname()[1] if len(held) > 1 else port))
            number: int = held[0].getsockname()[1]
            _reserve(number)
        except OSError:
            continue
        else:
            return number
        finally:
            for one in held:
                one.close()
    raise OSError("no free port")


def _reserve(port: int) -> None:
    """Keep `port` from other sandboxes: it is bound seconds after it was found free.

    Raises:
        OSError: another one has it.
    """
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as mark:
        mark.bind(f"\0franker-sandbox-{port}")  # a name in no file system, gone with its process
        os.set_inheritable(mark.fileno(), True)
        mark.detach()
