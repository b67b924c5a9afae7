"""Commands as they come in: read line by line, obeyed one by one, whatever they are."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from proxy import log
from proxy.listener import replies
from proxy.listener.connection import ClientGoneError, SmtpConnection
from proxy.listener.door import Door
from proxy.metrics.intake import DEFECTS

_ENDLESS_LINE = 1_000_000  # octets of a command line: then it is not SMTP
_ERRORS = 30  # faulty commands in a row: then neither
_HTTP = frozenset({b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"CONNECT", b"HOST:"})


class SmtpProtocol(SmtpConnection):
    """The loop around the commands, which subclasses have as `smtp_NAME` coroutines."""

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

    async def _handle_client(self) -> None:
        """Greet, and obey commands until the client or somebody here ends the session."""
        try:
            await self.push(self.door.greeting)
            while not self._closing:
                line = await self._next_line()
                if line is None:
                    break
                await self._obey(line)
                if self.office.stopping and not self.in_transaction and not self._closing:
                    self._out.append(replies.STOPPING)
                    break
        except ClientGoneError:
            pass
        except Exception as error:
            await self.handle_exception(error)
            self._out.append(replies.OUR_FAULT_CLOSING)
        finally:
            self.end()

    async def _next_line(self) -> bytes | None:
        """Return the next command line with its end; None when no more will come."""
        reader = self._reader
        skipped = 0
        before = b""
        if not reader.has_line:
            await self.flush()
        while True:
            self._idle = True
            try:
                line = await reader.readuntil(b"\n")
            except (asyncio.IncompleteReadError, OSError):
                return None
            except asyncio.LimitOverrunError as error:
                before = await reader.read(max(1, error.consumed))
                skipped += len(before)
                if skipped > _ENDLESS_LINE:
                    self._out.append(replies.LONG_LINE)
                    self._out.append(replies.TOO_MANY_ERRORS)
                    return None
                continue
            finally:
                self._idle = False
            self.touch()
            if line.endswith(b"\r\n") or (line == b"\n" and before.endswith(b"\r")):
                self.crlf = True
            if not skipped:
                return line
            skipped, before = 0, b""
            await self.fault(replies.LONG_LINE)

    async def _obey(self, line: bytes) -> None:
        words = line.split(None, 1)
        verb = words[0].upper() if words else b""
        argument = words[1].strip() if len(words) > 1 else b""
        method = self.commands.get(verb)
        if method is None:
            if verb in _HTTP:
                # A web page in a browser on this host can make it send such requests, with a
                # body that is SMTP: nothing of it may be obeyed.
                log.refused(self.address, reason="http", reply=replies.words(replies.NOT_SMTP))
                self._out.append(replies.NOT_SMTP)
                self._closing = True
                return
            await self.fault(replies.UNKNOWN_COMMAND)
            return
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

    async def fault(self, answer: bytes) -> None:
        """Answer a command that makes no sense; after many of them in a row, end the session."""
        self._errors += 1
        if self._errors >= _ERRORS:
            self._out.append(answer)
            self._out.append(replies.TOO_MANY_ERRORS)
            self._closing = True
        else:
            await self.push(answer)
