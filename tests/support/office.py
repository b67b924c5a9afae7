"""A whole installation at work: `franker run`, its real parts, and the far end it relays to."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxy.sandbox.account import TOKEN
from proxy.sandbox.message import Taken
from tests.support.far_end import BackgroundFarEnd
from tests.support.processes import Installation, Program
from tests.support.waiting import wait_for

_DEADLINE_S = 60.0


@dataclass(frozen=True, slots=True)
class Arrived:
    """One message at the far end."""

    content: bytes
    recipients: tuple[str, ...]
    franker_id: str
    tls: str


class Office:
    """Starts everything on `folder`, relaying to `far_end`; `settings` are sections of its file."""

    def __init__(
        self, folder: Path, far_end: BackgroundFarEnd, settings: Mapping[str, Any] | None = None
    ) -> None:
        self._far_end = far_end
        sections = {"postmark": far_end.postmark(), **(settings or {})}
        self.installation = Installation(folder, sections)
        self.installation.environ["POSTMARK_SERVER_TOKEN"] = TOKEN
        self.smtp_port = self.installation.smtp_port
        self.program: Program = self.installation.start("run")
        try:
            self.program.wait_for("Franker is ready")
        except AssertionError:  # else it would run on, and keep the machine busy, to nobody's use
            self.close()
            raise

    def taken_for(self, recipient: str) -> list[Arrived]:
        """What has arrived for `recipient` so far."""
        return [_arrived(taken) for taken in self._far_end.to(recipient)]

    def the_one_for(self, recipient: str) -> Arrived:
        """Wait for the message to `recipient`; fail unless it came exactly once."""
        wait_for(lambda: self.taken_for(recipient), _DEADLINE_S, f"mail to {recipient} arrived")
        self.wait_idle()
        arrived = self.taken_for(recipient)
        assert len(arrived) == 1, f"{len(arrived)} messages to {recipient}"
        return arrived[0]

    def wait_idle(self) -> None:
        """Wait until everything kept has been settled by the worker."""
        wait_for(
            lambda: self.program.log.count(" kept id=") <= self.program.log.count(" sent id="),
            _DEADLINE_S,
            "everything kept was sent",
        )

    def close(self) -> None:
        """End everything."""
        self.installation.close()


def _arrived(taken: Taken) -> Arrived:
    return Arrived(
        content=taken.content,
        recipients=taken.recipients,
        franker_id=taken.field("X-PM-Metadata-franker-id") or "",
        tls=taken.tls,
    )
