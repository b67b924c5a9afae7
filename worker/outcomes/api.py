"""Postmark's Messages and Bounces API, as far as it tells what became of a message of ours."""

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

import aiohttp

from worker.outcomes.findings import (
    REFUSED_LATER,
    AnswerError,
    Found,
    Refused,
    message,
    names_us,
    refusal,
    rows,
)
from worker.smarthost.tls import TrustStore, TrustStoreUnusable

_TIMEOUT_S = 30.0
_CONNECT_S = 10.0
_CONNECTIONS = 4
_MOST_OCTETS = 20_000_000
_ROWS = 500
_T = TypeVar("_T")
_R = TypeVar("_R")


class Unanswered(Exception):
    """The API gave no answer that can be used; str() says why."""


class TokenRefused(Unanswered):
    """The API does not know the token, or it may not ask."""


class Api:
    """Postmark's HTTP API at `url`, over verified TLS (or plainly, on loopback)."""

    def __init__(self, url: str, trust: TrustStore, *, timeout: float = _TIMEOUT_S) -> None:
        """`timeout` is for one question, in seconds."""
        self.connected = False
        """Whether a connection ever came about that can be trusted."""
        self._timeout = timeout
        self._url = url.rstrip("/")
        self._trust = trust
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close its connections."""
        if self._session is not None:
            await self._session.close()

    async def messages(self, token: str, stream_id: str, message_id: str) -> list[Found]:
        """Return the messages of `stream_id` that carry our id `message_id`.

        Raises:
            Unanswered: nobody knows.
        """
        query = {
            "count": str(_ROWS),
            "offset": "0",
            "messagestream": stream_id,
            "metadata_franker-id": message_id,
        }
        found = await self._get(token, "/messages/outbound", query, lambda a: rows(a, "Messages"))
        ours = []
        for row in found:
            said = names_us(row, message_id)
            if said is None:
                path = f"/messages/outbound/{row.get('MessageID')}/details"
                said = names_us(await self._get(token, path, {}, _table), message_id)
            if said:
                ours.append(_read(message, row))
        return ours

    async def refused_as(self, token: str, stream_id: str, postmark_id: str) -> list[Refused]:
        """Return who was refused of the message that Postmark calls `postmark_id`.

        Raises:
            Unanswered: nobody knows.
        """
        found = await self._bounces(token, stream_id, messageID=postmark_id)
        return [one for row in found if (one := refusal(row)) and one.id == postmark_id]

    async def refused_to(
        self,
        token: str,
        stream_id: str,
        address: str,
        message_id: str,
        *,
        most: int,
        but: Collection[str] = (),
    ) -> str:
        """Return Postmark's id of a message to `address`, with our id, that was refused; or "".

        Looks into the newest `most` messages refused to that address, `but` those it names.

        Raises:
            Unanswered: nobody knows.
        """
        found = await self._bounces(token, stream_id, emailFilter=address)
        seen = set(but)
        for row in found:
            one = refusal(row)
            if one is None or one.id in seen:
                continue
            seen.add(one.id)
            if len(seen) - len(but) > most:
                break
            if await self._is_ours(token, row, message_id):
                return one.id
        return ""

    async def _bounces(self, token: str, stream_id: str, **more: str) -> list[Mapping[str, Any]]:
        query = {
            "count": str(_ROWS),
            "offset": "0",
            "type": REFUSED_LATER,
            "messagestream": stream_id,
            **more,
        }
        return await self._get(token, "/bounces", query, lambda a: rows(a, "Bounces"))

    async def _is_ours(self, token: str, row: Mapping[str, Any], message_id: str) -> bool:
        """Tell whether a bounce is of our message: by its metadata, else by its content."""
        said = names_us(row, message_id)
        number = row.get("ID")
        if said is not None or not isinstance(number, int):
            return bool(said)
        whole = await self._get(token, f"/bounces/{number}", {}, _table)
        said = names_us(whole, message_id)
        if said is not None:
            return said
        if message_id in str(whole.get("Content", "")):
            return True
        dump = await self._get(token, f"/bounces/{number}/dump", {}, _table)
        return message_id in str(dump.get("Body", ""))

    async def knock(self) -> None:
        """See whether the API is there, without a token: whatever it answers.

        Raises:
            Unanswered: it is not.
        """
        await self._fetch("/messages/outbound", {"count": "1", "offset": "0"}, {})

    async def _get(
        self, token: str, path: str, query: Mapping[str, str], read: Callable[[object], _T]
    ) -> _T:
        status, octets = await self._fetch(path, query, {"X-Postmark-Server-Token": token})
        if status in (401, 403):
            raise TokenRefused(f"{self._url} answers {status}: {_words(octets)}")
        if status != 200:
            raise Unanswered(f"{self._url} answers {status}: {_words(octets)}")
        return _read(read, _json(octets))

    async def _fetch(
        self, path: str, query: Mapping[str, str], more: Mapping[str, str]
    ) -> tuple[int, bytes]:
        """Return status and octets of the answer."""
        headers = {"Accept": "application/json", **more}
        try:
            context = self._trust.context() if self._url.startswith("https:") else False
            session = self._open()
            # No redirects: the token is for this host only.
            async with session.get(
                self._url + path, params=query, headers=headers, ssl=context, allow_redirects=False
            ) as response:
                return response.status, await _bounded(response)
        except (aiohttp.ClientError, TimeoutError, OSError, TrustStoreUnusable) as error:
            raise Unanswered(f"{self._url}: {error or type(error).__name__}") from error

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            trace = aiohttp.TraceConfig()
            trace.on_connection_create_end.append(self._note_connection)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=_CONNECTIONS),
                timeout=aiohttp.ClientTimeout(total=self._timeout, sock_connect=_CONNECT_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                trace_configs=[trace],
            )
        return self._session

    async def _note_connection(self, *_: object) -> None:
        self.connected = True


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    octets = bytearray()
    async for chunk in response.content.iter_chunked(65536):
        octets += chunk
        if len(octets) > _MOST_OCTETS:
            raise Unanswered(f"an answer of more than {_MOST_OCTETS:,} octets")
    return bytes(octets)


def _json(octets: bytes) -> object:
    try:
        answer: object = json.loads(octets)
    except (ValueError, RecursionError) as error:
        raise Unanswered("the answer is no JSON") from error
    return answer


def _table(answer: object) -> Mapping[str, Any]:
    if not isinstance(answer, dict):
        raise AnswerError("the answer is no object")
    return answer


def _read(read: Callable[[_R], _T], answer: _R) -> _T:
    try:
        return read(answer)
    except AnswerError as error:
        raise Unanswered(str(error)) from error


def _words(octets: bytes) -> str:
    """Return what an error's answer says, short."""
    try:
        return str(json.loads(octets)["Message"])[:200]
    except (ValueError, LookupError, TypeError, RecursionError):
        return octets[:200].decode("utf-8", "replace").strip() or "nothing"
