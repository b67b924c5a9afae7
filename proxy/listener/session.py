"""The SMTP session: the commands of RFC 5321 and what is offered beside them.

SIZE (RFC 1870), PIPELINING (2920), 8BITMIME (6152), SMTPUTF8 (6531), ENHANCEDSTATUSCODES (2034),
where an address is configured for it AUTH (4954) and STARTTLS (3207). A mail may begin without
HELO, after HELO, or after EHLO with any argument or none.
"""

import asyncio
import time

from proxy import log
from proxy.listener import replies
from proxy.listener.commands import (
    MAIL_PARAMETERS,
    RCPT_PARAMETERS,
    PathArgument,
    declared_size,
    once_id,
    parse_path,
)
from proxy.listener.connection import NEVER
from proxy.listener.content import Content
from proxy.listener.door import Door
from proxy.listener.identity import IdentifiedProtocol
from proxy.mail.envelope import Envelope
from proxy.metrics.intake import MESSAGES_REFUSED


class SmtpSession(IdentifiedProtocol):
    """One client's dialog."""

    __slots__ = ("_heard", "_intake", "_notify", "_once", "_recipients", "_sender", "_size")

    def __init__(self, door: Door, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(door, loop)
        self._intake = door.office.intake  # the same for the whole of a mail
        self._sender: str | None = None
        self._recipients: dict[str, None] = {}
        self._size = 0  # as SIZE declared it
        self._notify = False  # somebody among the recipients did not say NOTIFY=NEVER
        self._once = ""  # as XONCE said it
        self._heard = ""  # of the last message that was kept

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
        self.transaction_until = NEVER
        self._once = ""

    def refuse(self, answer: bytes, reason: str, recipient: str | None = None) -> None:
        """Answer with a refusal, and have it counted and logged."""
        MESSAGES_REFUSED.labels(reason).inc()
        log.refused(
            self.address,
            reason=reason,
            reply=replies.words(answer),
            reverse_path=self._sender,
            recipients=tuple(self._recipients) if recipient is None else (recipient,),
        )
        self.say(answer)

    # The mail

    def smtp_MAIL(self, arg: str) -> None:
        """Begin a mail."""
        if self._sender is not None:
            self.fault(replies.SECOND_MAIL)
            return
        path = parse_path("FROM", arg)
        if path is None:
            self.fault(replies.MAIL_SYNTAX)
            return
        size = 0
        once = ""
        if path.parameters:
            wrong = self._judge_mail_parameters(path)
            if wrong is not None:
                self.fault(wrong)
                return
            size = declared_size(path.parameters) or 0
            once = once_id(path.parameters) or ""
            limit = self.office.limits.message_size
            if size > limit:
                self.refuse(replies.too_large(size, limit), "size")
                return
            if size and not self.office.memory.fits(size):
                self.refuse(replies.NO_MEMORY, "memory")
                return
        if self._intake is not self.office.intake:  # the configuration has been read again
            self._intake = self.office.intake
            self._client = None  # now it may matter which user it is
        refusal = self._intake.check_sender(path.address)
        if refusal is not None:
            answer = replies.reply(refusal.code, refusal.enhanced, refusal.text)
            self._sender = path.address  # for the log
            self.refuse(answer, refusal.reason)
            self.reset_transaction()
            return
        self._sender = path.address
        self._size = size
        self._once = once
        self._errors = 0
        self.transaction_until = self.office.clock() + self.office.limits.transaction
        if self._client is None and self._intake.wants_users:
            self._client = self._identified()  # whose a connection is shows only while it is open
        self.say(replies.SENDER_OK)

    def _judge_mail_parameters(self, path: PathArgument) -> bytes | None:
        for name in path.parameters:
            if name not in MAIL_PARAMETERS:
                return replies.unknown_parameter(name)
        if declared_size(path.parameters) is None:
            return replies.SIZE_SYNTAX
        if path.parameters.get("BODY", "7BIT").upper() not in ("7BIT", "8BITMIME"):
            return replies.BODY_SYNTAX
        if once_id(path.parameters) is None:
            return replies.ONCE_SYNTAX
        return None

    def smtp_RCPT(self, arg: str) -> None:
        """Add a recipient."""
        if self._sender is None:
            self.fault(replies.NO_MAIL)
            return
        path = parse_path("TO", arg)
        if path is None or not path.address:
            self.fault(replies.RCPT_SYNTAX)
            return
        for name in path.parameters:
            if name not in RCPT_PARAMETERS:
                self.fault(replies.unknown_parameter(name))
                return
        address = path.address
        limit = self.office.limits.recipients
        if len(self._recipients) >= limit and address not in self._recipients:
            self.refuse(replies.too_many_recipients(limit), "recipients", address)
            return
        refusal = self._intake.check_recipient(address)
        if refusal is not None:
            answer = replies.reply(refusal.code, refusal.enhanced, refusal.text)
            self.refuse(answer, refusal.reason, address)
            return
        self._recipients[address] = None
        if path.parameters.get("NOTIFY", "").upper() != "NEVER":
            self._notify = True
        self.say(replies.RECIPIENT_OK)

    def smtp_DATA(self, arg: str) -> None:
        """Have the message sent."""
        self.data_refused = True
        if arg:
            self.fault(replies.NO_ARGUMENT)
            return
        if self._sender is None:
            self.fault(replies.NO_MAIL)
            return
        if not self._recipients:
            # Whoever begins with MAIL again after this is understood.
            self.reset_transaction()
            self.fault(replies.NO_RECIPIENT)
            return
        if self._size and not self._count_at_least(self._size):
            self.refuse(replies.NO_MEMORY, "memory")
            self.reset_transaction()
            return
        self.data_refused = False
        self.transaction_until = NEVER  # from here on it is the content's pace that counts
        self.touch()
        self.say(replies.GO_AHEAD)
        self.receive_content()

    async def content_came(self, content: Content) -> None:
        """Answer the message that has come, once it is kept."""
        try:
            if content.whole:
                self.say(await self._keep(content))
            elif content.size > content.limit:
                self._refuse_too_large(content)
            else:
                self.refuse(replies.NO_MEMORY, "memory")
        finally:
            self.reset_transaction()
            self._count(0)

    async def _keep(self, content: Content) -> bytes:
        """Have the message judged and put on disk; return the reply that says what became of it."""
        intake = self._intake
        assert self._sender is not None
        envelope = Envelope(
            self._sender,
            tuple(self._recipients),
            self.client,
            notify=self._notify,
            once=self._once,
        )
        # Nothing here holds on to the content: the job's body is in memory instead of it.
        outcome = intake.decide(envelope, content.take(), time.monotonic())
        if isinstance(outcome, bytes):
            return outcome
        self._count(len(outcome.job.body))
        self.deadline = NEVER  # the client waits for us now
        try:
            answer = await intake.keep(outcome)
        finally:
            self.touch()
        self._heard = self._once if answer.startswith(b"250 ") else ""
        return answer

    def _refuse_too_large(self, content: Content) -> None:
        if self._content_answered:
            self._content_answered = False
            self.touch()
            return
        self.refuse(replies.too_large(content.size, content.limit), "size")

    # The rest

    def smtp_RSET(self, arg: str) -> None:
        """Forget the mail that was begun."""
        if arg:
            self.fault(replies.NO_ARGUMENT)
            return
        self.reset_transaction()
        self.say(replies.OK)

    def smtp_NOOP(self, _arg: str) -> None:
        """Do nothing."""
        self.say(replies.OK)

    def smtp_QUIT(self, _arg: str) -> None:
        """End the session."""
        if self._heard:
            # Nobody says farewell before he has read what he was told.
            self.office.intake.heard(self._heard)
        self.say(replies.BYE)
        self._closing = True
        self._linger = False

    def smtp_VRFY(self, _arg: str) -> None:
        """Say neither yes nor no."""
        self.say(replies.CANNOT_VERIFY)

    def smtp_HELP(self, _arg: str) -> None:
        """Say what this is."""
        self.say(replies.HELP)

    def smtp_EXPN(self, _arg: str) -> None:
        """Not offered."""
        self.fault(replies.NOT_IMPLEMENTED)
