"""The SMTP session: the commands of RFC 5321 and what is offered beside them.

SIZE (RFC 1870), PIPELINING (2920), 8BITMIME (6152), SMTPUTF8 (6531), ENHANCEDSTATUSCODES (2034),
where an address is configured for it AUTH (4954) and STARTTLS (3207). A mail may begin without
HELO, after HELO, or after EHLO with any argument or none.
"""

import asyncio
import time
from typing import Any

from aiosmtpd.smtp import AuthResult, LoginPassword, Session
from aiosmtpd.smtp import Envelope as SmtpEnvelope

from proxy import log
from proxy.listener import replies
from proxy.listener.commands import (
    MAIL_PARAMETERS,
    RCPT_PARAMETERS,
    PathArgument,
    declared_size,
    parse_path,
)
from proxy.listener.content import Content
from proxy.listener.door import Door
from proxy.listener.peer import local_uid, plain_address, unix_uid, user_name
from proxy.listener.protocol import NEVER, ClientGoneError, SmtpProtocol
from proxy.mail.envelope import Client, Envelope
from proxy.metrics.intake import MESSAGES_REFUSED

_LONGEST_NAME = 255  # of HELO's argument and of a login, as they are kept


def printable(text: str) -> str:
    """Return what a client said of itself, fit for a header field and the log."""
    fit = "".join(letter if "!" <= letter <= "~" else "?" for letter in text[:_LONGEST_NAME])
    return fit.strip("?")


