"""From a connected socket to a session that may send mail: greeting, STARTTLS, AUTH.

aiosmtplib speaks here; each step that fails becomes a ConnectFailure that says how far it came.
"""

import asyncio
import base64
import binascii
import re
import secrets
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import cast

import aiosmtplib

from worker.replies import MAX_TEXT, ConnectFailure, Phase, Reply
from worker.smarthost import sasl, tls
from worker.smarthost.endpoints import Endpoint
from worker.smarthost.sasl import Login

_MAX_CHALLENGES = 4
# The last prompt of the conversation ("Username:", "Password:"), which servers repeat in a refusal.
_PROMPT = re.compile(r":? *(?:VXNlcm5hbWU6|UGFzc3dvcmQ6)(?=\s*\Z)")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_DOMAIN = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")


def ehlo_name(hostname: str) -> str:
    """Return `hostname` when EHLO may carry it, else an address literal (RFC 5321 §4.1.4)."""
    return hostname if _DOMAIN.fullmatch(hostname) else "[127.0.0.1]"


@dataclass(frozen=True, slots=True)
class Course:
    """What an attempt tells whoever ordered it, and asks of them, on its way.

    `offered` is called when the far end has greeted and offers STARTTLS: it is there. `login_due`,
    with the login to be used, is awaited before that is shown; what it raises ends the attempt.
    """

    offered: Callable[[], None]
    login_due: Callable[[Login], Awaitable[None]]


class Handshake:
    """One attempt at a ready session on a socket that is connected already.

    Owns the socket from the start: it is closed when `run` raises.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        connected: socket.socket,
        *,
        tls_context: ssl.SSLContext,
        local_hostname: str,
        greeting_timeout: float,
        command_timeout: float,
    ) -> None:
        """Prepare; times are seconds."""
        self._endpoint = endpoint
        self._socket = connected
        self._tls = tls_context
        self._greeting_timeout = greeting_timeout
        self._phase = Phase.GREETING
        self._transport: asyncio.BaseTransport | None = None
        self.certificate_expiry: float | None = None
        self.smtp = aiosmtplib.SMTP(
            hostname=endpoint.host,
            sock=connected,
            local_hostname=ehlo_name(local_hostname),
            timeout=command_timeout,
            start_tls=False,  # ours to order, so that a missing offer is told from a broken one
            tls_context=tls_context,
        )

    async def run(
        self, login: Login | None, mechanisms: Sequence[str], course: Course | None = None
    ) -> aiosmtplib.SMTP:
        """Return the client, over verified TLS and logged in unless `login` is None.

        Raises:
            ConnectFailure: it did not come to that.
        """
        try:
            await self._greet()
            if course is not None:
                course.offered()
            await self._start_tls()
            if login is not None:
                if course is not None:
                    await course.login_due(login)
                await self._log_in(login, mechanisms)
        except BaseException as error:
            self._drop()
            failure = self._failure(error)
            if failure is None:
                raise
            if login is not None and failure.phase in (Phase.AUTH, Phase.PROOF):
                failure = _without_secrets(failure, login)
            failure.certificate_expiry = self.certificate_expiry
            raise failure from None  # its cause may quote what the server repeated of the login
        return self.smtp

    async def _greet(self) -> None:
        await self.smtp.connect(timeout=self._greeting_timeout)
        self._transport = self.smtp.transport
        self._phase = Phase.EHLO
        await self.smtp.ehlo()
        if not self.smtp.supports_extension("starttls"):
            raise ConnectFailure(Phase.OFFER, None, "nothing is sent in clear")

    async def _start_tls(self) -> None:
        self._phase = Phase.STARTTLS
        await self.smtp.starttls()
        self._transport = self.smtp.transport
        self._phase = Phase.EHLO
        self.certificate_expiry = tls.certificate_expiry(self.smtp.get_transport_info("peercert"))
        await self.smtp.ehlo()

    async def _log_in(self, login: Login, mechanisms: Sequence[str]) -> None:
        offered = self.smtp.server_auth_methods
        mechanism = sasl.choose(mechanisms, offered)
        if mechanism is None:
            names = " ".join(offered).upper() or "none"
            raise ConnectFailure(
                Phase.MECHANISM, None, f"offered: {names}; configured: {' '.join(mechanisms)}"
            )
        self._phase = Phase.AUTH
        conversation = sasl.start(mechanism, login, self._endpoint.host, secrets.token_hex(16))
        command = [b"AUTH", mechanism.encode()]
        if conversation.initial is not None:
            command.append(base64.b64encode(conversation.initial))
        response = await self.smtp.execute_command(*command)
        for _ in range(_MAX_CHALLENGES):
            if response.code != 334:
                break
            try:
                answer = conversation.respond(_decoded(response.message))
            except sasl.SaslFault as fault:
                raise ConnectFailure(Phase.PROOF, None, str(fault)) from fault
            response = await self.smtp.execute_command(base64.b64encode(answer))
        if response.code // 100 != 2:
            raise aiosmtplib.SMTPAuthenticationError(response.code, response.message)
        if not conversation.complete:
            raise ConnectFailure(
                Phase.PROOF, None, f"{mechanism} was cut short: the server proved nothing"
            )

    def _drop(self) -> None:
        """Close at once: no farewell that a silent server could hold up."""
        for transport in (self._transport, self.smtp.transport):
            if transport is not None:
                cast(asyncio.WriteTransport, transport).abort()  # uvloop's are of no such class
        self.smtp.close()
        if self._transport is None:
            self._socket.close()

    def _failure(self, error: BaseException) -> ConnectFailure | None:
        """Return what `error` means, or None when it is none of the far end's making."""
        if isinstance(error, ConnectFailure):
            return error
        if isinstance(error, ssl.SSLCertVerificationError):
            return ConnectFailure(Phase.CERTIFICATE, None, tls.why_not_verified(error))
        if isinstance(error, ssl.SSLError):
            reason = (error.reason or str(error)).lower().replace("_", " ")
            return ConnectFailure(Phase.HANDSHAKE, None, reason)
        if isinstance(error, aiosmtplib.SMTPResponseException):
            if 200 <= error.code < 600:
                reply = Reply(error.code, _storable(error.message))
                return ConnectFailure(self._phase, reply, str(reply))
            return ConnectFailure(self._phase, None, _storable(error.message))
        if isinstance(error, OSError | aiosmtplib.SMTPException | UnicodeError):
            reason = getattr(error, "message", None) or str(error) or type(error).__name__
            return ConnectFailure(self._phase, None, _storable(str(reason)))
        return None


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text.encode("ascii", "replace"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise sasl.SaslFault("a challenge that is not base64") from error


def _storable(text: str) -> str:
    """Return a reply's text without the surrogates that aiosmtplib puts for strange octets."""
    return text.encode("utf-8", "backslashreplace").decode()[:MAX_TEXT]


def _without_secrets(failure: ConnectFailure, login: Login) -> ConnectFailure:
    """Return `failure` with whatever the server repeated of the login made unreadable.

    The prompt that it repeats is left out.
    """
    plain = f"\0{login.user}\0{login.password}"
    hidden = [
        form
        for secret in (plain, login.password, login.user)
        for form in (base64.b64encode(secret.encode()).decode(), secret)
        if len(secret) > 3
    ]

    def clean(text: str) -> str:
        for form in hidden:
            text = text.replace(form, "***")
        return _PROMPT.sub("", text)

    reply = failure.reply and Reply(failure.reply.code, clean(failure.reply.text))
    return ConnectFailure(failure.phase, reply, clean(failure.detail))
