"""What clients are told: code, enhanced status code (RFC 3463), plain words."""

import re

from proxy.listener.crowd import CLIENT_PERCENT, Refusal, client_share

_LINE = 500  # RFC 5321 §4.5.3.1.5: 512 octets with code and CRLF
_UNFIT = re.compile(r"[^ -~]")


def reply(code: int, enhanced: str, text: str) -> bytes:
    """Return a whole reply. Longer texts become several lines; nothing in it can end a line.

    Characters beyond ASCII are escaped: not every client that we answer knows more.
    """
    words = text.encode("ascii", "backslashreplace").decode("ascii")
    words = _UNFIT.sub("?", words)
    head = f"{code} {enhanced} "
    if len(words) <= _LINE - len(head):
        return f"{head}{words}\r\n".encode("ascii")
    lines = []
    width = _LINE - len(head)
    while len(words) > width:
        cut = words.rfind(" ", 1, width)
        cut = cut if cut > 0 else width
        lines.append(f"{code}-{enhanced} {words[:cut]}\r\n")
        words = words[cut:].lstrip()
    lines.append(f"{head}{words}\r\n")
    return "".join(lines).encode("ascii")


def words(octets: bytes) -> str:
    """Return a reply's text for the log: its lines as one, the line ends left out."""
    return " ".join(octets.decode("ascii", "replace").split("\r\n")).strip()


OK = b"250 2.0.0 Ok\r\n"
SENDER_OK = b"250 2.1.0 Ok\r\n"
RECIPIENT_OK = b"250 2.1.5 Ok\r\n"
BYE = b"221 2.0.0 Bye\r\n"
GO_AHEAD = b"354 End data with <CR><LF>.<CR><LF>\r\n"

UNKNOWN_COMMAND = reply(500, "5.5.1", "There is no such command here")
NOT_IMPLEMENTED = reply(502, "5.5.1", "This command is not offered here")
LONG_LINE = reply(500, "5.5.2", "Command line too long")
NO_ARGUMENT = reply(501, "5.5.4", "This command takes no argument")
CANNOT_VERIFY = reply(252, "2.5.0", "Cannot verify, but will take mail for it and try")
HELP = reply(214, "2.0.0", "Franker takes mail and relays it to Postmark: MAIL, RCPT, DATA")

MAIL_SYNTAX = reply(501, "5.5.4", "Say MAIL FROM:<address>")
RCPT_SYNTAX = reply(501, "5.5.4", "Say RCPT TO:<address>")
SIZE_SYNTAX = reply(501, "5.5.4", "SIZE is a number of octets")
BODY_SYNTAX = reply(501, "5.5.4", "BODY is 7BIT or 8BITMIME")
ONCE_SYNTAX = reply(501, "5.5.4", "XONCE is 32 of 0-9 a-f, of chance")
SECOND_MAIL = reply(503, "5.5.1", "There is a MAIL already; RSET to begin anew")
NO_MAIL = reply(503, "5.5.1", "First comes MAIL")
NO_RECIPIENT = reply(554, "5.5.1", "No recipient was accepted")

NOT_ALLOWED = reply(554, "5.7.1", "This client may not send mail here (listen.allow)")
NOT_SMTP = reply(554, "5.5.1", "This is SMTP, not HTTP")
NOT_ASKED = reply(
    554, "5.5.1", "DATA was refused: what follows it is no command, and is not obeyed; closing"
)
TOO_MANY_ERRORS = reply(421, "4.7.0", "Too many errors, closing")
TOO_SLOW = reply(
    421, "4.4.2", "Too little came for too long, closing; nothing unanswered was taken"
)
STOPPING = reply(421, "4.3.2", "Franker is stopping; try again")
GIVE_WAY = reply(
    421, "4.3.2", "This connection was idle and others need its place (listen.max_connections); "
    "closing, nothing unanswered was taken"
)  # fmt: skip
OUR_FAULT = reply(451, "4.3.0", "Franker had an error of its own; not taken, try again")
OUR_FAULT_CLOSING = reply(421, "4.3.0", "Franker had an error of its own, closing; try again")
NO_MEMORY = reply(
    452, "4.3.1", "Too much mail is coming in at once (listen.memory); not taken, try again"
)

TLS_READY = reply(220, "2.0.0", "Ready for TLS")
NO_TLS = reply(502, "5.5.1", "STARTTLS is not offered here; go on without")
TLS_ALREADY = reply(503, "5.5.1", "TLS is on already")
TLS_CROWDED = reply(503, "5.5.1", "Nothing may follow STARTTLS before its reply")

NO_AUTH = reply(503, "5.5.1", "AUTH is not asked for here; go on without")
AUTH_ALREADY = reply(503, "5.5.1", "There was an AUTH already")
AUTH_LATE = reply(503, "5.5.1", "AUTH cannot come within a mail")
AUTH_SYNTAX = reply(501, "5.5.4", "Say AUTH PLAIN or AUTH LOGIN")
AUTH_UNKNOWN = reply(504, "5.5.4", "Only AUTH PLAIN and AUTH LOGIN are known here")
AUTH_OK = reply(235, "2.7.0", "Any login is accepted here")


def unknown_parameter(name: str) -> bytes:
    """Return the answer to a parameter of MAIL or RCPT that was never offered."""
    return reply(555, "5.5.4", f"Parameter {name[:40]} is not known here")


def too_large(size: int, limit: int) -> bytes:
    """Return the answer to a message of `size` octets."""
    return reply(
        552, "5.3.4", f"Message of {size} octets is over the limit of {limit} octets "
        "(listen.max_message_size)"
    )  # fmt: skip


def endless(size: int, limit: int) -> bytes:
    """Return the answer to a message of which `size` octets came and no end is seen."""
    return reply(
        552, "5.3.4", f"After {size} octets the message is without end, and over the limit of "
        f"{limit} octets (listen.max_message_size)"
    )  # fmt: skip


def too_many_recipients(limit: int) -> bytes:
    """Return the answer to a recipient beyond `limit`."""
    return reply(
        452, "4.5.3", f"One message takes {limit} recipients (listen.max_recipients); "
        "send the rest in another"
    )  # fmt: skip


def no_room(refusal: Refusal, limit: int) -> bytes:
    """Return what a client is told at its connect, when no place can be made for it."""
    if refusal == "connections_client":
        share = client_share(limit)
        text = (
            f"This client has {share} connections already, all in use, and one client may have "
            f"{CLIENT_PERCENT}% of {limit} (listen.max_connections); try again"
        )
    else:
        text = (
            f"There are {limit} connections already, all in use (listen.max_connections); try again"
        )
    return reply(421, "4.3.2", text)


def queued(message_id: str) -> bytes:
    """Return the one reply that takes over responsibility for a message."""
    return b"250 2.0.0 Ok: queued as %s\r\n" % message_id.encode("ascii")
