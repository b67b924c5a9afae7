"""The sandbox's own HTTP: a page and JSON of what it took, and failures on demand."""

import html
import json
from typing import TYPE_CHECKING, Any

from aiohttp import web

from proxy.sandbox.faults import Fault, FaultError
from proxy.sandbox.listing import timestamp
from proxy.sandbox.store import Entry

if TYPE_CHECKING:
    from proxy.sandbox.sandbox import Sandbox

PAGE_ROWS = 200

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="3">
<title>Franker sandbox</title><style>
body {{ font: 15px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 75em }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ text-align: left; padding: .3em .6em; border-bottom: 1px solid #ddd }}
td {{ overflow-wrap: anywhere }} .bad {{ color: #a00 }}
</style></head><body>
<h1>Franker sandbox</h1>
<p>A stand-in for Postmark. It took {count} messages; nothing leaves this machine.</p>
{faults}
<table><thead><tr><th>When</th><th>From</th><th>To</th><th>Subject</th><th>Stream</th><th>Tag</th>
<th>By</th><th>Became</th></tr></thead><tbody>
{rows}
</tbody></table></body></html>
"""


def outcome(entry: Entry) -> str:
    """Return in words what Postmark makes of a message after its 250."""
    finding = entry.finding
    if finding.lost:
        return f"lost without a word: {finding.lost}"
    if finding.troubles:
        trouble = finding.troubles[0]
        return f"SMTPApiError {trouble.number}: {trouble.text}"
    return "delivered"


def as_json(entry: Entry) -> dict[str, Any]:
    """Return a message as plain values, its octets left out."""
    taken = entry.taken
    return {
        "number": taken.number,
        "id": taken.id,
        "queue_id": taken.queue_id,
        "at": timestamp(taken.at),
        "host": taken.host,
        "port": taken.port,
        "tls": taken.tls,
        "helo": taken.helo,
        "reverse_path": taken.reverse_path,
        "recipients": list(taken.recipients),
        "delivered": list(entry.delivered),
        "outcome": outcome(entry),
        "stream": taken.stream,
        "tag": taken.tag,
        "metadata": dict(taken.metadata),
        "from": taken.field("From"),
        "subject": taken.subject,
        "size": len(taken.content),
        "fields": [list(pair) for pair in taken.fields],
    }


class Console:
    """Handlers over a sandbox."""

    def __init__(self, sandbox: "Sandbox") -> None:
        self._sandbox = sandbox
        self._store = sandbox.store

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get("/", self._page),
            web.get("/sandbox/messages", self._messages),
            web.delete("/sandbox/messages", self._forget),
            web.get("/sandbox/messages/{id}", self._message),
            web.get("/sandbox/messages/{id}/content", self._content),
            web.get("/sandbox/faults", self._faults),
            web.post("/sandbox/faults", self._fail),
            web.delete("/sandbox/faults", self._mend_all),
            web.delete("/sandbox/faults/{number}", self._mend),
            web.get("/sandbox/connections", self._connections),
            web.delete("/sandbox/connections", self._cut),
        ]

    async def _page(self, _request: web.Request) -> web.StreamResponse:
        newest = reversed(self._store.entries()[-PAGE_ROWS:])
        rows = "\n".join(map(_row, newest))
        faults = "".join(
            f"<li>{_escaped(json.dumps(one))}</li>" for one in self._sandbox.faults.listed()
        )
        listed = f"<h2>Failures in force</h2><ul>{faults}</ul>" if faults else ""
        text = _PAGE.format(count=self._store.count, rows=rows, faults=listed)
        policy = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
        return web.Response(text=text, content_type="text/html", headers=policy)

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        after = request.query.get("after", "0")
        first = int(after) if after.isdigit() else 0
        rows = [as_json(one) for one in self._store.entries() if one.taken.number > first]
        return web.json_response({"count": self._store.count, "messages": rows})

    async def _forget(self, _request: web.Request) -> web.StreamResponse:
        self._store.clear()
        return web.json_response({"count": 0})

    def _found(self, request: web.Request) -> Entry:
        entry = self._store.entry(request.match_info["id"])
        if entry is None:
            raise web.HTTPNotFound(text="no such message\n")
        return entry

    async def _message(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(as_json(self._found(request)))

    async def _content(self, request: web.Request) -> web.StreamResponse:
        entry = self._found(request)
        return web.Response(
            body=entry.taken.content,
            # As plain text: a browser must not run what came by mail.
            headers={"Content-Type": "text/plain", "X-Content-Type-Options": "nosniff"},
        )

    async def _faults(self, _request: web.Request) -> web.StreamResponse:
        return web.json_response({"faults": self._sandbox.faults.listed()})

    async def _fail(self, request: web.Request) -> web.StreamResponse:
        if request.content_type != "application/json":  # no page of a browser can send that
            raise web.HTTPUnsupportedMediaType(text="application/json, please\n")
        try:
            number = self._sandbox.add_fault(Fault(**await request.json()))
        except (FaultError, TypeError, json.JSONDecodeError) as error:
            return web.json_response({"error": str(error)}, status=422)
        return web.json_response({"number": number})

    async def _mend_all(self, _request: web.Request) -> web.StreamResponse:
        self._sandbox.mend()
        return web.json_response({"faults": []})

    async def _mend(self, request: web.Request) -> web.StreamResponse:
        number = request.match_info["number"]
        if not number.isdigit() or not self._sandbox.mend(int(number)):
            raise web.HTTPNotFound(text="no such fault\n")
        return web.json_response({"faults": self._sandbox.faults.listed()})

    async def _connections(self, _request: web.Request) -> web.StreamResponse:
        sandbox = self._sandbox
        made = {f"{host}:{port}": n for (host, port), n in sandbox.connections_made.items()}
        logins = {f"{one.user}/{one.mechanism}/{one.accepted}" for one in self._store.logins}
        return web.json_response(
            {
                "now": len(sandbox.sessions),
                "most": dict(sandbox.most_connections),
                "made": made,
                "logins": len(self._store.logins),
                "kinds_of_login": len(logins),
            }
        )

    async def _cut(self, _request: web.Request) -> web.StreamResponse:
        return web.json_response({"cut": self._sandbox.cut()})


def _escaped(text: str) -> str:
    return html.escape(text.encode("utf-8", "replace").decode())


def _row(entry: Entry) -> str:
    taken = entry.taken
    became = outcome(entry)
    cells = [
        timestamp(taken.at)[11:19],
        taken.field("From") or taken.reverse_path,
        ", ".join(taken.recipients[:5]) + (" ..." if len(taken.recipients) > 5 else ""),
        taken.subject or "(no subject)",
        taken.stream,
        taken.tag,
        f"{taken.port} {taken.tls or 'in clear'}",
    ]
    shown = "".join(f"<td>{_escaped(cell)}</td>" for cell in cells)
    kind = "" if became == "delivered" else ' class="bad"'
    link = f'<a href="/sandbox/messages/{taken.id}/content">{_escaped(became)}</a>'
    return f"<tr>{shown}<td{kind}>{link}</td></tr>"
