"""The arguments of MAIL and RCPT, as programs really send them (RFC 5321 §4.1.1.2, §4.1.1.3).

Pure. Generous in form (no brackets, spaces after the colon, a display name, a source route), since
what is meant is clear; what an address may be is judged elsewhere.
"""

import re
from dataclasses import dataclass

MAX_PATH = 512
"""Characters of a path that are looked at; RFC 5321 §4.5.3.1.3 asks for 256."""

MAIL_PARAMETERS = frozenset({"SIZE", "BODY", "SMTPUTF8", "AUTH", "RET", "ENVID", "XONCE"})
RCPT_PARAMETERS = frozenset({"NOTIFY", "ORCPT"})
"""Those of RFC 1870, 6152, 6531, 4954 and 3461. DSN's are taken and not honoured, but for
NOTIFY=NEVER: programs send them unasked. XONCE is our own: an id of chance under which the mail
is kept only once, for a client that keeps it elsewhere when it hears nothing (docs/sendmail.md)."""

_USUAL = {
    keyword: re.compile(
        keyword + r": ?<([\w.!#$%&'*+/=?^`{|}~-]+@[A-Z0-9.-]+|)>(?: ([!-~]+(?: [!-~]+)*))?",
        re.IGNORECASE | re.ASCII,
    )
    for keyword in ("FROM", "TO")
}
_KEYWORD = {
    "FROM": re.compile(r"FROM\s*:?\s*", re.IGNORECASE),
    "TO": re.compile(r"TO\s*:?\s*", re.IGNORECASE),
}
# A display name may stand before it. What holds = or @ is a bare address with parameters.
_BRACKETED = re.compile(r'(?:[^<>=@"]|"[^"]*")*<((?:"(?:[^"\\]|\\.)*"|[^<>"])*)>')
_BARE = re.compile(r'((?:"(?:[^"\\]|\\.)*"|[^\s<>"])+)')
_ROUTE = re.compile(r"(?:@[^\s:\"]*:)+")
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=(\S*))?", re.ASCII)
_ONCE = re.compile(r"[0-9a-f]{32}", re.ASCII)
_UNFIT = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class PathArgument:
    """An address without brackets and source route ("" for <>), and parameters by upper-case name.

    A parameter without a value has "".
    """

    address: str
    parameters: dict[str, str]


def parse_path(keyword: str, argument: str) -> PathArgument | None:
    """Return what `argument`, all that stood behind MAIL or RCPT, says; None when it says nothing.

    `keyword` is "FROM" or "TO".
    """
    usual = _USUAL[keyword].fullmatch(argument)
    if usual is not None:
        address, rest = usual[1], usual[2]
    else:
        begin = _KEYWORD[keyword].match(argument)
        path = begin and (
            _BRACKETED.match(argument, begin.end()) or _BARE.match(argument, begin.end())
        )
        if not path:
            return None
        address, rest = path[1].strip(), argument[path.end() :]
        route = _ROUTE.match(address)
        if route is not None:
            address = address[route.end() :]
    if len(address) > MAX_PATH or _UNFIT.search(address):
        return None
    if not rest:
        return PathArgument(address, {})
    parameters: dict[str, str] = {}
    for word in rest.split():
        parameter = _PARAMETER.fullmatch(word)
        if parameter is None:
            return None
        parameters[parameter[1].upper()] = parameter[2] or ""
    return PathArgument(address, parameters)


def declared_size(parameters: dict[str, str]) -> int | None:
    """Return the octets that SIZE says (0: it says nothing); None when it is not a number."""
    text = parameters.get("SIZE", "0")
    # Twenty digits are all that RFC 1870 allows, and int() of thousands would be slow.
    if not text.isascii() or not text.isdigit() or len(text) > 20:
        return None
    return int(text)


def once_id(parameters: dict[str, str]) -> str | None:
    """Return the id that XONCE says ("": none); None when it is none."""
    text = parameters.get("XONCE", "")
    return text if not text or _ONCE.fullmatch(text) else None
