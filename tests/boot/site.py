"""A machine and the stand-in for Postmark that it believes to be the real one."""

import shutil
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from proxy.sandbox.message import Taken
from tests.boot.machine import Machine
from tests.support.far_end import BackgroundFarEnd, background_far_end
from tests.support.processes import ROOT
from tests.support.waiting import wait_for

_HOSTS = {"127.0.0.5": "transactional", "127.0.0.6": "broadcast"}
_NAMES = "127.0.0.5 smtp.postmarkapp.com\n127.0.0.6 smtp-broadcasts.postmarkapp.com\n"
_WHEELS = "/var/cache/wheels"

ANSWER_S = 60.0


class Site:
    """What a boot test works on: `machine`, and `far_end`, which answers as smtp.postmarkapp.com.

    The private authority of `far_end` is among those that the machine trusts.
    """

    installer = "/srv/franker/systemd/install"

    def __init__(
        self, folder: Path, wheel: Path, libraries: Path, log: Path, ports: Sequence[int]
    ) -> None:
        self.folder = folder
        self._wheel, self._libraries = wheel, libraries
        self.machine = Machine(folder, log)
        self.wheel = f"{_WHEELS}/{wheel.name}"
        self.far_end: BackgroundFarEnd
        self._ports = tuple(ports)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        wheels = self.folder / _WHEELS.lstrip("/")
        shutil.copytree(self._libraries, wheels)
        shutil.copy(self._wheel, wheels)
        self.machine.write("/etc/pip.conf", f"[global]\nno-index = true\nfind_links = {_WHEELS}\n")
        tree = self.folder / "srv/franker"
        for name in ("proxy", "worker", "share", "systemd", "packaging"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, tree / name, ignore=ignored)
        for name in ("pyproject.toml", "README.md", "franker.toml.example"):
            shutil.copy(ROOT / name, tree)
        with (self.folder / "etc/hosts").open("a") as hosts:
            hosts.write(_NAMES)
        self._stack.callback(self.machine.close)
        try:
            self.far_end = self._stack.enter_context(
                background_far_end(
                    enter=self.machine.enter_network, ports=self._ports, hosts=_HOSTS
                )
            )
            authorities = self.folder / "usr/local/share/ca-certificates"
            shutil.copy(self.far_end.ca_file, authorities / "private.crt")
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def start(self) -> None:
        """Boot it, and let it trust the far end's authority."""
        self.machine.boot()
        self.machine.run("update-ca-certificates")

    def give_token(self) -> None:
        """Do what the installation said was left to do, and name the stand-in's HTTP API."""
        configuration = self.folder / "etc/franker/franker.toml"
        text = configuration.read_text()
        assert text.count('\nfrom = ""') == 1
        text = text.replace('\nfrom = ""', '\nfrom = "servers@example.com"')
        configuration.write_text(f'{text}\n[postmark]\napi_url = "{self.far_end.web.url}"\n')
        self.machine.write("/etc/franker/secrets/postmark", f"{self.far_end.token}\n", 0o600)
        self.machine.run("systemctl restart franker.target")

    def arrived(self, subject: str, timeout: float = ANSWER_S) -> Taken:
        """Return the one message with `subject`; fail if it comes not or twice."""
        wait_for(lambda: self.all_with(subject), timeout, f"the arrival of {subject!r}")
        self.until_settled()
        found = self.all_with(subject)
        assert len(found) == 1, [one.field("Subject") for one in found]
        return found[0]

    def all_with(self, subject: str) -> list[Taken]:
        """Return every message that arrived with `subject` in its subject."""
        return [one for one in self.far_end.messages if subject in (one.field("Subject") or "")]

    def all_arrived_once(self, subjects: Collection[str]) -> None:
        """Wait until each of `subjects` has arrived; fail if one of them comes twice."""
        wanted = set(subjects)
        wait_for(lambda: wanted <= self._counts().keys(), 4 * ANSWER_S, "the arrival of all", 0.5)
        self.until_settled()
        assert {name: n for name, n in self._counts().items() if name in wanted and n > 1} == {}

    def until_settled(self) -> None:
        """Wait until nothing is left that could arrive, or arrive again: what is kept is held."""
        wait_for(self._is_settled, 4 * ANSWER_S, "a queue that sends nothing more", 0.2)

    def _counts(self) -> Counter[str]:
        return Counter(one.field("Subject") or "" for one in self.far_end.messages)

    def until_any(self, subject: str, timeout: float = ANSWER_S) -> Taken:
        """Return the first message with `subject` in its subject, once one has arrived."""
        wait_for(lambda: self.all_with(subject), timeout, f"the arrival of {subject!r}")
        return self.all_with(subject)[0]

    def with_body(self, text: str) -> list[Taken]:
        """Return every message that arrived with `text` in its body."""
        return [one for one in self.far_end.messages if text.encode() in one.content]

    def until_body(self, text: str, timeout: float = ANSWER_S) -> None:
        """Wait until a message with `text` in its body has arrived."""
        wait_for(lambda: self.with_body(text), timeout, f"the arrival of {text!r}")

    def _is_settled(self) -> bool:
        states = "--state queued --state started --state deferred"
        return "Nothing is kept" in self.machine.tell(f"franker queue list {states}")
