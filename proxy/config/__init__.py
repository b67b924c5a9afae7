"""The configuration: found, read once, checked whole, frozen."""

from proxy.config.model import Settings

__all__ = ["Settings"]
