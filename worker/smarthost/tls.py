"""TLS to the far end: verified, or not at all."""

import ssl
from pathlib import Path


class TrustStoreUnusable(Exception):
    """The configured authorities cannot be read; str() says which file and why."""


class TrustStore:
    """The authorities that may vouch for the far end, as they are on disk now.

    `ca_file` is a PEM file that replaces the system's store; "" means the system's. The context is
    built once (it takes milliseconds) and again when the file changes, so that a store which was
    mended or renewed is seen without a restart.
    """

    def __init__(self, ca_file: str = "") -> None:
        self._ca_file = ca_file
        self._watched = ca_file or ssl.get_default_verify_paths().openssl_cafile
        self._seen: tuple[int, int] | None = None
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        """Return the context for new connections.

        Raises:
            TrustStoreUnusable: the CA file is missing or holds no certificate.
        """
        seen = _fingerprint(self._watched)
        if self._context is None or seen != self._seen:
            self._context = client_context(self._ca_file)
            self._seen = seen
        return self._context


def client_context(ca_file: str = "") -> ssl.SSLContext:
    """Return a context that verifies chain and name and speaks TLS 1.2 or later.

    Raises:
        TrustStoreUnusable: `ca_file` is missing or holds no certificate.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise TrustStoreUnusable(f"postmark.ca_file {ca_file}: {reason}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def why_not_verified(error: ssl.SSLCertVerificationError) -> str:
    """Return what is wrong with a certificate, and where to look, in one line."""
    text = error.verify_message or str(error)
    if error.verify_code in _UNKNOWN_AUTHORITY:
        text += "; is postmark.ca_file right, or the system's package ca-certificates installed?"
    return text


# X509_V_ERR_: issuer unknown, self signed, self signed in chain, issuer locally, first cert
_UNKNOWN_AUTHORITY = frozenset({2, 18, 19, 20, 21})


def certificate_expiry(certificate: object) -> float | None:
    """Return when a peer's certificate (as `getpeercert` gives it) ends, in seconds since 1970."""
    if isinstance(certificate, dict):
        end = certificate.get("notAfter")
        if isinstance(end, str):
            return float(ssl.cert_time_to_seconds(end))
    return None


def _fingerprint(path: str | None) -> tuple[int, int] | None:
    try:
        status = Path(path).stat() if path else None
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_size) if status else None
