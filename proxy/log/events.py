"""One function per event; each writes one line to standard error.

One grep for a message's id tells its story: kept, repaired, attempt, sent / deferred / dead with
the reply's words. Addresses and replies are taken raw and shown as `[log] addresses` says.
Durations are seconds. No function here ever raises for what it is given to show.
"""

from collections.abc import Sequence
from typing import TypeAlias

from proxy.log.lines import Value
from proxy.log.writer import address, addresses, emit, emit_all, trace, words

Addresses: TypeAlias = tuple[str, ...] | list[str]

_ERROR_CHARACTERS = 500


# The proxy: what becomes of mail that is handed in.


def kept(
    message_id: str,
    /,
    *,
    stream: str,
    rule: str,
    reverse_path: str,
    recipients: Addresses,
    size: int,
    client: str,
    seconds: float,
    repairs: Sequence[str] = (),
) -> None:
    """A message is on disk and its client was told 250, `seconds` after its last octet came.

    `repairs` are the kinds of what had to be mended before Postmark could take it.
    """
    fields: dict[str, Value] = {
        "id": message_id,
        "stream": stream,
        "rule": rule,
        "from": address(reverse_path),
        "to": addresses(recipients),
        "size": size,
        "client": client,
        "seconds": seconds,
    }
    if repairs:
        emit_all(("kept", fields), ("repaired", {"id": message_id, "kinds": repairs}))
    else:
        emit("kept", fields)


def kept_before(message_id: str, /, *, once: str, client: str) -> None:
    """A message came a second time, and is not kept twice: its first 250 had not been heard."""
    emit("kept_before", {"id": message_id, "once": once, "client": client})


def refused(
    client: str,
    *,
    reason: str,
    reply: str,
    reverse_path: str | None = None,
    recipients: Addresses = (),
    message_id: str = "",
    times: int = 1,
) -> None:
    """A client's mail, a part of it, a command or its connection was refused with `reply`.

    `reverse_path` is None when none was given yet; "" is the null one. `message_id` is for mail
    that had one already: it may turn out to have been kept after all. `times`: how often this
    happened since the last line of its kind, where not each has one.
    """
    fields: dict[str, Value] = {"id": message_id} if message_id else {}
    fields |= {"client": client, "reason": reason}
    if reverse_path is not None:
        fields["from"] = address(reverse_path)
    if recipients:
        fields["to"] = addresses(recipients)
    if times > 1:
        fields["times"] = times
    fields["reply"] = words(reply)
    emit("refused", fields)


def client_refused(client: str, *, reply: str) -> None:
    """A client that is not allowed here was turned away at its connect."""
    emit("client_refused", {"client": client, "reply": reply})


def discarded(
    message_id: str,
    /,
    *,
    by: str,
    reverse_path: str,
    recipients: Addresses,
    stream: str = "",
    client: str = "",
) -> None:
    """Mail was thrown away, as a rule (`by` "rule NAME") or a person (`by` "hand") said."""
    fields: dict[str, Value] = {"id": message_id, "by": by}
    if stream:
        fields["stream"] = stream
    fields["from"] = address(reverse_path)
    fields["to"] = addresses(recipients)
    if client:
        fields["client"] = client
    emit("discarded", fields)


def retried(message_id: str, /, *, by: str, stream: str, recipients: Addresses) -> None:
    """A person (`by` "hand") had a dead or deferred message put at its queue's tail."""
    emit(
        "retried",
        {"id": message_id, "by": by, "stream": stream, "to": addresses(recipients)},
    )


def held(hold: str, /, *, by: str, mail: str, user: str, reason: str) -> None:
    """A person (`by` "hand") had `mail`, in words, held from now on."""
    fields: dict[str, Value] = {"by": by, "hold": words(hold), "mail": words(mail)}
    emit("held", {**fields, "user": words(user), "reason": words(reason)})


def released(hold: str, /, *, by: str, mail: str, user: str) -> None:
    """A person (`by` "hand") let `mail`, in words, of a hold go."""
    fields: dict[str, Value] = {"by": by, "hold": words(hold), "mail": words(mail)}
    emit("released", {**fields, "user": words(user)})


# The worker: what becomes of a message's recipients.


def attempt(
    message_id: str,
    /,
    *,
    stream: str,
    recipients: Addresses,
    host: str,
    port: int,
    detail: str,
) -> None:
    """A transaction ended without a verdict on these recipients; another follows."""
    emit(
        "attempt",
        {
            "id": message_id,
            "stream": stream,
            "to": addresses(recipients),
            "host": host,
            "port": port,
            "detail": words(detail),
        },
    )


