"""Line ends and line lengths of a message (RFC 5321 §2.3.8, RFC 5322 §2.1.1)."""

from io import IncrementalNewlineDecoder

from proxy.mail.repairs import Repair

LONGEST = 998
"""Octets in a line at most, its CRLF not counted."""


def is_canonical(octets: bytes) -> bool:
    """Say whether CR and LF stand in `octets` only together, as CRLF."""
    # Made to notice which line ends there are, in one pass: half of what counting them takes.
    line_ends = IncrementalNewlineDecoder(None, translate=False)
    line_ends.decode(octets.decode("latin-1"), final=True)
    return line_ends.newlines in (None, "\r\n")


def canonical_lines(octets: bytes) -> tuple[bytes, tuple[Repair, ...]]:
    """Return `octets` with CRLF as the only line end, and the kinds of repair this took.

    A bare LF and a bare CR become CRLF, CR CR LF (a text mode applied twice) is one line end,
    NUL goes, the last line ends. Done once, before any field is read: a bare LF could otherwise
    hide a field from us and show it to the next reader. The same object comes back when nothing
    was to be done. Linear in time for any input.
    """
    kinds: tuple[Repair, ...] = ()
    if b"\0" in octets:
        octets = octets.replace(b"\0", b"")
        kinds = ("nul",)
    if not is_canonical(octets):
        octets = octets.replace(b"\r\n", b"\n").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        octets = octets.replace(b"\n", b"\r\n")
        kinds += ("line_ends",)
    if octets and not octets.endswith(b"\r\n"):
        octets += b"\r\n"
        if "line_ends" not in kinds:
            kinds += ("line_ends",)
    return octets, kinds


def has_long_line(octets: bytes) -> bool:
    """Say whether a line of canonical `octets` is longer than LONGEST.

    Looks only at the last line end within each reach, so that the cost is that of a search.
    """
    start, end = 0, len(octets)
    while end - start > LONGEST:
        line_end = octets.rfind(b"\n", start, start + LONGEST + 2)
        if line_end < 0:
            return True
        start = line_end + 1
    return False
