"""The configuration: found, read once, checked whole, frozen."""

from proxy.config.checks import told_nobody
from proxy.config.data_dir import usable_data_dir
from proxy.config.faults import ConfigError
from proxy.config.fields import split_host_port
from proxy.config.loading import SEARCHED, Loaded, load
from proxy.config.model import Settings

__all__ = [
    "SEARCHED",
    "ConfigError",
    "Loaded",
    "Settings",
    "load",
    "split_host_port",
    "told_nobody",
    "usable_data_dir",
]
