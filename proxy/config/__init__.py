"""The configuration: found, read once, checked whole, frozen."""

from proxy.config.changes import as_far_as_possible, changed_keys
from proxy.config.checks import told_nobody
from proxy.config.data_dir import usable_data_dir
from proxy.config.faults import ConfigError
from proxy.config.fields import split_host_port
from proxy.config.loading import SEARCHED, Loaded, load, load_again
from proxy.config.model import Settings

__all__ = [
    "SEARCHED",
    "ConfigError",
    "Loaded",
    "Settings",
    "as_far_as_possible",
    "changed_keys",
    "load",
    "load_again",
    "split_host_port",
    "told_nobody",
    "usable_data_dir",
]
