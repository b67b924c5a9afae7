"""Telling people what is wrong: when it begins, now and then while it lasts, when it is over."""

from proxy.alerts.alerts import Alerts, View
from proxy.alerts.at_work import open_alerts
from proxy.alerts.command import Command
from proxy.alerts.said import Said
from proxy.alerts.standing import Kind, Trouble

__all__ = ["Alerts", "Command", "Kind", "Said", "Trouble", "View", "open_alerts"]
