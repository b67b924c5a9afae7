"""What the log is told of a drop folder that everybody can fill."""

import re

import pytest

from proxy.drop.complaints import Complaints


def test_the_same_is_said_once(capfd: pytest.CaptureFixture[str]) -> None:
    complaints = Complaints()
    for _ in range(100):  # they take nothing of what a minute has room for
        complaints.leave_alone("mail", "it is a FIFO", 5.0)
        complaints.say("drop.folder: it cannot be read")
    complaints.leave_alone("mail", "it is a folder", 6.0)
    assert said(capfd) == [
        "drop: left alone: mail: it is a FIFO",
        "drop.folder: it cannot be read",
        "drop: left alone: mail: it is a folder",
    ]


def test_of_a_flood_the_first_of_each_minute_are_named(capfd: pytest.CaptureFixture[str]) -> None:
    complaints = Complaints()
    for number in range(100):
        complaints.leave_alone(f"early{number}", "it is a FIFO", 5.0)
    for number in range(100):
        complaints.leave_alone(f"late{number}", "it is a FIFO", 65.5)
    more = "drop: left alone: more files that are no letters"
    assert said(capfd) == [
        *(f"drop: left alone: early{number}: it is a FIFO" for number in range(20)),
        more,
        *(f"drop: left alone: late{number}: it is a FIFO" for number in range(20)),
        more,
    ]


def said(capfd: pytest.CaptureFixture[str]) -> list[str]:
    """Return the texts of the log's lines."""
    return re.findall(r'text="(.*)"', capfd.readouterr().err)