def sent(
    message_id: str,
    /,
    *,
    stream: str,
    recipients: Addresses,
    reply: str,
    host: str,
    port: int,
    seconds: float,
) -> None:
    """Postmark has it for these recipients, `seconds` after our own 250."""
    emit(
        "sent",
        {
            "id": message_id,
            "stream": stream,
            "to": addresses(recipients),
            "reply": words(reply),
            "host": host,
            "port": port,
            "seconds": seconds,
        },
    )


def deferred(
    message_id: str,
    /,
    *,
    stream: str,
    recipients: Addresses,
    reply: str,
    attempts: int,
    delay: float,
) -> None:
    """These recipients are tried again in `delay` seconds."""
    emit(
        "deferred",
        {
            "id": message_id,
            "stream": stream,
            "to": addresses(recipients),
            "reply": words(reply),
            "attempts": attempts,
            "retry_in": delay,
        },
    )


def dead(message_id: str, /, *, stream: str, recipients: Addresses, reply: str) -> None:
    """These recipients will not get it unless a person has it sent again; it is kept and listed."""
    emit(
        "dead",
        {
            "id": message_id,
            "stream": stream,
            "to": addresses(recipients),
            "reply": words(reply),
        },
    )


def dead_moved(message_id: str, /, *, stream: str, file: str) -> None:
    """A dead letter is no longer in Redis: it is in `file` now, as `[dead]` says."""
    emit("dead_moved", {"id": message_id, "stream": stream, "file": file})


def told(message_id: str, /, *, stream: str, owner: str, dead: int, late: int) -> None:
    """A notice about so many dead and late messages is queued for their owner."""
    emit(
        "told",
        {"id": message_id, "stream": stream, "to": address(owner), "dead": dead, "late": late},
    )


def unknown(message_id: str, /, *, stream: str, recipients: Addresses, detail: str) -> None:
    """The final dot was sent and no reply came: Postmark may have it or not."""
    emit(
        "unknown",
        {
            "id": message_id,
            "stream": stream,
            "to": addresses(recipients),
            "detail": words(detail),
        },
    )


def looked_up(
    message_id: str, /, *, stream: str, recipients: Addresses, result: str, delay: float
) -> None:
    """Postmark was asked for these recipients, and it is still not known what became of them."""
    emit(
        "looked_up",
        {
            "id": message_id,
            "stream": stream,
            "to": addresses(recipients),
            "result": words(result),
            "ask_in": delay,
        },
    )


def look_ups_silent(stream: str, *, detail: str) -> None:
    """Postmark's API does not say what became of mail of `stream`; such mail waits."""
    emit("look_ups_silent", {"stream": stream, "detail": words(detail)})


def look_ups_back(stream: str) -> None:
    """Postmark's API answers again about mail of `stream`."""
    emit("look_ups_back", {"stream": stream})


def returned(message_id: str, /, *, stream: str, detail: str) -> None:
    """A message went back to the head of its queue; no attempt counted."""
    emit("returned", {"id": message_id, "stream": stream, "detail": words(detail)})


def route_paused(stream: str, *, reason: str, detail: str, retry_in: float) -> None:
    """Nothing of `stream` can leave; its mail waits and the next probe comes in `retry_in`."""
    emit(
        "route_paused",
        {"stream": stream, "reason": reason, "detail": words(detail), "retry_in": retry_in},
    )


def route_released(stream: str, *, reason: str, seconds: float) -> None:
    """Mail of `stream` leaves again, after `seconds` of pause."""
    emit("route_released", {"stream": stream, "reason": reason, "seconds": seconds})


def endpoint_down(host: str, port: int, *, detail: str) -> None:
    """One port of a host does not answer as it should; others are tried."""
    emit("endpoint_down", {"host": host, "port": port, "detail": words(detail)})


def endpoint_up(host: str, port: int) -> None:
    """One port of a host, known as down before, works again."""
    emit("endpoint_up", {"host": host, "port": port})


def worker_reaped(worker: str, *, jobs: int) -> None:
    """A worker died; the `jobs` it had claimed are back in their queues."""
    emit("worker_reaped", {"worker": worker, "jobs": jobs})


# Any process.


def started(process: str, **facts: Value) -> None:
    """A process is ready; `facts` say where it listens and what it was told."""
    emit("started", {"process": process, **facts})


