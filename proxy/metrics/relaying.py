"""The worker's metrics. Keep the child that `labels` returns: looking it up costs 1 µs."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from proxy.metrics.config_state import ConfigState

REGISTRY = CollectorRegistry(auto_describe=True)

RELAY_ATTEMPTS = Counter(
    "franker_relay_attempts_total",
    "Transactions with Postmark, by the port used and how they ended.",
    ("stream", "port", "result"),
    registry=REGISTRY,
)
RECIPIENTS = Counter(
    "franker_recipients_total",
    "Verdicts on recipients; one that is deferred twice and then sent counts three times.",
    ("stream", "verdict"),
    registry=REGISTRY,
)
DELIVERY_DURATION = Histogram(
    "franker_delivery_duration_seconds",
    "From our 250 to a recipient's end, sent or dead.",
    ("stream",),
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14400, 43200, 86400, 172800),
    registry=REGISTRY,
)
LAST_SUCCESS = Gauge(
    "franker_last_success_timestamp_seconds",
    "When Postmark last took a message of this stream.",
    ("stream",),
    registry=REGISTRY,
)
ENDPOINT_UP = Gauge(
    "franker_endpoint_up",
    "1 when the last connection to this port of Postmark's host worked, else 0.",
    ("host", "port"),
    registry=REGISTRY,
)
ROUTE_PAUSED = Gauge(
    "franker_route_paused",
    "1 while no mail of this stream can leave for this reason, else 0.",
    ("stream", "reason"),
    registry=REGISTRY,
)
CREDENTIAL_USED = Gauge(
    "franker_credential_used",
    "1 for the credential by which the last login for this stream was accepted, else 0.",
    ("stream", "credential"),
    registry=REGISTRY,
)
LOOK_UPS = Counter(
    "franker_look_ups_total",
    "Questions to Postmark's API about messages whose outcome is unknown, by what it knew.",
    ("stream", "result"),
    registry=REGISTRY,
)
LOOK_UP_TOKEN_REFUSED = Counter(
    "franker_look_up_token_refused_total",
    "Questions to Postmark's API that got no answer because no token is accepted there.",
    ("stream",),
    registry=REGISTRY,
)
UPSTREAM_REPLIES = Counter(
    "franker_upstream_replies_total",
    "Postmark's replies by code.",
    ("code",),
    registry=REGISTRY,
)
CERTIFICATE_EXPIRY = Gauge(
    "franker_upstream_certificate_expiry_timestamp_seconds",
    "When the certificate that Postmark's host showed last expires.",
    ("host",),
    registry=REGISTRY,
)
ALERTS = Gauge(
    "franker_alerts",
    "Things that are wrong now and of which people are told, by kind.",
    ("kind",),
    registry=REGISTRY,
)
DEFECTS = Counter(
    "franker_defects_total",
    "Unexpected errors inside Franker, and commands that Postmark calls wrong; the log has all.",
    ("where",),
    registry=REGISTRY,
)
CONFIG = ConfigState(REGISTRY)
PROCESS = ProcessCollector(registry=REGISTRY)
