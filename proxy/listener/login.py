"""AUTH's dialogs (RFC 4954): aiosmtpd's, with a client that a session of ours speaks to."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword, Session

from proxy.listener.reader import Reader

# What it says at WARNING is what clients do; what matters of that is logged by the session.
logging.getLogger("mail.log").setLevel(logging.ERROR)


class Login(SMTP):
    """One dialog. Any login is taken; the password is not looked at nor kept."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, reader: Reader, say: Callable[[bytes], None]
    ) -> None:
        """`say` is given whole replies."""
        # SMTP.__init__ is left out: it searches class and handler by reflection, asks DNS for the
        # host's name, and empties a dict that all share. The dialogs need no more than this.
        self.session = Session(loop)
        self._reader = reader  # type: ignore[assignment]  # of a StreamReader only readline is used
        self._say = say

    async def converse(self, mechanism: str, words: list[str]) -> bytes | None:
        """Return the login's name; None when there is none, of which the client was told.

        `mechanism` is "PLAIN" or "LOGIN", `words` what stood behind AUTH.

        Raises:
            ValueError: a line of the client's is too long.
        """
        dialog = self.auth_PLAIN if mechanism == "PLAIN" else self.auth_LOGIN
        result = await dialog(self, words)
        if result.success and isinstance(result.auth_data, LoginPassword):
            return result.auth_data.login
        return None

    async def push(self, status: bytes | str) -> None:
        """Say `status`, without its CRLF."""
        if isinstance(status, str):
            status = status.encode("ascii", "backslashreplace")
        self._say(status + b"\r\n")

    def _authenticate(self, mechanism: str, auth_data: Any) -> AuthResult:
        """Accept what aiosmtpd's dialog found."""
        assert isinstance(auth_data, LoginPassword), mechanism
        return AuthResult(success=True, auth_data=auth_data)
