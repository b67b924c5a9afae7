"""The proxy's metrics. Keep the child that `labels` returns: looking it up costs 1 µs."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from proxy.metrics.config_state import ConfigState
from proxy.metrics.depths import QueueDepths

REGISTRY = CollectorRegistry(auto_describe=True)

MESSAGES_ACCEPTED = Counter(
    "franker_messages_accepted_total",
    "Messages that were kept on disk and answered with 250, by the stream a rule chose.",
    ("stream",),
    registry=REGISTRY,
)
MESSAGES_REFUSED = Counter(
    "franker_messages_refused_total",
    "Messages, recipients, clients or commands answered with 4yz or 5yz, by reason.",
    ("reason",),
    registry=REGISTRY,
)
MESSAGES_REPAIRED = Counter(
    "franker_messages_repaired_total",
    "Repairs made so that Postmark takes the mail, by kind; one message may need several.",
    ("kind",),
    registry=REGISTRY,
)
MESSAGES_DISCARDED = Counter(
    "franker_messages_discarded_total",
    "Messages answered with 250 and thrown away because a rule says so.",
    ("rule",),
    registry=REGISTRY,
)
ACCEPT_DURATION = Histogram(
    "franker_accept_duration_seconds",
    "From a message's last octet to our reply: routing, rewriting, and the store's disk.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    registry=REGISTRY,
)
MESSAGE_SIZE = Histogram(
    "franker_message_size_bytes",
    "Size of accepted messages as they go to Postmark.",
    buckets=(1e3, 2.5e3, 5e3, 1e4, 2.5e4, 5e4, 1e5, 2.5e5, 5e5, 1e6, 2.5e6, 5e6, 1e7),
    registry=REGISTRY,
)
CONNECTIONS = Gauge(
    "franker_connections",
    "Clients connected now.",
    registry=REGISTRY,
)
JOURNAL_MESSAGES = Gauge(
    "franker_journal_messages",
    "Messages in the journal on this host's disk, not in Redis yet.",
    registry=REGISTRY,
)
DROP_MESSAGES = Gauge(
    "franker_drop_messages",
    "Messages that sendmail put into the drop folder of this host, not taken from there yet.",
    registry=REGISTRY,
)
STORE_DURABLE = Gauge(
    "franker_store_durable",
    "1 when Redis is there and proved to keep on disk what it is given, else 0.",
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
    "Unexpected errors inside Franker; the log has each one's traceback.",
    ("where",),
    registry=REGISTRY,
)
QUEUE_DEPTHS = QueueDepths(REGISTRY)
CONFIG = ConfigState(REGISTRY)
PROCESS = ProcessCollector(registry=REGISTRY)
