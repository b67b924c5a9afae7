"""Commands as they come in: read line by line, obeyed one by one, whatever they are."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from proxy import log
from proxy.listener import replies
from proxy.listener.connection import LINE_LIMIT, ClientGoneError, SmtpConnection
from proxy.listener.door import Door
from proxy.metrics.intake import DEFECTS, MESSAGES_REFUSED

_ENDLESS_LINE = 1_000_000  # octets of a command line: then it is not SMTP
_UNSENT = 200  # replies that are held back so that they leave together
_ERRORS = 30  # faulty commands in a row: then neither
_HTTP = frozenset({b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"CONNECT", b"HOST:"})


class SmtpProtocol(SmtpConnection):
    """The loop around the commands, which subclasses have as `smtp_NAME` coroutines."""

    __slots__ = ("_errors", "data_refused")

    # By octets as they come, bound to the class: aiosmtpd looks for them in every new session.
    commands: ClassVar[dict[bytes, Callable[[Any, str], Awaitable[None]]]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.commands = {
            name[5:].encode("ascii"): getattr(cls, name)
            for name in dir(cls)
            if name.startswith("smtp_")
        }

    def __init__(self, door: Door, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(door, loop)
        self._errors = 0
        self.data_refused = False  # the last command was DATA, and it was refused

    async def _handle_client(self) -> None:
        """Greet, and obey commands until the client or somebody here ends the session."""
        try:
            self.say(self.door.greeting)
            while not self._closing:
                line = await self._next_line()
                if line is None:
                    break
                await self._obey(line)
                if self.office.stopping and not self.in_transaction and not self._closing:
                    self.say(replies.STOPPING)
                    break
        except ClientGoneError:
            pass
        except Exception as error:
            await self.handle_exception(error)
            self.say(replies.OUR_FAULT_CLOSING)
        finally:
            self.end()

    async def _next_line(self) -> bytes | None:
        """Return the next command line with its end; None when no more will come."""
        while True:
            if len(self._out) >= _UNSENT:
                # Of what came in one piece: memory for the replies, and a turn for the others.
                await self.flush()
                await asyncio.sleep(0)
                if self._closing:
                    return None
            line = self._reader.take_line() or await self._awaited_line()
            if line is None:
                return None
            self.touch()
            if not self.crlf and line.endswith(b"\r\n"):
                self.crlf = True
            if len(line) <= LINE_LIMIT:
                return line
            self.fault(replies.LONG_LINE)

    async def _awaited_line(self) -> bytes | None:
        """Say what there is to say, and wait for a line.

        Of one over LINE_LIMIT only the end comes back, which still is over it.
        """
        reader = self._reader
        await self.flush()
        skipped = 0
        self._idle = True
        rests = not self.in_transaction
        if rests:
            self.office.crowd.rests(self)
        try:
            while (line := reader.take_line()) is None:
                skipped += reader.keep_last(LINE_LIMIT + 1)
                if skipped > _ENDLESS_LINE:
                    self.say(replies.LONG_LINE)
                    self.say(replies.TOO_MANY_ERRORS)
                    return None
                if not await reader.more():
                    return None
        except OSError:
            return None
        finally:
            self._idle = False
            if rests:
                self.office.crowd.works(self)
        return line

    async def _obey(self, line: bytes) -> None:
        words = line.split(None, 1)
        verb = words[0].upper() if words else b""
        argument = words[1].strip() if len(words) > 1 else b""
        method = self.commands.get(verb)
        if method is None:
            if verb in _HTTP:
                # A web page in a browser on this host can make it send such requests, with a
                # body that is SMTP: nothing of it may be obeyed.
                MESSAGES_REFUSED.labels("http").inc()
                log.refused(self.address, reason="http", reply=replies.words(replies.NOT_SMTP))
                self.say(replies.NOT_SMTP)
                self._closing = True
                return
            if self.data_refused:
                # It sends its message all the same, as programs do that read no replies. The
                # session ends here, or what somebody wrote into that message would be obeyed.
                MESSAGES_REFUSED.labels("data").inc()
                log.refused(self.address, reason="data", reply=replies.words(replies.NOT_ASKED))
                self.say(replies.NOT_ASKED)
                self._closing = True
                return
            self.fault(replies.UNKNOWN_COMMAND)
            return
        self.data_refused = False
        try:
            await method(self, argument.decode("utf-8", "surrogateescape"))
        except ClientGoneError:
            raise
        except Exception as error:
            if error is self._reader.exception():
                raise ClientGoneError from error
            await self.push(await self.handle_exception(error))

    async def handle_exception(self, error: Exception) -> str:
        """Log our own error, forget the mail, and return a reply that says nothing of it."""
        log.defect("listener", error=error)
        DEFECTS.labels("listener").inc()
        self.reset_transaction()
        return replies.OUR_FAULT[:-2].decode("ascii")

    def fault(self, answer: bytes) -> None:
        """Answer a command that makes no sense; after many of them in a row, end the session.

        The log has the answer, never the line: it may be a login.
        """
        MESSAGES_REFUSED.labels("syntax").inc()
        log.refused(self.address, reason="syntax", reply=replies.words(answer))
        self._errors += 1
        if self._errors >= _ERRORS:
            self.say(answer)
            self.say(replies.TOO_MANY_ERRORS)
            self._closing = True
        else:
            self.say(answer)