def stopping(process: str, *, detail: str) -> None:
    """A process was asked to end, or has to."""
    emit("stopping", {"process": process, "detail": words(detail)})


def notice(text: str) -> None:
    """Something a person should know, but that stops nothing."""
    emit("notice", {"text": words(text)})


def store_away(*, detail: str, process: str = "") -> None:
    """Redis does not answer `process`: no mail is taken and none is claimed."""
    fields: dict[str, Value] = {"process": process} if process else {}
    emit("store_away", {**fields, "detail": words(detail)})


def store_back(*, process: str = "") -> None:
    """Redis answers `process` again."""
    emit("store_back", {"process": process} if process else {})


def store_full(*, detail: str) -> None:
    """The store has no room for more mail until some has left.

    It is refused with 452, or kept in the journal where the limit is Redis's own.
    """
    emit("store_full", {"detail": words(detail)})


def store_has_room(*, detail: str) -> None:
    """The store takes mail again after `store_full`."""
    emit("store_has_room", {"detail": words(detail)})


def store_not_durable(*, reason: str) -> None:
    """Redis could lose what it was given: no mail is taken unless `require_durable` is off."""
    emit("store_not_durable", {"reason": words(reason)})


def store_durable() -> None:
    """Redis keeps on disk what it is given."""
    emit("store_durable", {})


def store_restored(*, messages: int, before: str, hold: str, others: Sequence[str]) -> None:
    """Redis is an older copy of the store that was seen at `before`: it came from a backup.

    `hold` is the name of the hold on its mail, "" when it has none; `others` those that came back
    with it.
    """
    but = f", except what these holds take, which came back too: {', '.join(others)}"
    text = (
        "Redis was restored from a backup. What it has of mail taken before that time may have been"
        f" sent already: it is held, new mail goes out{but if others else ''}. Look with"
        f" `franker queue list`; then `franker queue release {hold}` sends it, `franker queue"
        " delete` throws it away"
        if hold
        else "Redis was restored from a backup; no mail waited in it"
    )
    emit(
        "store_restored",
        {"before": before, "messages": messages, "hold": hold, "text": words(text)},
    )


def journal_used(*, reason: str) -> None:
    """Redis cannot take mail: from now on it is kept in the journal on this host's disk."""
    emit("journal_used", {"reason": words(reason)})


def journal_taken_over(journal: str, *, messages: int) -> None:
    """Another process died with mail in its journal; this one moves it to Redis."""
    emit("journal_taken_over", {"journal": journal, "messages": messages})


def journal_empty(journal: str, *, moved: int, skipped: int) -> None:
    """All mail of a journal is in Redis: `moved` now, `skipped` because it was there already."""
    emit("journal_empty", {"journal": journal, "moved": moved, "skipped": skipped})


def journal_failed(*, detail: str) -> None:
    """The journal cannot be written: mail is refused with 4yz while Redis is away."""
    emit("journal_failed", {"detail": words(detail)})


def journal_torn(journal: str, *, octets: int) -> None:
    """A crash had cut the last writing short; nobody was promised what was cut off."""
    emit("journal_torn", {"journal": journal, "octets": octets})


def journal_damaged(journal: str, *, octets: int) -> None:
    """`octets` of a journal cannot be read: mail may be lost. The file is kept as *.damaged."""
    emit("journal_damaged", {"journal": journal, "octets": octets})


def alert(kind: str, *, subject: str, phase: str, seconds: float, text: str) -> None:
    """Something is wrong, still wrong, or over (`phase`); who is named in [notify] is told."""
    emit(
        "alert",
        {
            "kind": kind,
            "subject": subject,
            "phase": phase,
            "seconds": round(seconds, 3),
            "text": words(text),
        },
    )


def alert_untold(kind: str, *, subject: str, detail: str) -> None:
    """`notify.command` failed: nobody was told of an alert."""
    emit("alert_untold", {"kind": kind, "subject": subject, "detail": words(detail)})


def defect(where: str, *, error: BaseException, message_id: str = "") -> None:
    """Franker itself is wrong at `where`; mail is deferred, never lost. Please report it."""
    fields: dict[str, Value] = {"id": message_id} if message_id else {}
    fields["where"] = where
    fields["error"] = words(f"{type(error).__name__}: {error}")[:_ERROR_CHARACTERS]
    fields["traceback"] = trace(error)
    emit("defect", fields)
