"""Where lines go: straight to standard error, one write each.

The logging module is not used on the way of a message (it costs 10 µs a line); what libraries
say through it, from WARNING on, is brought into the same form. Where nobody reads what we write
(a stopped terminal, a hung collector) lines are left out and their number is told afterwards: no
trouble with the log may hold up or lose mail.
"""

import base64
import logging
import os
import select
import time
import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING

from proxy.log.lines import Clock, Value, as_json, domain_only, domains_only, kv, without

if TYPE_CHECKING:
    from proxy.config.model import Log  # costs 100 ms at start

_STDERR = 2
_PATIENCE_MS = 1000  # how long a slow reader is waited for before lines are left out ...
_SULK_S = 30.0  # ... and for how long it is not waited for again
_CHUNK_OCTETS = 4096  # PIPE_BUF: what a pipe takes at once when poll says that it takes anything
_TRACEBACK_CHARACTERS = 8000  # the end is kept: that is where the error stands
_MIN_SECRET = 4  # shorter ones would blot out ordinary words


class _State:
    """How lines are written in this process: set once, by `setup`."""

    __slots__ = ("clock", "domain", "lost", "secrets", "stalled_at", "text")

    def __init__(self) -> None:
        self.clock = Clock()
        self.lost = 0
        self.stalled_at = -_SULK_S
        self.text = kv
        self.domain = False
        self.secrets: frozenset[str] = frozenset()


_state = _State()
_stderr = select.poll()
_stderr.register(_STDERR, select.POLLOUT)


def setup(settings: "Log") -> None:
    """Write lines as `settings` say, and take in what libraries log from WARNING on."""
    _state.text = as_json if settings.format == "json" else kv
    _state.domain = settings.addresses == "domain"
    root = logging.getLogger()
    if not any(isinstance(handler, _Libraries) for handler in root.handlers):
        root.addHandler(_Libraries(logging.WARNING))
    logging.captureWarnings(capture=True)


def conceal(*secrets: str) -> None:
    """Never show `secrets` again, should a reply or an error's text hold one of them.

    Their base64 forms are left out too, alone and as AUTH PLAIN sends a pair of them.
    """
    octets = [secret.encode() for secret in secrets if len(secret) >= _MIN_SECRET]
    if not octets or all(one.decode() in _state.secrets for one in octets):
        return
    forms = set(_state.secrets)
    for one in octets:
        forms |= {one.decode(), base64.b64encode(one).decode()}
        forms |= {base64.b64encode(b"\0" + one + b"\0" + other).decode() for other in octets}
    _state.secrets = frozenset(forms)


def emit(event: str, fields: Mapping[str, Value]) -> None:
    """Write one line for `event` now."""
    emit_all((event, fields))


def emit_all(*events: tuple[str, Mapping[str, Value]]) -> None:
    """Write one line for each of `events` now, and all of them at once."""
    stamp = _state.clock.stamp(time.time())
    text = "".join([_state.text(stamp, *event) + "\n" for event in events])
    octets = text.encode("utf-8", "backslashreplace")
    if _state.lost and _ready(0):
        lost, _state.lost = _state.lost, 0
        _write((_state.text(stamp, "log_lost", {"lines": lost}) + "\n").encode())
    _write(octets)


def _ready(patience_ms: int) -> bool:
    """Tell whether standard error takes _CHUNK_OCTETS without holding us up."""
    try:
        return bool(_stderr.poll(patience_ms))
    except RuntimeError:
        return True  # another thread is asking just now; it will find out


def _waited() -> bool:
    """Wait for a slow reader, now and then; tell whether it was worth it."""
    now = time.monotonic()
    if now - _state.stalled_at < _SULK_S:
        return False
    if _ready(_PATIENCE_MS):
        return True
    _state.stalled_at = now
    return False


def _write(octets: bytes) -> None:
    while octets:
        if not _ready(0) and not _waited():
            _state.lost += octets.count(b"\n")
            return
        try:
            octets = octets[os.write(_STDERR, octets[:_CHUNK_OCTETS]) :]
        except BlockingIOError:
            continue
        except OSError:
            return


def address(value: str) -> str:
    """Return `value` as it may be shown; the null reverse-path as "<>"."""
    if not value:
        return "<>"
    return domain_only(value) if _state.domain else value


def addresses(values: tuple[str, ...] | list[str]) -> tuple[str, ...] | list[str]:
    """Return `values` as they may be shown."""
    return [domain_only(value) for value in values] if _state.domain else values


def words(value: str) -> str:
    """Return free text, such as a reply, as it may be shown: no secret, no more of addresses."""
    if _state.secrets:
        value = without(value, _state.secrets)
    return domains_only(value) if _state.domain and "@" in value else value


def trace(error: BaseException) -> str:
    """Return the traceback of `error` as one text, its beginning cut off when very long."""
    return words("".join(traceback.format_exception(error)).rstrip())[-_TRACEBACK_CHARACTERS:]


class _Libraries(logging.Handler):
    """Brings what libraries log into our form."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except Exception:  # a library's bad format string is no trouble of ours
            text = str(record.msg)
        fields: dict[str, Value] = {
            "logger": record.name,
            "level": record.levelname.lower(),
            "text": words(text),
        }
        if record.exc_info and record.exc_info[1] is not None:
            fields["traceback"] = trace(record.exc_info[1])
        emit("library", fields)
