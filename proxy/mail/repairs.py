"""The kinds of repair: what was mended in a message so that Postmark takes and shows it well."""

from typing import Literal

Repair = Literal[
    "nul",  # NUL octets taken out
    "line_ends",  # bare LF or CR, or no end of the last line
    "mbox",  # a "From " line before the header
    "blank_line",  # no empty line between header and body
    "bad_line",  # a line amid the header that is no field
    "raw_header",  # octets above 127 or controls in a field
    "long_header",  # a line over 998 octets in a field
    "duplicate",  # a field twice that may stand once
    "from",  # From was missing, or had no address
    "local",  # an address of this host in From, Sender, Reply-To, To or Cc
    "idn",  # a domain that is not ASCII in one of these
    "date",
    "message_id",
    "mime_version",
    "8bit",  # 8-bit text or data in the body
    "long_lines",  # lines over 998 octets in the body
    "empty_body",
    "dkim",  # a signature that no longer held
    "marks",  # a field that only the rule decides, or that Postmark does not know
    "limits",  # beyond Postmark's limits: tag, metadata, subject, From
]
"""A closed set: the labels of franker_messages_repaired_total, and `kinds` in the log."""
