"""Who is to blame for what the far end said, and what becomes of each recipient. The only judge.

Pure: replies in, a judgement out; the table of CONTRACT §1 is this page. Two rules stand above it:
what is not certainly a refusal of this mail is tried again, and a 5yz that is about us or the way
out (login, protocol, the far end's own trouble) never makes a dead letter.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from worker.replies import ConnectFailure, Phase, Reply, TransactionReplies


class Blame(IntEnum):
    """Whose fault it was; where a transaction shows several, the highest is named."""

    NOBODY = 0
    MESSAGE = 1
    US = 2  # our defect: what we sent was no proper SMTP to the far end
    CONGESTION = 3  # the far end asks to slow down
    ROUTE = 4
    ENDPOINT = 5  # this address or port: another may do
    HOST = 6  # no TLS that can be trusted
    CREDENTIALS = 7


@dataclass(frozen=True, slots=True)
class Judgement:
    """What became of the recipients of one transaction, each in exactly one of five accounts.

    Each maps an address to the words that decided it. `deferred` counts as an attempt of the
    message, `again` does not: nothing was learnt about the mail. `unknown`: the dot was sent and
    no reply came. `reason` is the reply or event behind `blame`, "" for NOBODY. `refusal` is the
    5yz to MAIL, DATA or the final dot that refused the message as a whole: the same one to many
    messages speaks against the route. `midway` says that the connection was lost, or closed by
    421, while the far end owed an answer to this very message.
    """

    sent: Mapping[str, str] = field(default_factory=dict)
    deferred: Mapping[str, str] = field(default_factory=dict)
    dead: Mapping[str, str] = field(default_factory=dict)
    again: Mapping[str, str] = field(default_factory=dict)
    unknown: Mapping[str, str] = field(default_factory=dict)
    blame: Blame = Blame.NOBODY
    reason: str = ""
    refusal: Reply | None = None
    midway: bool = False


_LOGIN_CODES = frozenset({530, 534, 535, 538})
_LOGIN_AT_AUTH = frozenset({432})  # a password transition is needed: waiting does not help
_OUR_CODES = frozenset({500, 501, 502, 503, 504, 555})
_SENT, _DEFERRED, _DEAD, _AGAIN, _UNKNOWN = range(5)


def judge(replies: TransactionReplies, recipients: Iterable[str]) -> Judgement:
    """Return what follows from the `replies` to a transaction with `recipients`."""
    if replies.dot_sent and _all_accepted(replies):
        return Judgement(sent=dict.fromkeys(recipients, str(replies.final)))
    sent: dict[str, str] = {}
    deferred: dict[str, str] = {}
    dead: dict[str, str] = {}
    again: dict[str, str] = {}
    unknown: dict[str, str] = {}
    accounts = (sent, deferred, dead, again, unknown)  # in the order of _SENT and so on
    blame, reason = Blame.NOBODY, ""
    refusal: Reply | None = None
    accepted = any(reply.positive for reply in replies.recipients.values())
    whole = _of_the_whole(replies)
    for address in recipients:
        reply = replies.recipients.get(address)
        if replies.mail is not None and not replies.mail.positive:
            # What RCPT was answered after a refused MAIL is only its echo.
            account, whose = _mail(replies.mail)
            words = str(replies.mail)
            refusal = replies.mail if account == _DEAD else None
        elif reply is None:
            account, whose, words = _lost(replies)
        elif not reply.positive:
            account, whose = _rcpt(reply, accepted=accepted)
            words = str(reply)
        else:
            account, whose, words = whole
            refusal = (replies.final or replies.data) if account == _DEAD else None
        accounts[account][address] = words
        if whose > blame:
            blame, reason = whose, words
    return Judgement(
        sent,
        deferred,
        dead,
        again,
        unknown,
        blame,
        reason,
        refusal,
        _midway(replies),
    )


def judge_connect(failure: ConnectFailure) -> Blame:
    """Return who is to blame when no connection came about."""
    match failure.phase:
        case Phase.OFFER | Phase.CERTIFICATE:
            return Blame.HOST
        case Phase.MECHANISM | Phase.PROOF:
            return Blame.CREDENTIALS
        case Phase.AUTH if failure.reply is not None:
            code = failure.reply.code
            login = code >= 500 or code in _LOGIN_AT_AUTH
            return Blame.CREDENTIALS if login else Blame.ENDPOINT
        case _:
            return Blame.ENDPOINT


def _all_accepted(replies: TransactionReplies) -> bool:
    """Tell whether nobody was refused, as it is nearly always."""
    mail, data, final = replies.mail, replies.data, replies.final
    if mail is None or not mail.positive or data is None or data.code != 354:
        return False
    if final is None or not final.positive:
        return False
    return all(reply.positive for reply in replies.recipients.values())


def _mail(reply: Reply) -> tuple[int, Blame]:
    if reply.code == 421:
        return _AGAIN, Blame.ENDPOINT
    if _about_login(reply):
        return _AGAIN, Blame.CREDENTIALS
    if reply.code < 500:
        return _DEFERRED, Blame.CONGESTION
    return _refused(reply)


def _rcpt(reply: Reply, *, accepted: bool) -> tuple[int, Blame]:
    """Judge the refusal of one recipient; `accepted` says that another one was taken."""
    if reply.code == 421:
        return _AGAIN, Blame.ENDPOINT
    if accepted and _too_many(reply):
        # Only beside accepted ones: otherwise it would be tried for ever without getting on.
        return _AGAIN, Blame.NOBODY
    if _about_login(reply):
        # The login was good enough for the other recipient. Whose fault this is remains open, so
        # that nobody dies of it at once and one recipient cannot hold up the stream either.
        return (_DEFERRED, Blame.MESSAGE) if accepted else (_AGAIN, Blame.CREDENTIALS)
    if reply.code < 500:
        return _DEFERRED, _of_4yz(reply)
    return _refused(reply)


def _of_the_whole(replies: TransactionReplies) -> tuple[int, Blame, str]:
    """Judge what was said, or not said, to the content, for those whose RCPT was accepted."""
    if replies.final is None and replies.dot_sent:
        return _UNKNOWN, Blame.NOBODY if replies.ours else Blame.ENDPOINT, _words(replies)
    if replies.final is not None and replies.final.positive and replies.dot_sent:
        return _SENT, Blame.NOBODY, str(replies.final)
    reply = replies.final or replies.data
    if reply is None or reply.code < 400:
        return _lost(replies)  # whatever was said, it was not an answer to the whole message
    words = str(reply)
    if reply.code == 421:
        return _AGAIN, Blame.ENDPOINT, words
    if reply.code in _LOGIN_CODES:
        return _AGAIN, Blame.CREDENTIALS, words
    account, whose = (_DEFERRED, _of_4yz(reply)) if reply.code < 500 else _refused(reply)
    return account, whose, words


def _lost(replies: TransactionReplies) -> tuple[int, Blame, str]:
    """Judge the end of a connection before the final dot: the mail has no part in it."""
    return _AGAIN, Blame.NOBODY if replies.ours else Blame.ENDPOINT, _words(replies)


def _refused(reply: Reply) -> tuple[int, Blame]:
    """Judge a 5yz that is not about the login."""
    if _too_many(reply):
        return _DEFERRED, Blame.MESSAGE
    if reply.code in _OUR_CODES or reply.enhanced.startswith("5.5."):
        return _DEFERRED, Blame.US
    return _DEAD, Blame.MESSAGE


def _of_4yz(reply: Reply) -> Blame:
    return Blame.CONGESTION if reply.enhanced.startswith("4.7.") else Blame.MESSAGE


def _about_login(reply: Reply) -> bool:
    return reply.code in _LOGIN_CODES or reply.enhanced.startswith("5.7.")


def _too_many(reply: Reply) -> bool:
    """Tell whether it says "too many recipients"; 552 is the old word for it (§4.5.3.1.10)."""
    return reply.enhanced in ("4.5.3", "5.5.3") or (reply.code in (452, 552) and not reply.enhanced)


def _midway(replies: TransactionReplies) -> bool:
    said = (replies.mail, *replies.recipients.values(), replies.data, replies.final)
    if any(reply is not None and reply.code == 421 for reply in said):
        return True
    return bool(replies.broken) and replies.owed and not replies.dot_sent


def _words(replies: TransactionReplies) -> str:
    return replies.broken or "no reply came"
