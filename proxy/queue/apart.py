"""Mail that is not simply queued: kept only once under an id, or dead from the beginning. Pure."""

import json
import zlib
from base64 import b64encode

from proxy.queue.job import JobDecodeError, JobEnvelope, decode_envelope

_TO_JSON = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode
_MAY_SAY = (b'"one":', b'"no":')


def words_apart(envelope: JobEnvelope) -> bytes:
    """Return what commit.lua must know of such mail besides its envelope; b"" for all other mail.

    JSON: `once`, its id; and where it is dead `why`, `packed` (the same as RQ's tools read it) and
    `whose`: its owner, missing where nobody is to be told.
    """
    words: dict[str, str] = {}
    if envelope.once:
        words["once"] = envelope.once
    if envelope.refused:
        why = "\n".join(f"{one}: {envelope.replies.get(one, '')}" for one in envelope.recipients)
        octets = why.encode("utf-8", "replace")
        words["why"] = octets.decode()
        words["packed"] = b64encode(zlib.compress(octets)).decode()
        if envelope.notify:
            words["whose"] = envelope.owner
    return _TO_JSON(words).encode() if words else b""


def words_apart_in(octets: bytes) -> bytes:
    """Return the same of an envelope as `encode_envelope` wrote it."""
    if not any(word in octets for word in _MAY_SAY):
        return b""
    try:
        return words_apart(decode_envelope(octets))
    except JobDecodeError:
        return b""  # another version's
