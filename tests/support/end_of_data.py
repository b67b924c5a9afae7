"""Where data ends, found as slowly and plainly as can be: the measure for the real search."""


def by_lines(octets: bytes, crlf: bool) -> tuple[bytes, bytes] | None:
    """Return what is before the end of data and what is after it, None where there is no end.

    Octet by octet, with memory of lines. `crlf`: the session has sent one before.
    """
    line_begins, begun_by = 0, b"\r\n" if crlf else b"\n"
    for at in range(len(octets)):
        if octets[at : at + 1] != b"\n":
            continue
        ended_by = b"\r\n" if octets[max(at - 1, 0) : at] == b"\r" else b"\n"
        if ended_by == b"\r\n":
            crlf = True
        line = octets[line_begins : at + 1]
        wanted = b"\r\n" if crlf else b"\n"
        if begun_by == wanted and line == b"." + wanted:
            return octets[:line_begins], octets[at + 1 :]
        line_begins, begun_by = at + 1, ended_by
    return None


def undotted(octets: bytes, crlf: bool) -> bytes:
    """Return `octets` without the first dot of each line that has one."""
    lines = octets.split(b"\r\n" if crlf else b"\n")
    return (b"\r\n" if crlf else b"\n").join(line.removeprefix(b".") for line in lines)
