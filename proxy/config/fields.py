"""Kinds of values that a configuration holds, each with its check in words a person can act on.

Each check returns the value as it is used, or raises ValueError with what is allowed; what it was
is added by whoever reports the fault. Pure: nothing here asks the network or the disk.
"""

import codecs
import ipaddress
import re
from typing import Annotated

import idna
from pydantic import AfterValidator, BeforeValidator

_LABEL = r"[^\W_](?:[\w-]{0,61}[^\W_])?"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")
_DOT_ATOM = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_QUOTED = re.compile(r'"(?:[ !#-\[\]-~]|\\[ -~])*"')
_UNIX_PATH_OCTETS = 107  # sun_path less its NUL: unix(7)
_PORTS = 65535


def listed(value: object) -> object:
    """Return a lone text as a list of one; all else unchanged."""
    return (value,) if isinstance(value, str) else value


def _no_truth(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a whole number")
    return value


def split_host_port(text: str) -> tuple[str, int]:
    """Return host, without brackets, and port of "127.0.0.1:25", "[::1]:25" or "localhost:25".

    Raises:
        ValueError: not such a text.
    """
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if not colon or not re.fullmatch(r"\d{1,5}", port, re.ASCII) or int(port) > _PORTS:
        raise ValueError('an address is HOST:PORT such as "127.0.0.1:25" or "[::1]:25"')
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        if bracketed or not is_host_name(host):
            raise ValueError(
                'an address is HOST:PORT such as "127.0.0.1:25" or "[::1]:25"'
            ) from None
    else:
        if bracketed != (version == 6):
            raise ValueError('an IPv6 address stands in brackets, as in "[::1]:25", no other does')
    return host, int(port)


def is_host_name(text: str) -> bool:
    """Tell whether `text` can be the name of a host, A-labels or not; "10.1" is none.

    What is not ASCII has A-labels (RFC 5890), and with them still the form of a host's name.
    """
    if _HOST_NAME.fullmatch(text) is None:
        return False
    if not text.isascii():
        # Many letters and digits of Unicode are barred from names, or become signs: idna knows.
        try:
            text = idna.encode(text, uts46=True).decode("ascii")
        except (idna.IDNAError, UnicodeError):
            return False
    return _HOST_NAME.fullmatch(text) is not None and not text.rpartition(".")[2].isdigit()


def is_mailbox(text: str) -> bool:
    """Tell whether `text` is LOCAL-PART@DOMAIN in a form Postmark takes (RFC 5321 §4.1.2).

    The local-part is ASCII, a dot-atom or quoted, 64 octets at most; the domain may be an IDN.
    """
    local, at, domain = text.rpartition("@")
    if not at or len(local) > 64 or not is_host_name(domain):
        return False
    return bool(_DOT_ATOM.fullmatch(local) or _QUOTED.fullmatch(local))


def _host_port(value: str) -> str:
    split_host_port(value)
    return value


def _listen_address(value: str) -> str:
    kind, colon, path = value.partition(":")
    if colon and kind == "unix":
        if not 0 < len(path.encode("utf-8", "surrogateescape")) <= _UNIX_PATH_OCTETS:
            raise ValueError(f"a unix socket's path has 1 to {_UNIX_PATH_OCTETS} octets")
        return value
    try:
        split_host_port(value)
    except ValueError as error:
        raise ValueError(f'{error}, or "unix:PATH"') from None
    return value


def network(value: str) -> str:
    """Return `value` if it is a network or address as clients are matched with.

    Raises:
        ValueError: it is none, has bits set beyond its length, or means IPv4 in IPv6's clothes.
    """
    try:
        found = ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise ValueError(
            'a network is written as "127.0.0.0/8" or "::1/128", one host as "10.0.0.7"'
        ) from None
    if isinstance(found, ipaddress.IPv6Network) and found.network_address.ipv4_mapped:
        raise ValueError(
            "clients in ::ffff: are matched as IPv4; write the IPv4 network, such as "
            f'"{_as_ipv4(found)}"'
        )
    if "/" in value and ipaddress.ip_address(value.partition("/")[0]) != found.network_address:
        raise ValueError(f'the network that holds this address is written "{found}"')
    return value


def _as_ipv4(mapped: ipaddress.IPv6Network) -> str:
    address = mapped.network_address.ipv4_mapped
    return f"{address}/{mapped.prefixlen - 96}" if mapped.prefixlen >= 96 else "0.0.0.0/0"


def _mailbox(value: str) -> str:
    if not is_mailbox(value):
        raise ValueError('an address is plain, as "office@example.com": no name, no brackets')
    return value


def _mailbox_or_none(value: str) -> str:
    return _mailbox(value) if value else value


def _host_name(value: str) -> str:
    if not is_host_name(value):
        raise ValueError('a host name is such as "mail.example.com"')
    return value


def _host(value: str) -> str:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        if not is_host_name(value):
            raise ValueError('a host is a name such as "smtp.postmarkapp.com", no port') from None
    return value


def _domain_or_none(value: str) -> str:
    if value and not is_host_name(value):
        raise ValueError('a domain is such as "example.com"')
    return value


def _mailbox_or_domain(value: str) -> str:
    if not (is_mailbox(value) if "@" in value else is_host_name(value)):
        raise ValueError('an address such as "a@example.com" or a domain such as "example.com"')
    return value


def _charset(value: str) -> str:
    allowed = 'a charset Python knows that holds ASCII, such as "windows-1252" or "iso-8859-15"'
    try:
        codec = codecs.lookup(value)
        every = bytes(range(128))
        if not isinstance(every.decode(codec.name), str) or every.decode(codec.name) != "".join(
            map(chr, range(128))
        ):
            raise ValueError(allowed)
    except (LookupError, ValueError):  # LookupError: unknown, or no text encoding
        raise ValueError(allowed) from None
    return value


def _port(value: int) -> int:
    if not 1 <= value <= _PORTS:
        raise ValueError(f"a port is 1 to {_PORTS}")
    return value


def _positive(value: int) -> int:
    if value < 1:
        raise ValueError("a whole number, at least 1")
    return value


HostPort = Annotated[str, AfterValidator(_host_port)]
"""HOST:PORT, IPv6 in brackets; port 0 means any free one."""

ListenOn = Annotated[str, AfterValidator(_listen_address)]
"""HOST:PORT or "unix:PATH"."""

Network = Annotated[str, AfterValidator(network)]
"""An IPv4 or IPv6 network or address, as `ipaddress.ip_network` takes it."""

Mailbox = Annotated[str, AfterValidator(_mailbox)]
"""LOCAL-PART@DOMAIN without anything around it."""

OptionalMailbox = Annotated[str, AfterValidator(_mailbox_or_none)]
"""A Mailbox, or "" for none."""

MailboxOrDomain = Annotated[str, AfterValidator(_mailbox_or_domain)]
"""A Mailbox or a domain."""

HostName = Annotated[str, AfterValidator(_host_name)]
"""A name without a port."""

Host = Annotated[str, AfterValidator(_host)]
"""A host's name or IP address, without brackets and port."""

OptionalDomain = Annotated[str, AfterValidator(_domain_or_none)]
"""A domain, or "" for none."""

Charset = Annotated[str, AfterValidator(_charset)]
"""The name of a superset of ASCII that Python can decode."""

Port = Annotated[int, BeforeValidator(_no_truth), AfterValidator(_port)]
"""1 to 65535."""

Count = Annotated[int, BeforeValidator(_no_truth), AfterValidator(_positive)]
"""A whole number, at least 1."""
