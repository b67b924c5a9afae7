"""Postmark's limits on one message; what is beyond them is lost there without a word."""

TAG = 1000
"""Characters in X-PM-Tag."""

METADATA_FIELDS = 10
"""X-PM-Metadata-* fields, our own id among them."""

METADATA_KEY = 20
METADATA_VALUE = 80

SUBJECT = 2000
"""Characters in a subject."""

FROM = 255
"""Characters in a From field."""

RECEIVED_FIELDS = 50
"""Received fields at which a message counts as going round in circles (RFC 5321 §6.3)."""
