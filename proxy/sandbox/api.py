"""The part of Postmark's HTTP API that tells what became of mail."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from proxy.sandbox.account import Account
from proxy.sandbox.listing import (
    DEEPEST_ROW,
    MOST_ROWS,
    bounce_wanted,
    message_wanted,
    summary,
    timestamp,
    window,
)
from proxy.sandbox.store import BOUNCE_TYPES, Bounce, Entry, Store

MOST_SUPPRESSIONS = 50
SERVER_ID = 1

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def refusal(status: int, number: int, message: str) -> web.Response:
    """Return an answer in Postmark's form of an error."""
    return web.json_response({"ErrorCode": number, "Message": message}, status=status)


class PostmarkApi:
    """Handlers over what the sandbox took.

    `indexing_delay` is after how many seconds a message is found in a search; how long it takes
    at Postmark is not known.
    """

    def __init__(self, store: Store, clock: Callable[[], float], indexing_delay: float) -> None:
        self._store = store
        self._account: Account = store.account
        self._clock = clock
        self._indexing_delay = indexing_delay

    def routes(self) -> list[web.RouteDef]:
        """Return the routes, each behind the server token."""
        listed: list[tuple[str, str, Handler]] = [
            ("GET", "/server", self._server),
            ("GET", "/message-streams", self._streams),
            ("GET", "/messages/outbound", self._search),
            ("GET", "/messages/outbound/{id}/details", self._details),
            ("GET", "/messages/outbound/{id}/dump", self._dump),
            ("GET", "/bounces", self._bounces),
            ("GET", "/bounces/{number}", self._bounce),
            ("GET", "/bounces/{number}/dump", self._bounce_dump),
            ("PUT", "/bounces/{number}/activate", self._activate),
            ("GET", "/deliverystats", self._delivery_stats),
            ("GET", "/message-streams/{stream}/suppressions/dump", self._suppressions),
            ("POST", "/message-streams/{stream}/suppressions", self._suppress),
            ("POST", "/message-streams/{stream}/suppressions/delete", self._release),
        ]
        return [web.route(verb, path, self._guarded(handler)) for verb, path, handler in listed]

    def _guarded(self, handler: Handler) -> Handler:
        async def guarded(request: web.Request) -> web.StreamResponse:
            token = request.headers.get("X-Postmark-Server-Token", "")
            if token != self._account.token:
                text = (
                    "Bad or missing Server API token."
                    if token
                    else (
                        "No Account or Server API tokens were supplied in the HTTP headers. "
                        "Please add a header for either X-Postmark-Server-Token or "
                        "X-Postmark-Account-Token."
                    )
                )
                return refusal(401, 10, text)
            return await handler(request)

        return guarded

    # -- the server and its streams

    async def _server(self, _request: web.Request) -> web.StreamResponse:
        return web.json_response(
            {
                "ID": SERVER_ID,
                "Name": "Franker sandbox",
                "ApiTokens": [self._account.token],
                "SmtpApiActivated": self._account.smtp_enabled,
                "EnableSmtpApiErrorHooks": False,
                "DeliveryType": "Sandbox",
                "TrackOpens": False,
                "TrackLinks": "None",
            }
        )

    async def _streams(self, _request: web.Request) -> web.StreamResponse:
        kinds = {"transactional": "Transactional", "broadcast": "Broadcasts", "inbound": "Inbound"}
        rows = [
            {
                "ID": name,
                "ServerID": SERVER_ID,
                "Name": name,
                "MessageStreamType": kinds[kind],
                "ArchivedAt": None,
            }
            for name, kind in self._account.streams.items()
        ]
        return web.json_response({"MessageStreams": rows, "TotalCount": len(rows)})

    # -- messages

    async def _search(self, request: web.Request) -> web.StreamResponse:
        asked = window(request.query)
        if asked is None:
            return _bad_window()
        first, count = asked
        newest_shown = self._clock() - self._indexing_delay
        found = [
            entry
            for entry in reversed(self._store.entries())
            if entry.delivered
            and entry.taken.at <= newest_shown
            and message_wanted(entry.taken, request.query)
        ]
        rows = [summary(entry) for entry in found[first : first + count]]
        return web.json_response({"TotalCount": len(found), "Messages": rows})

    def _found(self, request: web.Request) -> Entry | None:
        entry = self._store.entry(request.match_info["id"])
        return entry if entry is not None and entry.delivered else None

    async def _details(self, request: web.Request) -> web.StreamResponse:
        entry = self._found(request)
        if entry is None:
            return refusal(422, 701, "This message was not found.")
        events = [
            {"Recipient": one, "Type": "Delivered", "ReceivedAt": timestamp(entry.taken.at)}
            for one in entry.delivered
        ]
        body = entry.taken.content.decode("utf-8", "replace")
        return web.json_response(summary(entry) | {"Body": body, "MessageEvents": events})

    async def _dump(self, request: web.Request) -> web.StreamResponse:
        entry = self._found(request)
        if entry is None:
            return refusal(422, 701, "This message was not found.")
        return web.json_response({"Body": entry.taken.content.decode("utf-8", "replace")})

    # -- bounces

    async def _bounces(self, request: web.Request) -> web.StreamResponse:
        asked = window(request.query)
        if asked is None:
            return _bad_window()
        first, count = asked
        try:
            found = [b for b in self._store.bounces() if bounce_wanted(b, request.query)]
        except ValueError as error:
            return refusal(422, 1000, f"Invalid bounce query: {error}")
        rows = [self._bounce_row(bounce) for bounce in found[first : first + count]]
        return web.json_response({"TotalCount": len(found), "Bounces": rows})

    def _bounce_of(self, request: web.Request) -> Bounce | None:
        number = request.match_info["number"]
        return next((one for one in self._store.bounces() if str(one.number) == number), None)

    def _bounce_row(self, bounce: Bounce) -> dict[str, Any]:
        taken = bounce.taken
        listed = self._store.suppressions.get(taken.stream, {})
        inactive = bounce.inactive and bounce.email.lower() in listed
        return {
            "RecordType": "Bounce",
            "ID": bounce.number,
            "Type": bounce.type,
            "TypeCode": BOUNCE_TYPES[bounce.type],
            "Name": "SMTP API error" if bounce.type == "SMTPApiError" else bounce.type,
            "Tag": taken.tag,
            "MessageID": taken.id,
            "ServerID": SERVER_ID,
            "MessageStream": taken.stream,
            "Description": bounce.description,
            "Details": bounce.text,
            "Email": bounce.email,
            "From": taken.sender,
            "BouncedAt": timestamp(bounce.at),
            "DumpAvailable": True,
            "Inactive": inactive,
            "CanActivate": inactive,
            "Subject": taken.subject,
        }

    async def _bounce(self, request: web.Request) -> web.StreamResponse:
        bounce = self._bounce_of(request)
        if bounce is None:
            return refusal(422, 1001, "This bounce was not found.")
        content = bounce.taken.content.decode("utf-8", "replace")
        return web.json_response(self._bounce_row(bounce) | {"Content": content})

    async def _bounce_dump(self, request: web.Request) -> web.StreamResponse:
        bounce = self._bounce_of(request)
        if bounce is None:
            return refusal(422, 1001, "This bounce was not found.")
        content = bounce.taken.content.decode("utf-8", "replace")
        return web.json_response({"Body": f"{bounce.text}\r\n\r\n{content}"})

    async def _activate(self, request: web.Request) -> web.StreamResponse:
        bounce = self._bounce_of(request)
        if bounce is None:
            return refusal(422, 1001, "This bounce was not found.")
        if not self._store.release(bounce.taken.stream, bounce.email):
            return refusal(422, 1003, "This bounce cannot be activated.")
        return web.json_response({"Message": "OK", "Bounce": self._bounce_row(bounce)})

    async def _delivery_stats(self, _request: web.Request) -> web.StreamResponse:
        kinds = [bounce.type for bounce in self._store.bounces()]
        rows = [{"Name": "All", "Count": len(kinds)}] + [
            {"Type": kind, "Name": kind, "Count": kinds.count(kind)} for kind in sorted(set(kinds))
        ]
        inactive = sum(map(len, self._store.suppressions.values()))
        return web.json_response({"InactiveMails": inactive, "Bounces": rows})

    # -- suppressions

    async def _suppressions(self, request: web.Request) -> web.StreamResponse:
        stream = request.match_info["stream"]
        if stream not in self._account.streams:
            return refusal(422, 1226, f"The message stream '{stream}' was not found.")
        rows = [
            {
                "EmailAddress": address,
                "SuppressionReason": reason,
                "Origin": "Customer" if reason == "ManualSuppression" else "Recipient",
                "CreatedAt": timestamp(self._clock()),
            }
            for address, reason in self._store.suppressions.get(stream, {}).items()
        ]
        return web.json_response({"Suppressions": rows})

    async def _suppress(self, request: web.Request) -> web.StreamResponse:
        return await self._each_address(
            request,
            lambda stream, address: self._store.suppress(stream, address, "ManualSuppression"),
            "Suppressed",
        )

    async def _release(self, request: web.Request) -> web.StreamResponse:
        return await self._each_address(request, self._store.release, "Deleted")

    async def _each_address(
        self, request: web.Request, act: Callable[[str, str], object], status: str
    ) -> web.StreamResponse:
        stream = request.match_info["stream"]
        if stream not in self._account.streams:
            return refusal(422, 1226, f"The message stream '{stream}' was not found.")
        try:
            addresses = [str(one["EmailAddress"]) for one in (await request.json())["Suppressions"]]
        except (json.JSONDecodeError, LookupError, TypeError):
            return refusal(422, 402, "Invalid JSON: Suppressions, a list with EmailAddress each.")
        if len(addresses) > MOST_SUPPRESSIONS:
            return refusal(422, 300, f"At most {MOST_SUPPRESSIONS} addresses in one call.")
        for address in addresses:
            act(stream, address)
        rows = [{"EmailAddress": a, "Status": status, "Message": None} for a in addresses]
        return web.json_response({"Suppressions": rows})


def _bad_window() -> web.Response:
    return refusal(
        422,
        300,
        f"Parameters 'count' (1 to {MOST_ROWS}) and 'offset' are required, "
        f"their sum is at most {DEEPEST_ROW}.",
    )
