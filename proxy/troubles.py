"""What the proxy sees to be wrong, in words for people."""

from collections.abc import Iterable

from proxy.alerts import Kind, Trouble
from proxy.metrics.depths import Depth
from proxy.queue.holds import Hold

STORE_PATIENCE_S = 10.0
"""How long mail may be refused for the time being, as at a start, before anybody is told."""


def store(host: str, unready: str) -> Trouble:
    """No mail can be kept on `host`, because of `unready`."""
    advice = (
        "Clients hear 451 or 452 and try again later; programs that do not try again lose their"
        " mail. `franker check` looks at the store."
    )
    return Trouble(Kind.STORE, host, f"no mail can be kept: {unready}", advice)


def journal(host: str, messages: int, obstacle: str, *, refused: bool) -> Trouble:
    """Mail waits in the journal of `host`, or is about to be kept there.

    `obstacle` is what keeps it from the queue, "" when it is on its way; `refused`: no new mail can
    be kept.
    """
    mail = "1 message is" if messages == 1 else f"{messages} messages are"
    where = f"{mail} in the journal on this host's disk"
    if not messages:
        where = "new mail goes to the journal on this host's disk"
    if not obstacle:
        headline = f"{where} and on the way into the queue"
        return Trouble(Kind.JOURNAL, host, headline, "It is sent when it is there.")
    taken = (
        "New mail is refused for now (451 or 452)."
        if refused
        else "Mail is taken as always, as long as the journal has room ([journal] max_size and"
        " disk_floor)."
    )
    advice = (
        f"{taken} What is in the journal enters the queue, and is sent, when this is mended:"
        f" {obstacle}."
    )
    return Trouble(Kind.JOURNAL, host, f"{obstacle}: {where}", advice)


def dead_letters(depths: Iterable[Depth]) -> tuple[Trouble, ...]:
    """Return one for each stream with mail that was refused for good."""
    advice = (
        "`franker queue dead` lists them with Postmark's words; `franker queue retry` sends them"
        " again, `franker queue delete` throws them away."
    )
    found = []
    for depth in depths:
        dead = depth.messages.get("dead", 0)
        if dead:
            mail = "1 message" if dead == 1 else f"{dead} messages"
            headline = f"{mail} of stream {depth.stream} could not be sent for good"
            found.append(Trouble(Kind.DEAD_LETTERS, depth.stream, headline, advice))
    return tuple(found)


def unserved(depths: Iterable[Depth]) -> tuple[Trouble, ...]:
    """Return one for each stream with mail to be sent that nobody has configured (any more)."""
    found = []
    for depth in depths:
        count = sum(number for state, number in depth.messages.items() if state != "dead")
        if depth.unserved and count:
            wait = "1 message waits" if count == 1 else f"{count} messages wait"
            headline = f"{wait} for stream {depth.stream}, which is not configured"
            advice = (
                f"Nobody sends it. It goes when the configuration has [streams.{depth.stream}]"
                " again; `franker queue list --stream` shows it, `franker queue delete` throws it"
                " away."
            )
            found.append(Trouble(Kind.UNSERVED, depth.stream, headline, advice))
    return tuple(found)


def held(holds: Iterable[Hold], *, now: float, after: float) -> tuple[Trouble, ...]:
    """Return one for each hold that a person may not know of, or may have forgotten.

    That is one made by hand when it has stood for `after` seconds at `now` (since 1970).
    """
    advice = (
        "It waits until it is released: `franker queue list` shows what is held and why,"
        " `franker queue release NAME` sends it, `franker queue delete ID` throws it away."
    )
    found = []
    holds = tuple(holds)
    for hold in holds:
        if hold.is_restored:
            # All that is older than the find came out of the backup.
            others = [one for one in holds if one.since < hold.since and not one.is_restored]
            named = "; ".join(f"{one.name}, {one.selection}" for one in others)
            but = f", except what holds take that came back with the backup: {named}"
            headline = f"Redis was restored from a backup: {hold.selection} is held"
            what = (
                "What was sent after the backup was made would be sent twice; so nothing of it is"
                f" sent before you say so. New mail goes out as always{but if others else ''}. "
            )
            found.append(Trouble(Kind.HELD, hold.name, headline, what + advice))
        elif now - hold.since > after:
            headline = f"{hold} is held ({hold.name})"
            found.append(Trouble(Kind.HELD, hold.name, headline, advice))
    return tuple(found)
