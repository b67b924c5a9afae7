"""Where lines go: straight to standard error, one write each.

The logging module is not used on the way of a message (it costs 10 µs a line); what libraries
say through it, from WARNING on, is brought into the same form. A line that cannot be written is
lost: no trouble with the log may hold up or lose mail.
"""

import base64
import logging
import os
import select
import time
import traceback
from collections.abc import Mapping

from proxy.config.model import Log
from proxy.log.lines import Clock, Value, as_json, domain_only, domains_only, kv, without

_STDERR = 2
_STALL_MS = 1000  # how long a full pipe may hold us up before its line is given up
_TRACEBACK_CHARACTERS = 8000  # the end is kept: that is where the error stands
_MIN_SECRET = 4  # shorter ones would blot out ordinary words


class _State:
    """How lines are written in this process: set once, by `setup`."""

    __slots__ = ("clock", "domain", "secrets", "text")

    def __init__(self) -> None:
        self.clock = Clock()
        self.text = kv
        self.domain = False
        self.secrets: frozenset[str] = frozenset()


_state = _State()


def setup(settings: Log) -> None:
    """Write lines as `settings` say, and take in what libraries log from WARNING on."""
    _state.text = as_json if settings.format == "json" else kv
    _state.domain = settings.addresses == "domain"
    root = logging.getLogger()
    if not any(isinstance(handler, _Libraries) for handler in root.handlers):
        root.addHandler(_Libraries(logging.WARNING))
    logging.captureWarnings(capture=True)


def conceal(*secrets: str) -> None:
    """Never show `secrets` again, should a reply or an error's text hold one of them.

    Their base64 forms are left out too, alone and as AUTH PLAIN sends them as user and password.
    """
    forms = set(_state.secrets)
    for secret in secrets:
        if len(secret) >= _MIN_SECRET:
            octets = secret.encode()
            forms.add(secret)
            forms.add(base64.b64encode(octets).decode())
            forms.add(base64.b64encode(b"\0" + octets + b"\0" + octets).decode())
    _state.secrets = frozenset(forms)


def emit(event: str, fields: Mapping[str, Value]) -> None:
    """Write one line for `event` now."""
    line = _state.text(_state.clock.stamp(time.time()), event, fields) + "\n"
    octets = line.encode("utf-8", "backslashreplace")
    try:
        written = os.write(_STDERR, octets)
    except BlockingIOError:
        written = 0
    except OSError:
        return
    if written < len(octets):
        _write_rest(octets[written:])


def _write_rest(octets: bytes) -> None:
    """Finish a line that a non-blocking or full standard error took only in part."""
    ready = select.poll()
    ready.register(_STDERR, select.POLLOUT)
    while octets and ready.poll(_STALL_MS):
        try:
            octets = octets[os.write(_STDERR, octets) :]
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
