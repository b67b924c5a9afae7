"""The sandbox's own authority and the certificates it shows, good ones and bad ones."""

import datetime as dt
import os
import ssl
from pathlib import Path

import trustme

from proxy.sandbox.account import HOST_NAMES
from proxy.sandbox.faults import Flaw

_NAMES = ("localhost", "127.0.0.1", "127.0.0.2", "::1", *HOST_NAMES.values())


class Authority:
    """A private authority, kept in a folder, so that a client has to learn of it only once.

    `ca_file` is what a client trusts. The key beside it is readable by its owner alone.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.ca_file = folder / "ca.pem"
        self._ca = self._kept(folder / "ca.key")
        self._contexts: dict[Flaw, ssl.SSLContext] = {}

    def _kept(self, key_file: Path) -> trustme.CA:
        try:
            return trustme.CA.from_pem(self.ca_file.read_bytes(), key_file.read_bytes())
        except (FileNotFoundError, ValueError):
            authority = trustme.CA(organization_name="Franker sandbox")
        # The certificate is written last and whole: who finds it finds all of it.
        _write(key_file, authority.private_key_pem.bytes(), 0o600)
        _write(self.ca_file, authority.cert_pem.bytes(), 0o644)
        return authority

    def context(self, flaw: Flaw = "") -> ssl.SSLContext:
        """Return the server's TLS settings (1.2 or later) with a certificate that has `flaw`."""
        if flaw not in self._contexts:
            signer = trustme.CA() if flaw == "untrusted" else self._ca
            names = ("elsewhere.invalid",) if flaw == "name" else _NAMES
            now = dt.datetime.now(dt.UTC)
            days = {"expired": -1, "ending": 10}.get(flaw)
            ends = now + dt.timedelta(days=days) if days is not None else None
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            signer.issue_cert(*names, not_after=ends).configure_cert(context)
            self._contexts[flaw] = context
        return self._contexts[flaw]


def _write(path: Path, octets: bytes, mode: int) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}")
    part.touch(mode=mode)
    part.write_bytes(octets)
    part.replace(path)
