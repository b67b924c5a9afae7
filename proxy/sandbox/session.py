"""One SMTP session of the sandbox, speaking as Postmark's front end (a Postfix) does."""

import base64
import binascii
import re
import secrets
from typing import Protocol

from proxy.sandbox import sasl
from proxy.sandbox.account import Account
from proxy.sandbox.connection import SIZE_LIMIT, Connection, Over, Premises
from proxy.sandbox.ports import Port

_MAIL = re.compile(r"(?i)FROM:\s*<([^<>]*)>\s*(.*)")
_RCPT = re.compile(r"(?i)TO:\s*<(?:@[^:<>]*:)?([^<>]+)>\s*(.*)")
_MAIL_PARAMETERS = frozenset({"SIZE", "BODY", "AUTH", "RET", "ENVID"})
_RCPT_PARAMETERS = frozenset({"NOTIFY", "ORCPT"})


class PostOffice(Premises, Protocol):
    """What a session knows of its sandbox beyond that: the account, and where mail is handed in."""

    account: Account
    recipient_limit: int

    def tried(self, mechanism: str, user: str, *, accepted: bool, session: "Session") -> None:
        """Note that somebody tried to log in."""

    def take(
        self, session: "Session", reverse_path: str, recipients: tuple[str, ...], content: bytes
    ) -> str:
        """Keep one message and return its queue id."""
        ...


