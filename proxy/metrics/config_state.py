"""Which configuration a process goes by: shown by the proxy and by each worker."""

import time

from prometheus_client import CollectorRegistry, Gauge


class ConfigState:
    """Whether the last reading was taken, and when the one in use was read."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._success = Gauge(
            "franker_config_reload_success",
            "1 when the configuration in use is the one read last, 0 when that one was refused.",
            registry=registry,
        )
        self._read_at = Gauge(
            "franker_config_read_timestamp_seconds",
            "When the configuration in use was read.",
            registry=registry,
        )
        self.taken()

    def taken(self) -> None:
        """Note that what was read just now is in use."""
        self._success.set(1)
        self._read_at.set(time.time())

    def refused(self) -> None:
        """Note that what was read just now cannot be used."""
        self._success.set(0)
