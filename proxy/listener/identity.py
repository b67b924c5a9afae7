"""Who the client is: what it says in HELO and EHLO, in AUTH, and whether it is encrypted.

AUTH (RFC 4954) and STARTTLS (RFC 3207) are for clients that insist on them, where an address is
configured for it.
"""

import asyncio
from typing import Any

from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword, Session

from proxy import log
from proxy.listener import replies
from proxy.listener.connection import ClientGoneError
from proxy.listener.door import Door
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
            protocol = "ESMTP" if self._extended else "SMTP"
            if self._extended:
                protocol += ("S" if self.in_tls else "") + ("A" if self._login else "")
            uid = self.local_uid(only_if_cheap=False) if self.office.intake.wants_users else None
            self._client = Client(
                address=self.address,
                helo=self._helo,
                protocol=protocol,
                login=self._login,
                uid=uid,
                user="" if uid is None else user_name(uid),
            )
        return self._client

    async def smtp_HELO(self, hostname: str) -> None:
        """Begin a session without extensions."""
        self._greeted(hostname, extended=False)
        self.say(self.door.helo)

    async def smtp_EHLO(self, hostname: str) -> None:
        """Begin a session with extensions, in one reply."""
        self._greeted(hostname, extended=True)
        self.say(self.door.ehlo_in_tls if self.in_tls else self.door.ehlo)

    def _greeted(self, hostname: str, *, extended: bool) -> None:
        self._helo = printable(hostname)
        self._extended = extended
        self._client = None
        self.reset_transaction()

    async def smtp_STARTTLS(self, arg: str | None) -> None:
        """Encrypt the session; all that was said before is forgotten (RFC 3207 §4.2)."""
        if self.door.tls is None or self.in_tls:
            self.fault(replies.TLS_ALREADY if self.in_tls else replies.NO_TLS)
            return
        if arg:
            self.fault(replies.NO_ARGUMENT)
            return
        if self._reader.pending:
            # Commands from before the encryption must not count as said within it.
            self.say(replies.TLS_CROWDED)
            self._closing = True
            return
        self.say(replies.TLS_READY)
        self._write()
        assert self.transport is not None
        try:
            transport = await self.loop.start_tls(
                self.transport,
                self,
                self.door.tls,
                server_side=True,
                ssl_handshake_timeout=self.office.limits.handshake,
            )
        except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
            MESSAGES_REFUSED.labels("tls").inc()
            log.refused(self.address, reason="tls", reply=f"TLS handshake failed: {error}")
            self.transport.abort()
            self.lost()  # which asyncio does not tell a protocol without a handshake
            raise ClientGoneError from error
        if transport is None:
            self.lost()
            raise ClientGoneError
        self._tls_began(transport)
        self._greeted("", extended=False)
        self._login = ""

    async def smtp_AUTH(self, arg: str | None) -> None:
        """Take any login, where one is insisted on; the password is not looked at nor kept."""
        wrong = self._judge_auth()
        words = (arg or "").split()
        if wrong is None and len(words) not in (1, 2):
            wrong = replies.AUTH_SYNTAX
        if wrong is not None:
            self.fault(wrong)
            return
        mechanism = words[0].upper()
        self.office.crowd.rests(self)
        self.session, self.envelope = Session(self.loop), Envelope()
        try:
            if mechanism == "PLAIN":
                result = await self.auth_PLAIN(self, words)
            elif mechanism == "LOGIN":
                result = await self.auth_LOGIN(self, words)
            else:
                self.fault(replies.AUTH_UNKNOWN)
                return
        except ValueError:  # a line without end
            self.fault(replies.LONG_LINE)
            return
        finally:
            self.office.crowd.works(self)
            self.session = self.envelope = None
            self.crlf = self.crlf or self._reader.crlf
        if result.success and isinstance(result.auth_data, LoginPassword):
            self._login = printable(result.auth_data.login.decode("utf-8", "replace")) or "?"
            self._client = None
            self.say(replies.AUTH_OK)

    def _judge_auth(self) -> bytes | None:
        if not self.door.auth:
            return replies.NO_AUTH
        if self._login:
            return replies.AUTH_ALREADY
        return replies.AUTH_LATE if self.in_transaction else None

    def _authenticate(self, mechanism: str, auth_data: Any) -> AuthResult:
        """Accept what aiosmtpd's dialog found."""
        assert isinstance(auth_data, LoginPassword), mechanism
        return AuthResult(success=True, auth_data=auth_data)
