"""One mail transaction (RFC 5321 §3.3) as a state machine: replies in, octets out, no I/O.

With PIPELINING (RFC 2920) MAIL, all RCPT and DATA go in one group, without it one by one. The
content follows only after 354, its final dot only after `before_dot` has allowed it.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import IntEnum

from proxy.mail.address import AddressError, normal_address
from proxy.mail.lines import is_canonical
from worker.replies import Reply, TransactionReplies

_LINE_END = re.compile(rb"\r\n|\r|\n")


@dataclass(frozen=True, slots=True, eq=False)
class Transaction:
    """One message for some of its recipients.

    `mail_from` and `recipients` (at least one, all different) are ASCII addresses without angle
    brackets, `mail_from` "" being the null reverse-path. `content` has CRLF line ends.
    `before_dot` is awaited right before anything with the final dot is written; when it answers
    False, or raises, the connection is dropped without the dot, and the far end has no message.
    A future that is done already costs no turn of the loop.
    """

    mail_from: str
    recipients: tuple[str, ...]
    content: bytes
    before_dot: Callable[[], Awaitable[bool]]

    def __post_init__(self) -> None:
        if not self.recipients:
            raise ValueError("a transaction without recipients")
        for address in (self.mail_from, *self.recipients):
            # Nothing in an address may end the command or start a parameter of its own. The
            # intake has seen to it; the queue lies where others can write too.
            if address and not _is_sendable(address):
                raise ValueError(f"not an address that can be sent: {address!r}")
        if "" in self.recipients:
            raise ValueError("not an address that can be sent: the null one")


def _is_sendable(address: str) -> bool:
    try:
        return normal_address(address) == address
    except AddressError:
        return False


@dataclass(frozen=True, slots=True)
class Offers:
    """What the far end offers after STARTTLS, as far as a transaction uses it."""

    pipelining: bool = False
    size: bool = False
    eight_bit_mime: bool = False


class ProtocolFault(Exception):
    """A reply that no server gives to this command: replies and commands are out of step."""


class Stage(IntEnum):
    """What a transaction waits for next."""

    START = 0  # its envelope has not been written
    RESET = 1
    MAIL = 2
    RCPT = 3
    DATA = 4
    CONTENT = 5  # 354 came: permission, then the content
    NO_CONTENT = 6  # 354 came though everybody was refused: the dot alone ends it (RFC 2920 §3.1)
    FINAL = 7
    NO_FINAL = 8  # as NO_CONTENT, the dot written
    DONE = 9

    @property
    def words(self) -> str:
        """What a person would call the thing that was sent and not answered."""
        if self in (Stage.FINAL, Stage.NO_FINAL):
            return "the final dot"
        return "RSET" if self is Stage.RESET else self.name


class Exchange:
    """The state of one transaction on a connection."""

    __slots__ = (
        "_answers",
        "_offers",
        "accepted",
        "begun",
        "data",
        "dot_sent",
        "final",
        "mail",
        "needs_reset",
        "permitted",
        "stage",
        "streamed",
        "transaction",
    )

    def __init__(self, transaction: Transaction, offers: Offers) -> None:
        self.transaction = transaction
        self.stage = Stage.START
        self.mail: Reply | None = None
        self.data: Reply | None = None
        self.final: Reply | None = None
        self.accepted = 0
        self.dot_sent = False
        self.permitted = False
        self.begun = False
        self.streamed = False
        self.needs_reset = False
        """Whether the server may still hold this envelope: RSET must go before the next MAIL."""
        self._answers: list[Reply] = []
        self._offers = offers

    def open(self, *, reset: bool) -> bytes:
        """Return the octets that start the transaction, after RSET when the last one needs it."""
        self.stage = Stage.RESET if reset else Stage.MAIL
        first = (b"RSET\r\n" if reset else b"", self._mail_command())
        if not self._offers.pipelining:
            return first[0] or first[1]
        commands = [f"RCPT TO:<{address}>\r\n" for address in self.transaction.recipients]
        return b"".join((*first, "".join(commands).encode("ascii"), b"DATA\r\n"))

    def next_command(self) -> bytes:
        """Return the command that the stage now asks for, b"" for none; without PIPELINING only."""
        if self._offers.pipelining:
            return b""
        if self.stage is Stage.MAIL:
            return self._mail_command()
        if self.stage is Stage.RCPT:
            address = self.transaction.recipients[len(self._answers)]
            return f"RCPT TO:<{address}>\r\n".encode("ascii")
        return b"DATA\r\n" if self.stage is Stage.DATA else b""

    def take(self, reply: Reply) -> None:
        """Take the reply to the command now waited for, and go on to the next stage.

        Raises:
            ProtocolFault: it is not one that this command can have; the connection is of no use.
        """
        stage, kind = self.stage, reply.code // 100
        if stage is Stage.RCPT:
            self._expect(kind != 3, reply, "RCPT")
            self._answers.append(reply)
            self.accepted += kind == 2
            if len(self._answers) == len(self.transaction.recipients):
                self.stage = Stage.DATA
                if not self._offers.pipelining and not self.accepted:
                    self._end(reset=True)
        elif stage is Stage.FINAL:
            self._expect(kind != 3, reply, "the final dot")
            self.final = reply
            self.stage = Stage.DONE
        elif stage is Stage.MAIL:
            self._expect(kind != 3, reply, "MAIL")
            self.mail = reply
            self.stage = Stage.RCPT
            if not self._offers.pipelining and kind != 2:
                self._end(reset=False)
        elif stage is Stage.DATA:
            self._take_data(reply)
        elif stage is Stage.RESET:
            self._expect(kind == 2 or reply.code == 421, reply, "RSET")
            self.stage = Stage.MAIL
        elif stage is Stage.CONTENT:
            # A refusal before the content is complete: it counts, but nothing can follow it.
            self._expect(kind in (4, 5), reply, "a message not sent yet")
            self.final = reply
            self.stage = Stage.DONE
        else:
            self._expect(stage is Stage.NO_FINAL, reply, "nothing")
            self.stage = Stage.DONE

    def _take_data(self, reply: Reply) -> None:
        self._expect(reply.code == 354 or reply.code >= 400, reply, "DATA")
        self.data = reply
        if reply.code != 354:
            self._end(reset=True)
        elif not self.accepted:
            self.stage = Stage.NO_CONTENT
        else:
            # A dot now would hand an empty message to recipients whose sender was refused.
            refused = self.mail is None or not self.mail.positive
            self._expect(not refused, reply, "DATA after a refused MAIL")
            self.stage = Stage.CONTENT

    def dot_out(self) -> None:
        """Note that the dot is on its way: from now on the outcome may be unknown."""
        self.dot_sent = self.stage is Stage.CONTENT
        self.stage = Stage.FINAL if self.dot_sent else Stage.NO_FINAL

    @property
    def ends_group(self) -> bool:
        """Tell whether nothing more can be written behind this one until a reply comes."""
        return self.stage not in (Stage.FINAL, Stage.NO_FINAL)

    def replies(
        self, broken: str = "", *, ours: bool = False, owed: bool = False
    ) -> TransactionReplies:
        """Return what is known of the transaction now."""
        return TransactionReplies(
            self.mail,
            dict(zip(self.transaction.recipients, self._answers, strict=False)),
            self.data,
            self.final,
            self.dot_sent,
            broken,
            ours,
            owed,
        )

    def _mail_command(self) -> bytes:
        content = self.transaction.content
        command = f"MAIL FROM:<{self.transaction.mail_from}>"
        if self._offers.size:
            command += f" SIZE={len(content)}"
        if self._offers.eight_bit_mime and not content.isascii():
            command += " BODY=8BITMIME"
        return f"{command}\r\n".encode("ascii")

    def _end(self, *, reset: bool) -> None:
        self.needs_reset = reset
        self.stage = Stage.DONE

    @staticmethod
    def _expect(sensible: bool, reply: Reply, command: str) -> None:
        if not sensible:
            raise ProtocolFault(f"an impossible reply to {command}: {reply}")


def dot_stuffed(content: bytes) -> bytes:
    """Return `content` as it goes over the wire, without the final dot (RFC 5321 §4.5.2).

    Ends with CRLF. A bare CR or LF, which the queue should never hold, becomes CRLF: sent as it
    is, it could end the message early and make the rest of it commands.
    """
    if not is_canonical(content):
        content = _LINE_END.sub(b"\r\n", content)
    content = content.replace(b"\r\n.", b"\r\n..")
    if content.startswith(b"."):
        content = b"." + content
    return content if not content or content.endswith(b"\r\n") else content + b"\r\n"