class SmtpSession(SmtpProtocol):
    """One client's dialog."""

    def __init__(self, door: Door, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(door, loop)
        self._helo = ""
        self._extended = False
        self._login = ""
        self._client: Client | None = None
        self._sender: str | None = None
        self._recipients: dict[str, None] = {}
        self._size = 0  # as SIZE declared it
        self._notify = False  # somebody among the recipients did not say NOTIFY=NEVER

    @property
    def in_transaction(self) -> bool:
        """Whether there was a MAIL whose end has not come yet."""
        return self._sender is not None

    def reset_transaction(self) -> None:
        """Forget what MAIL and RCPT said."""
        self._sender = None
        self._recipients = {}
        self._size = 0
        self._notify = False

    @property
    def client(self) -> Client:
        """Who is speaking, as far as is known by now."""
        if self._client is None:
            protocol = "ESMTP" if self._extended else "SMTP"
            if self._extended:
                protocol += ("S" if self.in_tls else "") + ("A" if self._login else "")
            uid = self._uid() if self.office.intake.wants_users else None
            self._client = Client(
                address=self.address,
                helo=self._helo,
                protocol=protocol,
                login=self._login,
                uid=uid,
                user="" if uid is None else user_name(uid),
            )
        return self._client

    def _uid(self) -> int | None:
        if self.address == "unix":
            return unix_uid(self.connection)
        server = self.connection.getsockname()
        return local_uid((self.address, self.port), (plain_address(server[0]), server[1]))

    async def refuse(self, answer: bytes, reason: str, recipient: str | None = None) -> None:
        """Answer with a refusal, and have it counted and logged."""
        MESSAGES_REFUSED.labels(reason).inc()
        log.refused(
            self.address,
            reason=reason,
            reply=replies.words(answer),
            reverse_path=self._sender,
            recipients=tuple(self._recipients) if recipient is None else (recipient,),
        )
        await self.push(answer)

    # Greetings

    async def smtp_HELO(self, hostname: str) -> None:  # noqa: N802 - aiosmtpd's names
        """Begin a session without extensions."""
        self._greeted(hostname, extended=False)
        await self.push(self.door.helo)

    async def smtp_EHLO(self, hostname: str) -> None:  # noqa: N802
        """Begin a session with extensions, in one reply."""
        self._greeted(hostname, extended=True)
        await self.push(self.door.ehlo_in_tls if self.in_tls else self.door.ehlo)

    def _greeted(self, hostname: str, *, extended: bool) -> None:
        self._helo = printable(hostname)
        self._extended = extended
        self._client = None
        self.reset_transaction()

    # The mail

    async def smtp_MAIL(self, arg: str | None) -> None:  # noqa: N802
        """Begin a mail."""
        if self._sender is not None:
            await self.fault(replies.SECOND_MAIL)
            return
        path = parse_path("FROM", arg or "")
        if path is None:
            await self.fault(replies.MAIL_SYNTAX)
            return
        size = 0
        if path.parameters:
            wrong = self._judge_mail_parameters(path)
            if wrong is not None:
                await self.fault(wrong)
                return
            size = declared_size(path.parameters) or 0
            limit = self.office.limits.message_size
            if size > limit:
                await self.refuse(replies.too_large(size, limit), "size")
                return
            if size and not self.office.memory.fits(size):
                await self.refuse(replies.NO_MEMORY, "memory")
                return
        refusal = self.office.intake.check_sender(path.address)
        if refusal is not None:
            answer = replies.reply(refusal.code, refusal.enhanced, refusal.text)
            self._sender = path.address  # for the log
            await self.refuse(answer, refusal.reason)
            self.reset_transaction()
            return
        self._sender = path.address
        self._size = size
        self._errors = 0
        await self.push(replies.SENDER_OK)

    def _judge_mail_parameters(self, path: PathArgument) -> bytes | None:
        for name in path.parameters:
            if name not in MAIL_PARAMETERS:
                return replies.unknown_parameter(name)
        if declared_size(path.parameters) is None:
            return replies.SIZE_SYNTAX
        if path.parameters.get("BODY", "7BIT").upper() not in ("7BIT", "8BITMIME"):
            return replies.BODY_SYNTAX
        return None

    async def smtp_RCPT(self, arg: str | None) -> None:  # noqa: N802
        """Add a recipient."""
        if self._sender is None:
            await self.fault(replies.NO_MAIL)
            return
        path = parse_path("TO", arg or "")
        if path is None or not path.address:
            await self.fault(replies.RCPT_SYNTAX)
            return
        for name in path.parameters:
            if name not in RCPT_PARAMETERS:
                await self.fault(replies.unknown_parameter(name))
                return
        address = path.address
        limit = self.office.limits.recipients
        if len(self._recipients) >= limit and address not in self._recipients:
            await self.refuse(replies.too_many_recipients(limit), "recipients", address)
            return
        refusal = self.office.intake.check_recipient(address)
        if refusal is not None:
            answer = replies.reply(refusal.code, refusal.enhanced, refusal.text)
            await self.refuse(answer, refusal.reason, address)
            return
        self._recipients[address] = None
        if path.parameters.get("NOTIFY", "").upper() != "NEVER":
            self._notify = True
        await self.push(replies.RECIPIENT_OK)

    async def smtp_DATA(self, arg: str | None) -> None:  # noqa: N802
        """Take the message, and answer once it is kept."""
        self.data_refused = True
        if arg:
            await self.fault(replies.NO_ARGUMENT)
            return
        if self._sender is None:
            await self.fault(replies.NO_MAIL)
            return
        if not self._recipients:
            # Whoever begins with MAIL again after this is understood.
            self.reset_transaction()
            await self.fault(replies.NO_RECIPIENT)
            return
        if self._size and not self._count_at_least(self._size):
            await self.refuse(replies.NO_MEMORY, "memory")
            self.reset_transaction()
            return
        self.data_refused = False
        self._out.append(replies.GO_AHEAD)
        try:
            content = await self.receive_content()
            if content.whole:
                await self.push(await self._keep(content))
            elif content.size > content.limit:
                await self._refuse_too_large(content)
            else:
                await self.refuse(replies.NO_MEMORY, "memory")
        finally:
            self.reset_transaction()
            self._count(0)

    async def _keep(self, content: Content) -> bytes:
        """Have the message judged and put on disk; return the reply that says what became of it."""
        intake = self.office.intake
        assert self._sender is not None
        envelope = Envelope(self._sender, tuple(self._recipients), self.client, notify=self._notify)
        # Nothing here holds on to the content: the job's body is in memory instead of it.
        outcome = intake.decide(envelope, content.take(), time.monotonic())
        if isinstance(outcome, bytes):
            return outcome
        self._count(len(outcome.job.body))
        self.deadline = NEVER  # the client waits for us now
        try:
            return await intake.keep(outcome)
        finally:
            self.touch()

    async def _refuse_too_large(self, content: Content) -> None:
        if self._content_answered:
            self._content_answered = False
            self.touch()
            return
        await self.refuse(replies.too_large(content.size, content.limit), "size")

    # The rest

    async def smtp_RSET(self, arg: str | None) -> None:  # noqa: N802
        """Forget the mail that was begun."""
        if arg:
            await self.fault(replies.NO_ARGUMENT)
            return
        self.reset_transaction()
        await self.push(replies.OK)

    async def smtp_NOOP(self, _arg: str | None) -> None:  # noqa: N802
        """Do nothing."""
        await self.push(replies.OK)

    async def smtp_QUIT(self, _arg: str | None) -> None:  # noqa: N802
        """End the session."""
        self._out.append(replies.BYE)
        self._closing = True
        self._linger = False

    async def smtp_VRFY(self, _arg: str | None) -> None:  # noqa: N802
        """Say neither yes nor no."""
        await self.push(replies.CANNOT_VERIFY)

    async def smtp_HELP(self, _arg: str | None) -> None:  # noqa: N802
        """Say what this is."""
        await self.push(replies.HELP)

    async def smtp_EXPN(self, _arg: str | None) -> None:  # noqa: N802
        """Not offered."""
        await self.fault(replies.NOT_IMPLEMENTED)

    # What some clients insist on

    async def smtp_STARTTLS(self, arg: str | None) -> None:  # noqa: N802
        """Encrypt the session; all that was said before is forgotten (RFC 3207 §4.2)."""
        if self.door.tls is None or self.in_tls:
            await self.fault(replies.TLS_ALREADY if self.in_tls else replies.NO_TLS)
            return
        if arg:
            await self.fault(replies.NO_ARGUMENT)
            return
        if self._reader.pending:
            # Commands from before the encryption must not count as said within it.
            self._out.append(replies.TLS_CROWDED)
            self._closing = True
            return
        self._out.append(replies.TLS_READY)
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

    async def smtp_AUTH(self, arg: str | None) -> None:  # noqa: N802
        """Take any login, where one is insisted on; the password is not looked at nor kept."""
        wrong = self._judge_auth()
        words = (arg or "").split()
        if wrong is None and len(words) not in (1, 2):
            wrong = replies.AUTH_SYNTAX
        if wrong is not None:
            await self.fault(wrong)
            return
        mechanism = words[0].upper()
        self.session, self.envelope = Session(self.loop), SmtpEnvelope()
        try:
            if mechanism == "PLAIN":
                result = await self.auth_PLAIN(self, words)
            elif mechanism == "LOGIN":
                result = await self.auth_LOGIN(self, words)
            else:
                await self.fault(replies.AUTH_UNKNOWN)
                return
        except ValueError:  # a line without end
            await self.fault(replies.LONG_LINE)
            return
        finally:
            self.session = self.envelope = None
            self.crlf = self.crlf or self._reader.crlf
        if result.success and isinstance(result.auth_data, LoginPassword):
            self._login = printable(result.auth_data.login.decode("utf-8", "replace")) or "?"
            self._client = None
            await self.push(replies.AUTH_OK)

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