class Session(Connection):
    """The commands of a client, and where it stands with them."""

    def __init__(self, sandbox: PostOffice, port: Port) -> None:
        super().__init__(sandbox, port)
        self._office = sandbox
        self.user = ""  # who logged in
        self.helo = ""
        self._mail_from: str | None = None
        self._recipients: list[str] = []

    async def converse(self) -> None:
        """Greet, then answer one command after the other."""
        if not await self.fails("connect"):
            self.say(f"220 {self.hostname} ESMTP {self.__ident__}")
        while True:
            line = await self.read_line()
            self._reset_timeout()
            verb, _, argument = line.partition(" ")
            command = _COMMANDS.get(verb.upper())
            if command is None:
                self.refuse("502 5.5.2 Error: command not recognized")
            else:
                await command(self, argument.strip())

    def _parties(self) -> list[str]:
        return [self._mail_from or "", *self._recipients]

    def _forget_transaction(self) -> None:
        self._mail_from = None
        self._recipients = []

    async def _helo(self, hostname: str) -> None:
        """RFC 5321 §4.1.1.1."""
        if not hostname:
            self.refuse("501 Syntax: HELO hostname")
            return
        self._greeted(hostname)
        self.say(f"250 {self.hostname}")

    async def _ehlo(self, hostname: str) -> None:
        """RFC 5321 §4.1.1.1, with the extensions seen at Postmark."""
        if not hostname:
            self.refuse("501 Syntax: EHLO hostname")
            return
        if await self.fails("ehlo", hostname):
            return
        self._greeted(hostname)
        offers = ["PIPELINING", f"SIZE {SIZE_LIMIT}", "VRFY", "ETRN"]
        if self._tls_protocol is None:
            offers.append("STARTTLS")
        offers += [
            "AUTH " + " ".join(sasl.MECHANISMS),
            "ENHANCEDSTATUSCODES",
            "8BITMIME",
            "DSN",
        ]
        hidden = self._sandbox.faults.hidden(self.address, self.port)
        if hidden:
            offers = [one for one in offers if one.partition(" ")[0] not in hidden]
            mechanisms = [one for one in sasl.MECHANISMS if one not in hidden]
            offers = [
                "AUTH " + " ".join(mechanisms) if one.startswith("AUTH ") else one for one in offers
            ]
        lines = [self.hostname, *offers]
        self.say("\r\n".join(f"250-{one}" for one in lines[:-1]) + f"\r\n250 {lines[-1]}")

    def _greeted(self, hostname: str) -> None:
        self.helo = hostname
        self._forget_transaction()

    async def _starttls(self, arg: str) -> None:
        """RFC 3207; leaves behind all that was known before."""
        if self._tls_protocol is not None:
            self.refuse("554 5.5.1 Error: TLS already active")
            return
        if arg:
            self.refuse("501 5.5.4 Syntax: STARTTLS")
            return
        if await self.fails("starttls"):
            return
        fault = self._sandbox.faults.strike("tls", self.address, self.port)
        if fault is not None:
            self.say("220 2.0.0 Ready to start TLS")
            await self.suffer(fault)
        await self.start_tls()
        self.user = self.helo = ""
        self._forget_transaction()

    async def _auth(self, arg: str) -> None:
        """RFC 4954, offered in the clear as well, as Postmark's front end did when seen."""
        name, _, initial = arg.partition(" ")
        name = name.upper()
        if self.user:
            self.refuse("503 5.5.1 Error: already authenticated")
        elif not self.helo:
            self.refuse("503 5.5.1 Error: send HELO/EHLO first")
        elif self._mail_from is not None:
            self.refuse("503 5.5.1 Error: MAIL transaction in progress")
        elif name not in sasl.MECHANISMS:
            self.refuse("535 5.7.8 Error: authentication failed: Invalid authentication mechanism")
        else:
            await self._authenticate_by(name, initial)

    async def _authenticate_by(self, name: str, initial: str) -> None:
        exchange = sasl.MECHANISMS[name](
            self._office.account.password, secrets.token_hex(12), self.hostname
        )
        user, accepted = "", False
        try:
            challenge = next(exchange)
            if initial and name in sasl.INITIAL_RESPONSE:
                challenge = exchange.send(b"" if initial == "=" else _decoded(initial))
            while True:
                self.say("334 " + base64.b64encode(challenge).decode())
                response = await self.read_line()
                if response == "*":
                    self.refuse("501 5.7.0 Authentication aborted")
                    return
                challenge = exchange.send(_decoded(response))
        except StopIteration as end:
            user, accepted = end.value, True
        except sasl.LoginRefused as refused:
            user = refused.user
        except binascii.Error:
            self.refuse("501 5.5.2 Error: Invalid base64 data in response")
            return
        self._office.tried(name, user, accepted=accepted, session=self)
        if await self.fails("auth", user):
            return
        if accepted:
            self.user = user
            self.say("235 2.7.0 Authentication successful")
        else:
            self.refuse("535 5.7.8 Error: authentication failed: UGFzc3dvcmQ6")

    async def _mail(self, arg: str) -> None:
        """RFC 5321 §4.1.1.2."""
        match = _MAIL.fullmatch(arg)
        if not self.helo:
            self.refuse("503 5.5.1 Error: send HELO/EHLO first")
        elif self._mail_from is not None:
            self.refuse("503 5.5.1 Error: nested MAIL command")
        elif match is None:
            self.refuse("501 5.5.4 Syntax: MAIL FROM:<address>")
        elif complaint := _complaint(match[1], match[2], _MAIL_PARAMETERS):
            self.refuse(complaint)
        elif not await self.fails("mail", match[1]):
            self._mail_from = match[1]
            self.say("250 2.1.0 Ok")

    async def _rcpt(self, arg: str) -> None:
        """RFC 5321 §4.1.1.3. Without a login nothing is relayed."""
        match = _RCPT.fullmatch(arg)
        limit = self._office.recipient_limit
        if self._mail_from is None:
            self.refuse("503 5.5.1 Error: need MAIL command")
        elif match is None:
            self.refuse("501 5.1.3 Bad recipient address syntax")
        elif not self.user:
            self.refuse(f"554 5.7.1 <{match[1]}>: Relay access denied")
        elif complaint := _complaint(match[1], match[2], _RCPT_PARAMETERS):
            self.refuse(complaint)
        elif limit and len(self._recipients) >= limit:
            self.say("452 4.5.3 Error: too many recipients")
        elif not await self.fails("rcpt", match[1]):
            self._recipients.append(match[1])
            self.say("250 2.1.5 Ok")

    async def _data(self, arg: str) -> None:
        """RFC 5321 §4.1.1.4."""
        if self._mail_from is None:
            self.refuse("503 5.5.1 Error: need MAIL command")
        elif not self._recipients:
            self.refuse("554 5.5.1 Error: no valid recipients")
        elif arg:
            self.refuse("501 5.5.4 Syntax: DATA")
        elif not await self.fails("data", *self._parties()):
            self.say("354 End data with <CR><LF>.<CR><LF>")
            content = await self.read_content(*self._parties())
            if content is None:
                self.refuse("552 5.3.4 Error: message file too big")
            elif not await self.fails("dot", *self._parties()):
                self._errors = 0  # Postfix counts those since the last message
                queue_id = self._office.take(
                    self, self._mail_from, tuple(self._recipients), content
                )
                if not await self.fails("taken", *self._parties()):
                    self.say(f"250 2.0.0 Ok: queued as {queue_id}")
            self._forget_transaction()

    async def _rset(self, _arg: str) -> None:
        """RFC 5321 §4.1.1.5."""
        if not await self.fails("rset"):
            self._forget_transaction()
            self.say("250 2.0.0 Ok")

    async def _noop(self, _arg: str) -> None:
        """RFC 5321 §4.1.1.9."""
        if not await self.fails("noop"):
            self.say("250 2.0.0 Ok")

    async def _vrfy(self, arg: str) -> None:
        """RFC 5321 §4.1.1.6: tells nobody anything."""
        self.say(f"252 2.0.0 {arg}")

    async def _etrn(self, _arg: str) -> None:
        """RFC 1985: offered, of no use."""
        self.say("459 4.0.0 Unable to queue messages")

    async def _quit(self, _arg: str) -> None:
        """RFC 5321 §4.1.1.10."""
        if not await self.fails("quit"):
            self.say("221 2.0.0 Bye")
            raise Over


_COMMANDS = {
    "HELO": Session._helo,
    "EHLO": Session._ehlo,
    "STARTTLS": Session._starttls,
    "AUTH": Session._auth,
    "MAIL": Session._mail,
    "RCPT": Session._rcpt,
    "DATA": Session._data,
    "RSET": Session._rset,
    "NOOP": Session._noop,
    "VRFY": Session._vrfy,
    "ETRN": Session._etrn,
    "QUIT": Session._quit,
}


def _decoded(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _complaint(address: str, parameters: str, known: frozenset[str]) -> str:
    """Return the reply that refuses an address or its parameters, "" when all is well."""
    if not address.isascii():
        return "553 5.6.7 Error: SMTPUTF8 is not offered here"
    for parameter in parameters.split():
        name, _, value = parameter.partition("=")
        if name.upper() not in known:
            return f"555 5.5.4 Unsupported option: {parameter}"
        if name.upper() == "SIZE":
            if not value.isdigit():
                return "501 5.5.4 Bad message size syntax"
            if int(value) > SIZE_LIMIT:
                return "552 5.3.4 Message size exceeds fixed limit"
    return ""
