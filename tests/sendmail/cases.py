"""The calls that are compared: what is called, with what on standard input, and why they differ.

`CASE` in a message is replaced by a word that only this call has.
"""

from dataclasses import dataclass

MESSAGE = b"Subject: CASE\n\nbody\n"
DOTS = b"Subject: CASE\n\none\n.\ntwo\n"
TO = b"To: Ann <a@b.example>, c@d.example\nCc: e@f.example\nBcc: g@h.example\nSubject: CASE\n\nx\n"
SMTP = (
    b"EHLO x\r\nMAIL FROM:<app@example.com>\r\nRCPT TO:<a@b.example>\r\nDATA\r\n"
    b"Subject: CASE\r\n\r\nbody\r\n.\r\nQUIT\r\n"
)


@dataclass(frozen=True, slots=True)
class Case:
    """One call. `differs` says why the two are not alike; "" where they must be."""

    arguments: tuple[str, ...]
    stdin: bytes = MESSAGE
    what: str = ""
    name: str = "sendmail"
    differs: str = ""


_USAGE = "wrong usage: 64 here, as sysexits.h has it; Postfix says 75, try again"
_TO = "a@b.example"

CASES = (
    Case((_TO,)),
    Case((_TO, "c@d.example"), what="two recipients"),
    Case(("a@b.example, Ann <c@d.example>",), what="a list in one argument"),
    Case(("a c@d.example",), what="words with a blank between"),
    Case(
        (_TO, "-f", "me@x.example"),
        what="an option behind a recipient is a recipient",
        differs="Postfix sends back what is for it; Franker's proxy judges it",
    ),
    Case(
        ("--", "-x@y.example"),
        what="a recipient that begins with a dash",
        differs="Postfix sends it back; Franker's proxy judges it",
    ),
    Case((_TO,), DOTS, "a line with a dot ends it"),
    Case(("-i", _TO), DOTS, "or does not"),
    Case(("-oi", _TO), DOTS),
    Case((_TO,), b"Subject: CASE\r\n\r\none\r\n.\r\ntwo\r\n", "CRLF, and a dot"),
    Case(("-i", _TO), b"Subject: CASE\r\n\r\n.one\r\n..\r\n", "CRLF, dots that end nothing"),
    Case((_TO,), b"Subject: CASE\n\nno end of line", "no end of the last line"),
    Case((_TO,), b"Subject: CASE\n\ncaf\xe9 \xc3\xa9\n", "8-bit text"),
    Case((_TO,), b"Subject: CASE\n\na\0b\n", "a NUL octet"),
    Case(
        (_TO,),
        b"Subject: CASE\n\n" + b"x" * 3000 + b"\n",
        "a line of 3000 octets",
        differs="Postfix breaks it in pieces; Franker's proxy encodes it so that it stays one",
    ),
    Case((_TO,), b"Subject: CASE\n\n", "no body"),
    Case((_TO,), b"Subject: CASE", "no body, no end of line"),
    Case((_TO,), b"CASE is no field\n\nx\n", "no header"),
    Case(
        (_TO,),
        b"From joe Mon Jan 1\nSubject: CASE\n\nx\n",
        "a line of an mbox in front",
    ),
    Case((_TO,), b"From: app@x.example\nSubject: CASE\n\nx\n", "a From of its own"),
    Case(("-t",), TO, "recipients from the header, Bcc out of it"),
    Case(("-t", "z@y.example"), TO, "and from the command line"),
    Case(
        ("-t",),
        b"From: app@x.example\nTo: a@b.example\nResent-To: r@s.example\nSubject: CASE\n\nx\n",
        "sent on: the Resent- fields alone",
    ),
    Case(("-t",), b"To: team: a@b.example, c@d.example;\nSubject: CASE\n\nx\n", "a group"),
    Case(("-t",), b"To: a@b.example\n , c@d.example (x, y)\nSubject: CASE\n\nx\n", "folded"),
    Case(("-ti",), b"To: a@b.example\nSubject: CASE\n\n.\nx\n", "letters that share a dash"),
    Case(("-tioi",), b"To: a@b.example\nSubject: CASE\n\n.\nx\n"),
    Case(
        ("-FCronDaemon", "-i", "-B8BITMIME", "-oem", "root"),
        b"From: root (Cron Daemon)\nTo: root\nSubject: CASE\n\n.\nx\n",
        "as cron calls it",
    ),
    Case(
        ("-t", "-i", "-fme@x.example"),
        b"To: a@b.example\r\nSubject: CASE\r\nFrom: app@x.example\r\nBcc: c@d.example\r\n\r\n.\r\n",
        "as PHP calls it",
    ),
    Case(("-oem", "-odb", "-o7", _TO), what="options of the old sendmail"),
    Case(("-f", "me@x.example", _TO), what="the sender, and so From"),
    Case(("-fme@x.example", _TO)),
    Case(("-r", "me@x.example", _TO)),
    Case(("-f", "Ann <me@x.example>", _TO), what="of a mailbox the address"),
    Case(("-f", "", _TO), what="the null sender"),
    Case(("-f", "<>", _TO)),
    Case(("-F", "Ann Other", "-f", "me@x.example", _TO), what="with a full name"),
    Case(("-F", "Other, Ann", "-f", "me@x.example", _TO), what="that needs quotes"),
    Case(("-B", "8BITMIME", _TO)),
    Case(("-B7BIT", _TO)),
    Case(("-B", "9BIT", _TO), differs=_USAGE),
    Case(("-N", "never", _TO)),
    Case(("-N", "failure,delay", _TO)),
    Case(("-N", "sometimes", _TO), what="said to be wrong, and ignored"),
    Case(("-R", "hdrs", _TO)),
    Case(("-R", "whole", _TO), what="said to be wrong, and ignored"),
    Case(("-V", "envelope-7", _TO)),
    Case(("-v", _TO), what="Postfix mails a report, Franker says where the message is"),
    Case(("-Am", "-U", "-x", "-m", _TO), what="options that mean nothing"),
    Case(("-G", _TO), differs="a gateway's mail: Postfix adds no From then, Franker does"),
    Case(("-L", "tag", "-h", "5", "-e", "m", "-p", "x", "-O", "a=b", _TO)),
    Case(("-bm", _TO)),
    Case(
        ("-bs",),
        SMTP,
        "SMTP on standard input and output",
        differs="it is the proxy that speaks, and that adds what is missing",
    ),
    Case(("-bp",), b""),
    Case((), b"", name="mailq"),
    Case(("-bi",), b""),
    Case((), b"", name="newaliases"),
    Case(("-I",), b""),
    Case(("-q",), b""),
    Case(("-bh",), b""),
    Case((), what="no recipient", differs=_USAGE),
    Case(("-t",), b"Subject: CASE\n\nx\n", "no recipient in the header", differs=_USAGE),
    Case(("-t",), b"CASE\nTo: a@b.example\n\nx\n", "none before what is no field", differs=_USAGE),
    Case(("-z", _TO), what="an unknown option", differs=_USAGE),
    Case(("-f",), what="without its value", differs=_USAGE),
    Case(("-n", _TO), differs=_USAGE),
    Case(("-oA", _TO), differs=_USAGE),
    Case(("-X", "/tmp/log", _TO), differs=_USAGE),
    Case(("-bt",), b"", differs=_USAGE),
    Case(("-bz",), b"", differs=_USAGE),
    Case(
        ("-bv", _TO),
        differs="Postfix tries the address and mails a report; Franker cannot try without sending",
    ),
    Case(
        ("-bd",),
        b"",
        differs="Postfix starts its services; ours are started by systemd, or by `franker run`",
    ),
)
