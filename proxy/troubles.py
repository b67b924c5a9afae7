"""What the proxy sees to be wrong, in words for people: pure."""

from collections.abc import Iterable

from proxy.alerts import Kind, Trouble
from proxy.metrics.depths import Depth

STORE_PATIENCE_S = 10.0
"""How long mail may be refused for the time being, as at a start, before anybody is told."""


def store(host: str, unready: str) -> Trouble:
    """No mail can be kept on `host`, because of `unready`."""
    advice = (
        "Clients hear 451 or 452 and try again later; programs that do not try again lose their"
        " mail. `franker check` looks at the store."
    )
    return Trouble(Kind.STORE, host, f"no mail can be kept: {unready}", advice)


def journal(host: str, messages: int) -> Trouble:
    """Mail waits in the journal of `host`."""
    mail = "1 message is" if messages == 1 else f"{messages} messages are"
    advice = (
        "Mail is taken as always and moved to Redis when that is back; until then none of it is"
        " sent. Bring Redis back before the journal is full ([journal] max_size)."
    )
    headline = f"Redis takes no mail: {mail} in the journal on this host's disk"
    return Trouble(Kind.JOURNAL, host, headline, advice)


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
