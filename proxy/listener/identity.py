"""Who the client is: what it says in HELO and EHLO, in AUTH, and whether it is encrypted.

AUTH (RFC 4954) and STARTTLS (RFC 3207) are for clients that insist on them, where an address is
configured for it.
"""

import asyncio
import ssl
from collections.abc import Coroutine
from typing import Any

from proxy import log
from proxy.listener import replies
from proxy.listener.door import Door
from proxy.listener.login import Login
from proxy.listener.peer import user_name
from proxy.listener.protocol import SmtpProtocol
from proxy.mail.envelope import Client
from proxy.metrics.intake import MESSAGES_REFUSED

_LONGEST_NAME = 255  # of HELO's argument and of a login, as they are kept


def printable(text: str) -> str:
    """Return what a client said of itself, fit for a header field and the log."""
    fit = "".join(letter if "!" <= letter <= "~" else "?" for letter in text[:_LONGEST_NAME])
    return fit.strip("?")


class IdentifiedProtocol(SmtpProtocol):
    """The commands by which a client says who it is, and what is known of it besides."""

    __slots__ = ("_client", "_extended", "_helo", "_login")

    def __init__(self, door: Door, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(door, loop)
        self._helo = ""
        self._extended = False
        self._login = ""
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        """Who is speaking, as far as is known by now."""
        if self._client is None:
            self._client = self._identified()
        return self._client

    def _identified(self) -> Client:
        protocol = "ESMTP" if self._extended else "SMTP"
        if self._extended:
            protocol += ("S" if self.in_tls else "") + ("A" if self._login else "")
        uid = self.local_uid(only_if_cheap=False) if self.office.intake.wants_users else None
        return Client(
            address=self.address,
            helo=self._helo,
            protocol=protocol,
            login=self._login,
            uid=uid,
            user="" if uid is None else user_name(uid),
        )

    def smtp_HELO(self, hostname: str) -> None:
        """Begin a session without extensions."""
        self._greeted(hostname, extended=False)
        self.say(self.door.helo)

    def smtp_EHLO(self, hostname: str) -> None:
        """Begin a session with extensions, in one reply."""
        self._greeted(hostname, extended=True)
        self.say(self.door.ehlo_in_tls if self.in_tls else self.door.ehlo)

    def _greeted(self, hostname: str, *, extended: bool) -> None:
        self._helo = printable(hostname)
        self._extended = extended
        self._client = None
        self.reset_transaction()

    def smtp_STARTTLS(self, arg: str) -> Coroutine[Any, Any, None] | None:
        """Encrypt the session; all that was said before is forgotten (RFC 3207 §4.2)."""
        if self.door.tls is None or self.in_tls:
            self.fault(replies.TLS_ALREADY if self.in_tls else replies.NO_TLS)
            return None
        if arg:
            self.fault(replies.NO_ARGUMENT)
            return None
        return self._start_tls(self.door.tls)

    async def _start_tls(self, tls: ssl.SSLContext) -> None:
        assert self.transport is not None
        if self._closing:
            return
        # Commands from before the encryption must not count as said within it. From this look at
        # what has come to the end of plain reading, in start_tls, nothing may be waited for.
        if self._reader.pending:
            self.say(replies.TLS_CROWDED)
            self._closing = True
            return
        self.say(replies.TLS_READY)
        self._write()
        try:
            transport = await self.loop.start_tls(
                self.transport,
                self,
                tls,
                server_side=True,
                ssl_handshake_timeout=self.office.limits.handshake,
            )
        except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
            MESSAGES_REFUSED.labels("tls").inc()
            log.refused(self.address, reason="tls", reply=f"TLS handshake failed: {error}")
            self.transport.abort()
            self.lost()  # which asyncio does not tell a protocol without a handshake
            return
        if transport is None:
            self.lost()
            return
        self._tls_began(transport)
        self._greeted("", extended=False)
        self._login = ""

    def smtp_AUTH(self, arg: str) -> Coroutine[Any, Any, None] | None:
        """Take any login, where one is insisted on; the password is not looked at nor kept."""
        words = arg.split()
        wrong = self._judge_auth()
        if wrong is None and len(words) not in (1, 2):
            wrong = replies.AUTH_SYNTAX
        mechanism = words[0].upper() if words else ""
        if wrong is None and mechanism not in ("PLAIN", "LOGIN"):
            wrong = replies.AUTH_UNKNOWN
        if wrong is not None:
            self.fault(wrong)
            return None
        return self._log_in(mechanism, words)

    def _judge_auth(self) -> bytes | None:
        if not self.door.auth:
            return replies.NO_AUTH
        if self._login:
            return replies.AUTH_ALREADY
        return replies.AUTH_LATE if self.in_transaction else None

    async def _log_in(self, mechanism: str, words: list[str]) -> None:
        # Idle as between commands, there being no mail: if it gives way, `end` ends the reader, and
        # so the dialog. `_rests` is not needed: `finally` ends the idleness.
        self.office.crowd.rests(self)
        try:
            login = await Login(self.loop, self._reader, self._challenge).converse(mechanism, words)
        except ValueError:
            self.fault(replies.LONG_LINE)
            return
        finally:
            self.office.crowd.works(self)
            self.crlf = self.crlf or self._reader.crlf
        if login is not None:
            self._login = printable(login.decode("utf-8", "replace")) or "?"
            self._client = None
            self.say(replies.AUTH_OK)

    def _challenge(self, answer: bytes) -> None:
        self.say(answer)
        if not self._reader.has_line:
            self._write()
