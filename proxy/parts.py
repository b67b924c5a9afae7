"""The parts of a running proxy that can go by other settings, and how they come to do so."""

import asyncio
from dataclasses import dataclass

from proxy.alerts import Alerts
from proxy.config import Settings
from proxy.drop import DropReader
from proxy.listener import Intake, Limits, Listener
from proxy.listener.counting import begin_at_zero
from proxy.listener.sockets import BindError
from proxy.own_host import host_names, raise_file_limit, read_aliases
from proxy.queue.commit import GroupCommit
from proxy.reloading import Unusable
from proxy.submission import compile_policy

NEEDS_RESTART = ("data_dir", "drop", "redis", "journal", "listen.http", "listen.smtp")
"""What of the configuration a running proxy cannot change."""


@dataclass(frozen=True, slots=True)
class Changeable:
    """What goes on as it is, but by other settings.

    `streams` are those whose depths are shown; `drop` is None where no drop folder is read.
    """

    listener: Listener
    commit: GroupCommit
    alerts: Alerts
    streams: list[str]
    drop: DropReader | None = None

    async def go_by(self, settings: Settings) -> None:
        """Go by `settings` from now on: each client, and the drop folder, with the next mail.

        Raises:
            Unusable: what they name cannot be used; nothing has changed.
        """
        faults = []
        try:
            certificates = self.listener.certificates(settings.listen)
        except BindError as error:
            faults.append(str(error))
        try:
            _, intake = await intake_for(settings, self.commit)
        except (ValueError, OSError) as error:
            faults.append(str(error))
        if faults:
            raise Unusable(faults)
        raise_file_limit(settings.listen.max_connections)
        begin_at_zero(settings)
        limits = Limits.of(settings.listen)
        self.listener.change(intake, limits, settings.listen, certificates)
        if self.drop is not None:
            recipients = settings.listen.max_recipients
            self.drop.go_by(intake, recipients=recipients, refuses=self.listener.refuses_local)
        self.streams[:] = settings.streams
        self.alerts.go_by(settings.notify)


async def intake_for(settings: Settings, commit: GroupCommit) -> tuple[str, Intake]:
    """Return the host's name and what judges mail as `settings` say.

    Raises:
        ValueError: an alias cannot be used.
        OSError: the file of aliases cannot be read.
    """
    hostname, names = await asyncio.to_thread(host_names)
    aliases = await asyncio.to_thread(read_aliases, settings)
    policy = compile_policy(settings, host_names=names, aliases_text=aliases)
    wants_users = any(rule.user for rule in settings.rules)
    return hostname, Intake(policy, commit, wants_users=wants_users)
