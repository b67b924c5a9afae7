"""A Docker engine of a test's own: started by hand, with its data in a folder, ended by its pid.

Images are built on a Debian from debootstrap, so that no registry is needed; what pip needs is
handed to the stage that builds, and to that alone.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.boot import folder as debian
from tests.boot.reach import apt_ways
from tests.support.processes import ROOT
from tests.support.waiting import wait_for

BASE = "franker-test/base"
BUILD_BASE = "franker-test/build-base"
IMAGE = "franker-test/franker"
WATCHER = "franker-test/prometheus"
_PYTHON = {"bookworm": "3.11", "trixie": "3.13"}
_WAYS = (
    ("overlay2",),
    ("vfs",),
    ("vfs", "--exec-opt=native.cgroupdriver=cgroupfs", "--userland-proxy=true"),
)
"""Storage drivers, and options, that are tried in this order."""


_TRIAL = (
    *("--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges:true"),
    *("--sysctl=net.ipv4.ip_unprivileged_port_start=0", "--user=10025:10025"),
)
"""How the compose file has its containers run."""


class EngineMissing(Exception):
    """No engine runs containers here; the text has each way that was tried and what was said."""


def missing_tools() -> str:
    """Return why no engine can be tried here, "" when one can."""
    if os.geteuid() != 0:
        return "only root can start a Docker engine"
    programs = {
        "dockerd": "docker.io",
        "docker": "docker.io",
        "docker-compose": "docker-compose",
        "debootstrap": "debootstrap",
        "iptables": "iptables",
    }
    lacking = [f"{one} ({package})" for one, package in programs.items() if not shutil.which(one)]
    return f"not on this host: {', '.join(lacking)}" if lacking else ""


class Engine:
    """A running engine; `docker` and `compose` are run against it.

    Raises:
        EngineMissing: it cannot be started.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        said = []
        for number, way in enumerate(_WAYS):
            trouble = self._start(folder / str(number), *way)
            if not trouble:
                return
            said.append(f"{' '.join(way)}: {trouble}")
        raise EngineMissing("NO CONTAINER RUNS HERE: " + "; ".join(said))

    def _start(self, folder: Path, driver: str, *options: str) -> str:
        """Try one way, and whether containers run; return "" or what the engine said."""
        folder.mkdir()
        self.host = f"unix://{folder}/socket"
        command = ["dockerd", f"--host={self.host}", f"--storage-driver={driver}", *options]
        for name in ("data-root", "exec-root", "pidfile"):
            command.append(f"--{name}={folder}/{name}")
        # No rules of the host's firewall are touched, and no network made that is not asked for.
        command += ["--iptables=false", "--ip6tables=false", "--bridge=none", "--log-level=warn"]
        command += ["--default-address-pool=base=10.231.0.0/16,size=24"]
        log = folder / "log"
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
        try:
            wait_for(self._answers, 120, step=0.1)
            trouble = self._trial(folder)
        except (AssertionError, ChildProcessError):
            trouble = log.read_text(errors="replace").strip() or "the engine says nothing"
        if trouble:
            self.close()
        assert "unknown flag" not in trouble, trouble  # which would be our mistake
        return trouble.rpartition("\n")[2][-500:]

    def _trial(self, folder: Path) -> str:
        """Run a container that has next to nothing in it; return "" or what the engine said."""
        program = Path("/usr/bin/docker-init")  # comes with Debian's engine, and is static
        archive, image = folder / "trial.tar", "franker-test/trial"
        with tarfile.open(archive, "w") as tar:
            tar.add(program.resolve(), "init")
        for command in (
            ["import", str(archive), image],
            ["network", "create", "trial"],
            ["run", "--rm", "--network=trial", *_TRIAL, image, "/init", "--version"],
            ["network", "rm", "trial"],
        ):
            done = self._run(["docker", *command])
            if done.returncode:
                return f"docker {' '.join(command)}: {done.stderr.strip()}"
        return ""

    def _answers(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise ChildProcessError
        return not self._run(["docker", "info"]).returncode

    def close(self) -> None:
        """End it, what runs in it, and the networks that it made on this host."""
        if self._process is None:
            return
        if self._process.poll() is None:
            if there := self._run(["docker", "ps", "--all", "--quiet"]).stdout.split():
                self._run(["docker", "rm", "--force", "--volumes", *there])
            self._run(["docker", "network", "prune", "--force"])
            self._process.terminate()
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)
        self._process = None

    def _run(
        self, command: Sequence[str | Path], environ: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("FRANKER_", "DOCKER_"))}
        return subprocess.run(
            command,
            env={**clean, "DOCKER_HOST": self.host, **(environ or {})},
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            timeout=900,
        )

    def docker(self, *arguments: str | Path) -> str:
        """Run `docker ARGUMENTS`, and return what it printed; fail when it fails."""
        return _checked(self._run(["docker", *arguments]))

    def tried(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run `docker ARGUMENTS`, which may fail."""
        return self._run(["docker", *arguments])

    def compose(self, *arguments: str | Path, environ: Mapping[str, str]) -> str:
        """Run `docker-compose ARGUMENTS` in the tree; fail when it fails."""
        return _checked(self._run(["docker-compose", *arguments], environ))

    def inspect(self, container: str) -> dict[str, Any]:
        """Return what the engine knows of a container, or of an image."""
        found: dict[str, Any] = json.loads(self.docker("inspect", container))[0]
        return found

    def build_image(self, suite: str) -> None:
        """Build the image of this tree on a Debian `suite` of our own."""
        self.docker("import", _plain_debian(suite), BASE)
        with tempfile.TemporaryDirectory(prefix="franker-image-") as work:
            context = Path(work)
            _fetch_wheels(context / "wheels", _PYTHON[suite])
            (context / "pip.conf").write_text("[global]\nno-index = true\nfind_links = /wheels\n")
            lines = [f"FROM {BASE}", "COPY wheels /wheels", "COPY pip.conf /etc/pip.conf"]
            (context / "Dockerfile").write_text("\n".join(lines))
            self.docker("build", "--quiet", "--tag", BUILD_BASE, context)
        bases = [f"--build-arg=BASE={BASE}", f"--build-arg=BUILD_BASE={BUILD_BASE}"]
        self.docker("build", "--network=host", "--quiet", *bases, "--tag", IMAGE, ROOT)

    def build_watcher(self) -> None:
        """Build an image with Debian's Prometheus and Alertmanager, the first one its command."""
        with tempfile.TemporaryDirectory(prefix="franker-image-") as work:
            install = "apt-get install -qq -y --no-install-recommends"
            packages = "prometheus prometheus-alertmanager >/dev/null"
            lines = [
                f"FROM {BASE}",
                f"RUN apt-get update -qq && {install} {packages}",
                'ENTRYPOINT ["prometheus"]',
            ]
            Path(work, "Dockerfile").write_text("\n".join(lines))
            self.docker("build", "--network=host", "--quiet", "--tag", WATCHER, work)


def _checked(done: subprocess.CompletedProcess[str]) -> str:
    said = f"{' '.join(map(str, done.args))}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert done.returncode == 0, said[-6000:]
    return done.stdout


def _plain_debian(suite: str) -> Path:
    """Return a tar file of a Debian with nothing in it; made at the first call."""
    file = debian.CACHE / f"{suite}-image.tar"
    if file.exists():
        return file
    folder = debian.plain_folder(suite)
    with tempfile.TemporaryDirectory(prefix="plain-", dir=debian.CACHE) as work:
        part, more = Path(work, "plain.tar"), Path(work, "more")
        apt, dpkg = more / "etc/apt/apt.conf.d", more / "etc/dpkg/dpkg.cfg.d"
        apt.mkdir(parents=True)
        dpkg.mkdir(parents=True)
        for file_of_host in apt_ways():
            shutil.copy(file_of_host, apt)
        # As Debian's own images have it: a layer that is lost is built again.
        (dpkg / "docker-apt-speedup").write_text("force-unsafe-io\n")
        left_out = ("./var/cache/apt/archives/*.deb", "./var/lib/apt/lists/*")
        excluded = [f"--exclude={pattern}" for pattern in left_out]
        # File by file: an image may name no folder twice.
        added = [f"./{one.relative_to(more)}" for one in more.rglob("*") if one.is_file()]
        command = ["tar", "--create", f"--file={part}", f"--directory={folder}", *excluded, "."]
        debian.run(*command, f"--directory={more}", *added)
        part.rename(file)
    return file


def _fetch_wheels(folder: Path, python: str) -> None:
    """Fetch what pip needs to install this tree on that version of Python."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["sandbox"]]
    wanted += ["setuptools>=77", "wheel"]
    wanted += ["async-timeout>=4"]  # only Python before 3.11.3 needs it, as Debian 12's is
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:"]
    debian.run(*pip, f"--python-version={python}", "--dest", folder, *wanted)


@contextlib.contextmanager
def running_engine() -> Iterator[Engine]:
    """A new engine, with nothing in it.

    Raises:
        EngineMissing: it cannot be started.
    """
    debian.CACHE.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="engine-", dir=debian.CACHE))
    try:
        engine = Engine(folder)
        try:
            yield engine
        finally:
            engine.close()
    finally:
        _unmount_all(folder)
        shutil.rmtree(folder)


def _unmount_all(folder: Path) -> None:
    """Take off what the engine has left mounted: the name of a network, as a rule."""
    places = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for place in sorted((one for one in places if one.startswith(f"{folder}/")), reverse=True):
        subprocess.run(["umount", "--lazy", place], check=False)
