"""The questions that tell what became of one message's recipients."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TypeVar

from proxy import log
from proxy.config.model import Stream
from proxy.config.secrets import Secret
from worker.claim import Claim
from worker.outcomes.api import Api, TokenRefused
from worker.outcomes.findings import Finding, candidates, conclude

_BOUNCES_LOOKED_AT = 10
_PROBED = 2
"""Recipients whose refusals are looked at: one is enough where a message was refused whole."""

_T = TypeVar("_T")


def api_tokens(stream: Stream) -> tuple[Secret, ...]:
    """Return where the token for Postmark's API is found: its own, else the login's."""
    return stream.api_token or stream.token


async def by_token(
    secrets: tuple[Secret, ...], question: Callable[[str], Awaitable[_T]]
) -> tuple[_T, Secret]:
    """Return the answer to `question`, asked with the first token that is accepted, and which.

    Tokens are read anew each time.

    Raises:
        Unanswered: nobody knows; TokenRefused when it is for want of a token.
    """
    refused = []
    for secret in secrets:
        token = secret.read()
        if token is None:
            refused.append(f"{secret.name} is not set")
            continue
        log.conceal(token)
        try:
            return await question(token), secret
        except TokenRefused as error:
            refused.append(f"{secret.name}: {error}")
    raise TokenRefused("; ".join(refused))


async def inquire(api: Api, stream_id: str, claim: Claim, token: str) -> Finding:
    """Return what Postmark says about the recipients of `claim`, by `token`.

    Raises:
        Unanswered: nobody knows.
    """
    envelope, message_id = claim.envelope, claim.id.partition("-")[0]
    found = await api.messages(token, stream_id, message_id)
    refused = []
    for one in candidates(found, claim.dot):
        refused += await api.refused_as(token, stream_id, one.id)
    judge = partial(conclude, envelope.recipients, claim.dot, found, settled=envelope.settled)
    finding = judge(refused)
    # A message that was refused whole is not among the messages, and its bounce may not name us.
    for address in _left_of(envelope.recipients, finding)[:_PROBED]:
        postmark_id = await api.refused_to(
            token,
            stream_id,
            address,
            message_id,
            most=_BOUNCES_LOOKED_AT,
            but=envelope.settled,
        )
        if postmark_id:
            refused += await api.refused_as(token, stream_id, postmark_id)
            return judge(refused)
    return finding


def _left_of(recipients: tuple[str, ...], finding: Finding) -> tuple[str, ...]:
    known: list[Mapping[str, str]] = [finding.sent, finding.dead, finding.absent]
    return tuple(address for address in recipients if not any(address in one for one in known))
